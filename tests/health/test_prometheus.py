"""The Prometheus endpoint: real HTTP, on the loopback address alone, with the figures of the health message."""

import json
import re
import socket
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.config import Settings
from appliance.errors import ConfigurationError
from appliance.health.measure import measure
from appliance.health.model import Health, Pack, Peer, PeerRole
from appliance.health.prometheus import Endpoint
from appliance.services.lifecycle import Heartbeat
from appliance.store.database import open_database
from tests.machine import free_port, wait_until


def read(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return answer.read().decode()


def samples(text: str) -> dict[tuple, float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def endpoint():
    port = free_port()
    endpoint = Endpoint(port)
    endpoint.port = port
    yield endpoint
    endpoint.close()


@pytest.fixture
def health(tmp_path) -> Health:
    settings = Settings.model_validate({"box": {"state_directory": tmp_path}})
    open_database(settings.box.database).close()
    Heartbeat(tmp_path, "work").beat()
    measured = measure(settings)
    peers = (Peer(name="pacs", role=PeerRole.DESTINATION, reachable=True, echo=False, seconds=0.25),)
    return measured.model_copy(update={"peers": peers, "measured_at": datetime(2026, 1, 1, tzinfo=UTC)})


def test_nothing_is_said_before_the_first_measurement(endpoint):
    assert samples(read(endpoint.port)) == {}


def test_the_figures_are_those_of_the_health_message(endpoint, health):
    endpoint.collector.update(health)
    found = samples(read(endpoint.port))
    mib = 1024 * 1024
    assert found[("appliance_disk_free_bytes",)] == health.disk.free_mib * mib
    assert found[("appliance_memory_total_bytes",)] == health.machine.memory_total_mib * mib
    assert found[("appliance_measured_at_seconds",)] == health.measured_at.timestamp()
    assert found[("appliance_peer_echo", ("peer", "pacs"), ("role", "destination"))] == 0.0
    assert found[("appliance_peer_seconds", ("peer", "pacs"), ("role", "destination"))] == 0.25
    work = next(service for service in health.services if service.name == "work")
    assert found[("appliance_service_resident_bytes", ("service", "work"))] == work.resident_mib * mib
    assert found[("appliance_service_state", ("service", "work"), ("state", "alive"))] == 1.0
    assert found[("appliance_service_state", ("service", "receive"), ("state", "absent"))] == 1.0
    for state, number in health.queue.by_state.items():
        assert found[("appliance_scans", ("state", state.value))] == number
    problems = {dict(key[1:])["problem"] for key, value in found.items() if key[0] == "appliance_problem" and value}
    assert problems == {problem.value for problem in health.problems}
    assert found[("appliance_condition", ("condition", health.condition.value))] == 1.0


def test_what_is_unknown_is_absent_rather_than_nought(endpoint, health):
    endpoint.collector.update(health.model_copy(update={"queue": None}))
    names = {key[0] for key in samples(read(endpoint.port))}
    assert "appliance_scans" not in names
    assert "appliance_clock_offset_seconds" not in names


def test_it_listens_on_the_loopback_address_alone(endpoint):
    listening = [
        connection.laddr.ip
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == endpoint.port
    ]
    assert listening == ["127.0.0.1"]


def test_a_port_that_is_taken_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="prometheus_port"):
        Endpoint(taken.getsockname()[1])


def test_the_service_serves_what_it_publishes(box, listener):
    port = free_port()
    box.mqtt = f"prometheus_port = {port}\n" + box.mqtt
    process = box.start()
    wait_until(lambda: listener.of("health"), "health")
    found = samples(read(port))
    process.terminate()
    assert process.wait(60) == 0
    listener.wait_state("offline")
    told = {round(datetime.fromisoformat(item["measured_at"]).timestamp(), 3) for item in listener.of("health")}
    assert round(found[("appliance_measured_at_seconds",)], 3) in told
    versions = {dict(key[1:])["version"] for key in found if key[0] == "appliance_info"}
    assert versions == {json.loads(listener.messages[0].payload)["appliance_version"]}


def test_every_metric_is_in_the_manual(endpoint, health):
    machine = health.machine.model_copy(update={"temperature_c": 50.0, "clock_offset_s": 0.0})
    queue = health.queue.model_copy(
        update={"oldest_waiting_s": 1.0, "last_finished_age_s": 1.0, "outbox_oldest_s": 1.0}
    )
    pack = Pack(name="trunk", version="1.0", digest="sha256:" + "0" * 64, self_test="passed", trust="shipped")
    endpoint.collector.update(health.model_copy(update={"machine": machine, "queue": queue, "packs": (pack,)}))
    page = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
    documented = set(re.findall(r"`(appliance_[a-z0-9_]+)`", page.partition("## Prometheus")[2].partition("\n## ")[0]))
    known = {key[0] for key in samples(read(endpoint.port))}
    assert known <= documented
    assert documented - known <= {"appliance_clock_synchronised"}
