import json
import socket
import subprocess
import sys
import time

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from appliance.config_deliver import Destination
from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID
from appliance.health import probes
from appliance.health.model import ServiceState
from appliance.services.lifecycle import Heartbeat
from tests.machine import free_port


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """On a busy machine an honest answer may take longer than the health service would wait for it."""
    monkeypatch.setattr(probes, "_PROBE_TIMEOUT_S", 60.0)


@pytest.fixture
def pacs():
    entity = AE(ae_title="PACS")
    entity.add_supported_context(Verification)
    entity.require_called_aet = True
    server = entity.start_server(("127.0.0.1", 0), block=False)
    yield Destination(name="pacs", ae_title="PACS", address="127.0.0.1", port=server.server_address[1])
    server.shutdown()


def state_of(name: str, services) -> ServiceState:
    return next(service.state for service in services if service.name == name)


def test_the_machine_has_memory_and_time():
    machine = probes.machine()
    assert 0 < machine.memory_available_mib <= machine.memory_total_mib
    assert machine.uptime_s > 0


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path):
    disk = probes.disk(tmp_path / "not" / "yet", soft_free_mib=2, reserve_mib=1)
    assert 0 < disk.free_mib < disk.total_mib


def test_a_service_with_a_heartbeat_is_alive(tmp_path):
    Heartbeat(tmp_path, "work").beat()
    services = probes.services(tmp_path / "run", silent_after_s=60)
    assert state_of("work", services) is ServiceState.ALIVE
    assert next(service.resident_mib for service in services if service.name == "work") > 1


def test_a_service_without_a_heartbeat_is_absent(tmp_path):
    assert {service.state for service in probes.services(tmp_path, silent_after_s=60)} == {ServiceState.ABSENT}


def test_an_old_heartbeat_of_a_living_process_is_silence(tmp_path):
    Heartbeat(tmp_path, "work").beat()
    services = probes.services(tmp_path / "run", silent_after_s=60, now_s=probes.since_boot_s() + 61)
    assert state_of("work", services) is ServiceState.SILENT


def change(folder, **facts) -> None:
    path = folder / "run" / "work.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_a_heartbeat_of_a_dead_process_is_absence(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    Heartbeat(tmp_path, "work").beat()
    change(tmp_path, pid=process.pid)
    assert state_of("work", probes.services(tmp_path / "run", silent_after_s=60)) is ServiceState.ABSENT


def test_a_process_number_that_was_given_again_is_absence(tmp_path):
    Heartbeat(tmp_path, "work").beat()
    change(tmp_path, start_ticks=1)
    assert state_of("work", probes.services(tmp_path / "run", silent_after_s=1e12)) is ServiceState.ABSENT


def test_a_heartbeat_of_an_earlier_boot_is_absence(tmp_path):
    Heartbeat(tmp_path, "work").beat()
    change(tmp_path, beat_s=probes.since_boot_s() + 3600)
    assert state_of("work", probes.services(tmp_path / "run", silent_after_s=60)) is ServiceState.ABSENT


@pytest.mark.parametrize("jump_s", [-86400, 86400])
def test_a_clock_that_jumps_silences_nobody(tmp_path, monkeypatch, jump_s):
    Heartbeat(tmp_path, "work").beat()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    (service,) = [item for item in probes.services(tmp_path / "run", silent_after_s=60) if item.name == "work"]
    assert service.state is ServiceState.ALIVE
    assert 0.0 <= service.heartbeat_age_s < 60.0
    assert 0.0 < service.uptime_s < probes.since_boot_s()


def test_what_a_service_has_started_is_weighed_too(tmp_path):
    Heartbeat(tmp_path, "work").beat()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE):
        services = probes.services(tmp_path / "run", silent_after_s=60)
    assert next(service.children_mib for service in services if service.name == "work") > 0.1


def test_a_step_of_the_clock_is_noticed_once(monkeypatch):
    watch = probes.ClockWatch()
    assert watch.look(at_least_s=5.0) is None
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86400.0)
    assert watch.look(at_least_s=5.0) == pytest.approx(-86400.0, abs=1.0)
    assert watch.look(at_least_s=5.0) is None
    monkeypatch.undo()
    assert watch.look(at_least_s=5.0) == pytest.approx(86400.0, abs=1.0)
    assert watch.stepped_s == pytest.approx(0.0, abs=1.0)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": null}', "7"])
def test_a_damaged_heartbeat_is_absence(tmp_path, content):
    (tmp_path / "work.json").write_text(content)
    assert state_of("work", probes.services(tmp_path, silent_after_s=60)) is ServiceState.ABSENT


def test_a_destination_that_answers(pacs):
    (peer,) = probes.destinations([pacs], "APPLIANCE")
    assert (peer.reachable, peer.echo) == (True, True)


def test_a_destination_is_asked_by_the_box_s_own_sender():
    implementations = []
    entity = AE(ae_title="PACS")
    entity.add_supported_context(Verification)
    handlers = [
        (evt.EVT_REQUESTED, lambda event: implementations.append(event.assoc.requestor.implementation_class_uid))
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    destination = Destination(name="pacs", ae_title="PACS", address="127.0.0.1", port=server.server_address[1])
    try:
        assert probes.ask(destination, "APPLIANCE").echoed
    finally:
        server.shutdown()
    assert implementations == [IMPLEMENTATION_CLASS_UID]


def test_a_destination_that_refuses_our_call(pacs):
    (peer,) = probes.destinations([pacs.model_copy(update={"ae_title": "ANOTHER"})], "APPLIANCE")
    assert (peer.reachable, peer.echo) == (True, False)


def test_a_destination_that_is_not_there(pacs):
    (peer,) = probes.destinations([pacs.model_copy(update={"port": free_port()})], "APPLIANCE")
    assert (peer.reachable, peer.echo) == (False, None)


def test_a_destination_that_answers_with_a_failure():
    entity = AE(ae_title="PACS")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda _: 0x0122)])
    destination = Destination(name="pacs", ae_title="PACS", address="127.0.0.1", port=server.server_address[1])
    try:
        assert not probes.ask(destination, "APPLIANCE").echoed
    finally:
        server.shutdown()


def test_a_destination_that_accepts_and_says_nothing(monkeypatch):
    monkeypatch.setattr(probes, "_PROBE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        destination = Destination(name="pacs", ae_title="PACS", address="127.0.0.1", port=mute.getsockname()[1])
        answer = probes.ask(destination, "APPLIANCE")
    assert (answer.connected, answer.echoed) == (True, False)


# chrony cannot run here, so its command is played; the line is the form that chronyc(1) documents for `-c tracking`.
TRACKING = (
    "A9FEA97B,169.254.169.123,4,1700000000.1,{offset},0.000001,0.00001,-7.4,-0.001,0.02,0.0001,0.0001,16.2,{leap}"
)


def play(folder, monkeypatch, command: str, text: str, code: int) -> None:
    script = folder / command
    script.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.fixture
def chronyc(tmp_path, monkeypatch):
    return lambda text, code=0: play(tmp_path, monkeypatch, "chronyc", text, code)


@pytest.mark.parametrize(
    ("text", "code", "expected"), [("yes", 0, True), ("no", 0, False), ("", 0, None), ("Failed to connect", 1, None)]
)
def test_systemd_knows_whether_the_clock_follows_a_server(tmp_path, monkeypatch, text, code, expected):
    play(tmp_path, monkeypatch, "timedatectl", text, code)
    assert probes.clock_synchronised() is expected


def test_without_systemd_nobody_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probes.clock_synchronised() is None


def test_a_slow_clock_has_a_negative_offset(chronyc):
    chronyc(TRACKING.format(offset="0.25", leap="Normal"))
    assert probes.clock_offset_s() == -0.25


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (TRACKING.format(offset="0.0", leap="Not synchronised"), 0),
        ("506 Cannot talk to daemon", 1),
        ("", 0),
        ("a,b", 0),
    ],
)
def test_an_unknown_offset_is_none(chronyc, text, code):
    chronyc(text, code)
    assert probes.clock_offset_s() is None


def test_without_chrony_the_offset_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probes.clock_offset_s() is None
