"""The real health service and a real mosquitto: the fleet learns each step of each alert, in order, and no name."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import jsonschema
import psutil
import pytest

from appliance.health.messages import MESSAGES
from appliance.store.events import EventKind
from appliance.store.outbox import OutboxState
from tests.alerts.conftest import COMMAND, MQTT
from tests.health.conftest import Listener
from tests.machine import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from appliance.store.database import Store
    from tests.alerts.conftest import Lamp
    from tests.health.conftest import Box, Broker

pytestmark = pytest.mark.slow


def steps(listener: Listener) -> list[tuple[int, str]]:
    return [(message["id"], message["step"]) for message in listener.of("alerts")]


def test_each_step_is_published_once_by_the_schema_and_without_a_name(
    store: Store, alarm: Callable[..., int], box: Box, listener: Listener
) -> None:
    box.start()
    number = alarm(channels=(MQTT,))
    store.alerts.escalate_overdue()
    store.alerts.acknowledge(number, "Canary Li 李")
    expected = [(number, step) for step in ("raised", "escalated", "acknowledged")]
    wait_until(lambda: steps(listener) == expected, "three messages")
    wait_until(lambda: store.outbox.counts() == {OutboxState.DONE: 3}, "the broker's acknowledgements")
    alert = store.alerts.get(number)
    for message in listener.of("alerts"):
        jsonschema.validate(message, MESSAGES["alerts"].model_json_schema(mode="serialization"))
        assert (message["screening"], message["urgency"], message["scan"]) == ("aorta", "urgent", alert.scan_id)
    assert not [
        message for message in listener.messages if b"Canary" in message.payload or b"\\u674e" in message.payload
    ]
    assert not any(message.retain for message in listener.messages if message.topic.endswith("/alerts"))


def test_an_alert_that_the_broker_refuses_stays_and_stands_in_no_way(
    store: Store, alarm: Callable[..., int], box: Box, broker: Broker
) -> None:
    rules = broker.folder / "rules"
    rules.write_text("topic readwrite appliances/+/events\ntopic readwrite appliances/+/state\ntopic read #\n")
    rules.chmod(0o600)
    broker.options += f"\nacl_file {rules}"
    broker.start()
    alarm(channels=(MQTT,))
    with Listener(broker.port) as listener:
        box.start()
        wait_until(lambda: (box.folder / "log.txt").exists() and "publish_refused" in box.log(), "the refusal")
        store.events.record(EventKind.REFUSED)
        wait_until(lambda: "refused" in [event["event"] for event in listener.of("events")], "an event")
    assert store.outbox.counts() == {OutboxState.WAITING: 1}


def test_the_health_service_deletes_what_is_old_and_lets_go_of_a_broker_that_is_gone(
    store: Store, alarm: Callable[..., int], box: Box
) -> None:
    old, kept = alarm(channels=(MQTT,)), alarm(channels=(MQTT,))
    store.alerts.acknowledge(old, "Li", at=time.time() - 91 * 86400.0)
    box.mqtt = ""
    box.start()
    wait_until(lambda: store.outbox.counts() == {OutboxState.DONE: 1}, "the sweep")
    assert [alert.id for alert in store.alerts.recent()] == [kept]
    assert store.outbox.get(f"alert/{kept}/raised/mqtt/").reason == "no longer configured"


def test_kills_of_box_and_broker_lose_nothing(
    store: Store, alarm: Callable[..., int], box: Box, broker: Broker
) -> None:
    chance, count = random.Random(11), 40
    numbers = [alarm(channels=(MQTT,)) for _ in range(count)]
    broker.start()
    arrived: list[tuple[int, str]] = []
    for round_number in range(4):
        with Listener(broker.port) as listener:
            process = box.start()
            if round_number:
                listener.wait_state("online")
                store.alerts.acknowledge(numbers[round_number], "Li")
            time.sleep(chance.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
            process.wait()
            arrived += steps(listener)
        broker.stop()
        broker.start()
    with Listener(broker.port) as listener:
        box.start()
        wait_until(lambda: store.outbox.counts() == {OutboxState.DONE: count + 3}, "everything to be told")
        arrived += steps(listener)
    acknowledged = [(number, "acknowledged") for number in numbers[1:4]]
    assert set(arrived) == {(number, "raised") for number in numbers} | set(acknowledged)


def test_a_thousand_alerts_arrive_in_order_with_little_memory(
    store: Store,
    lamp: Lamp,
    alarm: Callable[..., int],
    box: Box,
    broker: Broker,
    deliver: Callable[[str], subprocess.Popen[bytes]],
) -> None:
    """A storm that began while broker and services were away, and goes on while they work."""
    count = 1000
    levels = ("urgent", "soon", "routine")
    with store.atomic():
        early = [(alarm(level, channels=(MQTT, COMMAND)), level) for level in levels * (count // 6)]
    broker.start()
    with Listener(broker.port) as listener:
        health = box.start()
        delivering = deliver(f'[alerts]\ncommand = ["{lamp.program}"]\nescalate_after_min = 0\n')
        listener.wait_state("online")
        processes = [psutil.Process(process.pid) for process in (health, delivering)]
        wait_until(lambda: len(listener.of("alerts")) > 0 and len(lamp.told()) > 0, "the first alerts")
        before = [process.memory_info().rss for process in processes]
        peak = list(before)
        while len(early) < count:
            with store.atomic():
                late = min(20, count - len(early))
                early += [(alarm("urgent", channels=(MQTT, COMMAND)), "late") for _ in range(late)]
            peak = [max(pair) for pair in zip(peak, rss(processes), strict=True)]

        def all_told() -> bool:
            nonlocal peak
            peak = [max(pair) for pair in zip(peak, rss(processes), strict=True)]
            return store.outbox.counts() == {OutboxState.DONE: 2 * count}

        wait_until(all_told, "everything to be told", at_most_s=300.0)
        arrived = [number for number, _ in steps(listener)]
    told = [int(line.split()[0]) for line in lamp.told()]
    for order in (arrived, told):
        assert sorted(order) == sorted(number for number, _ in early)  # each once
        first = [number for number in order if number in {n for n, level in early if level != "late"}]
        assert [n for n in first if n in of(early, "urgent")] == sorted(of(early, "urgent"))
        assert [n for n in order if n in of(early, "late")] == sorted(of(early, "late"))
        assert first[: count // 6] == sorted(of(early, "urgent"))  # the urgent ones of those that waited came first
    growth_mib = [(most - least) / 2**20 for least, most in zip(before, peak, strict=True)]
    assert max(growth_mib) < 40.0, growth_mib


def rss(processes: list[psutil.Process]) -> list[int]:
    return [process.memory_info().rss for process in processes]


def of(alerts: list[tuple[int, str]], level: str) -> set[int]:
    return {number for number, word in alerts if word == level}
