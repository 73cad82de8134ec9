"""Commands of the fleet: through a real mosquitto with TLS, client certificates and access rules, to a real service."""

import json
import re
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from appliance.config import PackRepository, Settings
from appliance.health import commands
from appliance.health.command_model import Code, CommandName, Diagnostics
from appliance.health.commands import Commander, RateLimit
from appliance.health.diagnostics import LONGEST_BYTES, build, masked
from appliance.health.measure import measure
from appliance.health.messages import MESSAGES
from appliance.services.self_test import SelfTester
from appliance.store.commands import COMMANDS_KEPT, Outcome
from appliance.store.database import open_database
from appliance.store.events import EventKind
from tests.machine import wait_until

from .conftest import Listener, plain
from .test_tls import mqtt

# The rules of docs/fleet.md: boxes are told by the common names of their certificates.
RULES = """
pattern write appliances/%u/state
pattern write appliances/%u/health
pattern write appliances/%u/events
pattern write appliances/%u/alerts
pattern write appliances/%u/drift
pattern write appliances/%u/diagnostics
pattern write appliances/%u/cmd/reply
pattern read appliances/%u/cmd/+

user monitor
topic read appliances/#

user operator
topic write appliances/+/cmd/self-test
topic write appliances/+/cmd/diagnostics
topic write appliances/+/cmd/re-announce
topic write appliances/+/cmd/check-packs
"""


def command(**changes) -> dict:
    expires_at = datetime.now(UTC) + timedelta(minutes=50)
    return {"schema_version": 1, "id": str(uuid.uuid4()), "expires_at": expires_at.isoformat()} | changes


@dataclass
class Sender:
    """Somebody who is connected to the broker and publishes."""

    port: int
    context: ssl.SSLContext | None = None
    refused: list = field(default_factory=list)

    def __enter__(self):
        ready = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        if self.context is not None:
            self.client.tls_set_context(self.context)
        self.client.on_connect = lambda *_: ready.set()
        self.client.on_publish = lambda _client, _data, mid, reason, _properties: self._note(mid, reason)
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        assert ready.wait(60)
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()

    def _note(self, mid, reason) -> None:
        if reason.is_failure:
            self.refused.append(mid)

    def send(self, box: str, name: str, payload: dict | bytes, *, retain: bool = False) -> int:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sent = self.client.publish(f"appliances/{box}/cmd/{name}", data, qos=1, retain=retain)
        sent.wait_for_publish(60)
        return sent.mid


def answers(listener, command_id: str) -> list[tuple[str, str | None]]:
    return [(item["outcome"], item["code"]) for item in listener.of("cmd/reply") if item["id"] == command_id]


def wait_answer(listener, command_id: str, outcome: str) -> None:
    wait_until(lambda: outcome in [item[0] for item in answers(listener, command_id)], f"{outcome} of {command_id}")


@pytest.fixture
def fleet(broker, authority):
    """A broker with the rules of the manual, and what each of its users connects with."""
    certificate, key = authority.issue("broker")
    rules = broker.folder / "rules"
    rules.write_text(RULES)
    rules.chmod(0o600)
    broker.options = (
        f"cafile {authority.certificate}\ncertfile {certificate}\nkeyfile {key}\n"
        f"require_certificate true\nuse_identity_as_username true\n"
        f"allow_anonymous false\nacl_file {rules}"
    )
    broker.start()

    def context(name: str) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=authority.certificate)
        made.load_cert_chain(*authority.issue(name))
        return made

    return context


def listening(mqtt_text: str) -> str:
    return mqtt_text.replace("[health.mqtt]\n", "[health.mqtt]\ncommands = true\n")


def test_through_the_access_rules_of_the_manual(box, broker, authority, fleet):
    box.mqtt = listening(mqtt(broker, *authority.issue("county-21"), authority.certificate))
    asked, stranger, other = command(), command(), command()
    with (
        Listener(broker.port, fleet("monitor")) as monitor,
        Sender(broker.port, fleet("operator")) as operator,
        Sender(broker.port, fleet("county-22")) as neighbour,
        Sender(broker.port, fleet("monitor")) as spectator,
    ):
        box.start()
        wait_until(lambda: monitor.of("health"), "health")
        assert spectator.send("county-21", "re-announce", stranger) in spectator.refused
        assert neighbour.send("county-21", "re-announce", other) in neighbour.refused
        births = len(monitor.of("state"))
        assert operator.send("county-21", "re-announce", asked) not in operator.refused
        wait_answer(monitor, asked["id"], "done")
        assert answers(monitor, asked["id"]) == [("accepted", None), ("done", None)]
        wait_until(lambda: len(monitor.of("state")) > births, "the state once more")
        assert answers(monitor, stranger["id"]) == answers(monitor, other["id"]) == []
        assert {message.topic.split("/")[1] for message in monitor.messages} == {"county-21"}


@pytest.fixture
def commanded(box, listener):
    """A box without TLS that takes commands, a listener, and a sender."""
    box.mqtt = listening(plain(listener.port))
    box.start()
    wait_until(lambda: listener.of("health"), "health")
    with Sender(listener.port) as sender:
        yield box, listener, sender


def test_a_command_is_done_once_however_often_it_comes(commanded):
    box, listener, sender = commanded
    asked, last = command(), command()
    for _ in range(3):
        sender.send("box-7", "re-announce", asked)
    wait_answer(listener, asked["id"], "done")
    with open_database(box.state_directory / "appliance.db", read_only=True) as store:
        wait_until(lambda: not store.commands.replies(), "the answers to be noted")  # else they are told again
    box.stop()
    box.start()  # it is remembered across a restart
    listener.wait_state("offline")
    listener.wait_state("online")
    sender.send("box-7", "re-announce", asked)
    sender.send("box-7", "re-announce", last)
    wait_answer(listener, last["id"], "done")
    assert answers(listener, asked["id"]) == [("accepted", None), ("done", None)]


def test_the_bundle_of_diagnostics(commanded):
    _, listener, sender = commanded
    asked = command()
    sender.send("box-7", "diagnostics", asked)
    wait_answer(listener, asked["id"], "done")
    (bundle,) = listener.of("box-7/diagnostics")
    Diagnostics.model_validate(bundle)
    jsonschema.validate(bundle, MESSAGES["diagnostics"].model_json_schema())
    assert bundle["id"] == asked["id"]
    assert "started" in [event["event"] for event in bundle["events"]]
    assert bundle["rows"]["commands"] == 1
    text = json.dumps(bundle)
    assert "127.0.0.1" not in text
    assert str(commanded[0].state_directory) not in text


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        ("re-announce", {"expires_at": "2020-01-01T00:00:00Z"}, "expired"),
        ("re-announce", {"expires_at": "2999-01-01T00:00:00Z"}, "expires_too_late"),
        ("re-announce", {"expires_at": "tomorrow"}, "invalid"),
        ("re-announce", {"shell": "rm -rf /"}, "invalid"),
        ("check-packs", {}, "not_configured"),
    ],
)
def test_a_refusal_is_answered_once_with_its_code(settings, name, changes, code):
    asked = command(**changes)
    commander, announcer = commander_of(settings)
    for _ in range(2):
        commander._handle(commands._Asked(CommandName(name), json.dumps(asked).encode()))
    with open_database(settings.box.database) as store:
        (reply,) = store.commands.replies()
    assert (reply.command_id, reply.outcome, reply.code) == (asked["id"], Outcome.REFUSED, code)
    assert announcer.announced == 0


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"null", b'{"id": "Zhang^San"}', b'{"id": 7}', b"\xff\xfe", b"[" * 4000]
)
def test_what_names_no_command_is_answered_by_nobody(settings, payload):
    commander, announcer = commander_of(settings)
    commander._handle(commands._Asked(CommandName.RE_ANNOUNCE, payload))
    with open_database(settings.box.database) as store:
        assert store.commands.replies() == []
    assert announcer.announced == 0


def test_retained_commands_are_ignored(box, listener):
    retained, last = command(), command()
    with Sender(listener.port) as sender:
        sender.send("box-7", "re-announce", retained, retain=True)
        box.mqtt = listening(plain(listener.port))
        box.start()
        wait_until(lambda: listener.of("health"), "health")
        sender.send("box-7", "re-announce", last)
        wait_answer(listener, last["id"], "done")
    assert answers(listener, retained["id"]) == []


def test_nothing_is_heard_unless_it_is_switched_on(box, listener):
    asked = command()
    box.start()
    wait_until(lambda: listener.of("health"), "health")
    with Sender(listener.port) as sender:
        sender.send("box-7", "re-announce", asked)
    seen = len(listener.of("health"))
    wait_until(lambda: len(listener.of("health")) > seen + 3, "some more rounds")
    assert answers(listener, asked["id"]) == []


# --- the parts ---------------------------------------------------------------------------------------------------


class Announced:
    """Stands for the publisher."""

    def __init__(self) -> None:
        self.announced = 0
        self.now: list[tuple[str, dict]] = []

    def announce(self) -> bool:
        self.announced += 1
        return True

    def publish_now(self, leaf, payload, *, wait_s=0.0) -> bool:
        self.now.append((leaf, json.loads(payload)))
        return True


@pytest.fixture
def settings(tmp_path):
    made = Settings.model_validate({"box": {"state_directory": tmp_path / "state"}})
    open_database(made.box.database).close()
    return made


def commander_of(settings) -> tuple[Commander, Announced]:
    announcer = Announced()
    return Commander(settings, announcer, lambda: None), announcer


def payload() -> bytes:
    return json.dumps(command()).encode()


def test_a_flood_is_refused_at_once_and_fills_nothing(settings):
    commander, announcer = commander_of(settings)
    for _ in range(5000):
        commander.take("re-announce", payload())
    assert commander._waiting.qsize() <= commands.MOST_WAITING
    codes = {content["code"] for _, content in announcer.now}
    assert codes == {"rate_limited"}
    assert 4990 <= len(announcer.now) <= 5000 - commands.BURST
    with open_database(settings.box.database) as store:
        assert store.commands.replies() == []


def test_too_large_a_payload_and_an_unknown_command_are_dropped(settings):
    commander, announcer = commander_of(settings)
    commander.take("re-announce", b"x" * (commands.LONGEST_PAYLOAD_BYTES + 1))
    commander.take("reboot", payload())
    assert commander._waiting.qsize() == 0
    assert announcer.now == []


def test_the_rate_recovers():
    limit = RateLimit(burst=2, per_minute=6e6)
    assert [limit.take(), limit.take()] == [True, True]
    deadline = time.monotonic() + 30
    while not limit.take():
        assert time.monotonic() < deadline


def test_a_command_that_was_cut_short_is_answered_at_the_next_start(settings):
    asked = str(uuid.uuid4())
    with open_database(settings.box.database) as store:
        store.commands.accept(asked, "diagnostics")
        commander, _ = commander_of(settings)
        commander.start()
        wait_until(lambda: not store.commands.unended(), "the end of the interrupted command")
        commander.close()
        assert [(row.outcome, row.code) for row in store.commands.replies()] == [
            (Outcome.ACCEPTED, None),
            (Outcome.FAILED, "interrupted"),
        ]


def test_the_memory_of_commands_is_bounded(settings):
    with open_database(settings.box.database) as store, store.atomic():
        for _ in range(COMMANDS_KEPT + 20):
            store.commands.refuse(str(uuid.uuid4()), "self-test", "expired")
        counts = store.row_counts()
    assert (counts["commands"], counts["command_replies"]) == (COMMANDS_KEPT, COMMANDS_KEPT)


def test_the_memory_outlasts_the_validity_of_every_command():
    assert commands.BURST + commands.PER_MINUTE * commands.LONGEST_VALIDITY_S / 60.0 < COMMANDS_KEPT


def test_a_repository_that_fails_is_answered_with_its_code(settings, tmp_path):
    (tmp_path / "root.json").write_text("{}")
    repository = PackRepository(source=str(tmp_path / "nowhere"), root=tmp_path / "root.json")
    packs = settings.packs.model_copy(update={"repository": repository})
    commander, _ = commander_of(settings.model_copy(update={"packs": packs}))
    commander._handle(commands._Asked(CommandName.CHECK_PACKS, payload()))
    with open_database(settings.box.database) as store:
        assert [(row.outcome, row.code) for row in store.commands.replies()] == [
            (Outcome.ACCEPTED, None),
            (Outcome.FAILED, "repository_failed"),
        ]


def test_a_self_test_is_done_by_the_work_service(settings):
    """The health service may not run networks; the row stands between the two."""
    asked = command()
    commander, _ = commander_of(settings)
    commander.start()
    commander.take("self-test", json.dumps(asked).encode())
    with open_database(settings.box.database) as store:
        wait_until(lambda: store.self_tests.open() is not None, "the row")
        number = store.self_tests.open().id
        store.self_tests.begin(number)
        store.self_tests.end(number, passed=2, failed=1)
        wait_until(lambda: not store.commands.unended(), "the answer")
        accepted, done = store.commands.replies()
        assert (accepted.outcome, done.outcome, done.numbers) == (
            Outcome.ACCEPTED,
            Outcome.DONE,
            {"passed": 2.0, "failed": 1.0},
        )
    commander.close()


def test_a_self_test_that_nobody_does_is_answered_too(settings, monkeypatch):
    monkeypatch.setattr(commands, "SELF_TEST_WITHIN_S", 0.0)
    commander, _ = commander_of(settings)
    commander.start()
    commander.take("self-test", payload())
    with open_database(settings.box.database) as store:
        wait_until(lambda: len(store.commands.replies()) == 2, "the answer")
        assert store.commands.replies()[1].code == "timed_out"
    commander.close()


@pytest.mark.slow
def test_the_shipped_packs_pass_in_a_child_of_the_work_service(settings):
    with open_database(settings.box.database) as store:
        number = store.self_tests.ask()
        tester = SelfTester(store, settings)
        try:
            deadline = time.monotonic() + 400
            while store.self_tests.open() is not None:
                tester.step()
                time.sleep(0.1)
                assert time.monotonic() < deadline
        finally:
            tester.close()
        row = store.self_tests.get(number)
    assert (row.failed, row.passed >= 1) == (0, True)


def test_a_self_test_whose_child_dies_has_failed(settings, tmp_path):
    broken = tmp_path / "pack"
    broken.mkdir()
    (broken / "pack.toml").write_text("name = ")
    damaged = settings.model_copy(update={"work": settings.work.model_copy(update={"packs": (broken,)})})
    with open_database(settings.box.database) as store:
        number = store.self_tests.ask()
        tester = SelfTester(store, damaged)
        tester.step()
        wait_until(lambda: tester.step() or store.self_tests.open() is None, "the end", at_most_s=120)
        assert (store.self_tests.get(number).passed, store.self_tests.get(number).failed) == (0, 1)


def test_only_numbers_and_switches_of_the_configuration_leave_the_box():
    secret = Settings.model_validate(
        {
            "box": {"name": "CANARY"},
            "receive": {"ae_title": "CANARY", "peers": [{"ae_title": "CANARY", "address": "10.9.8.7"}]},
            "health": {"mqtt": {"host": "canary.example", "username": "CANARY", "password_file": "/CANARY"}},
        }
    )
    found = {item.key: (item.value, item.count) for item in masked(secret.model_dump(mode="json"))}
    assert found["receive.peers"] == (None, 1)
    assert found["receive.port"] == (11112, None)
    assert found["health.mqtt.allow_plaintext"] == (False, None)
    assert found["health.mqtt.password_file"] == (None, None)
    assert "canary" not in str(found).lower()


JOURNAL = [
    {"_SYSTEMD_UNIT": "appliance-work.service", "MESSAGE": json.dumps(
        {"event": "attempt_lost", "level": "error", "scan": 7, "reason": "time_limit", "attempt": 2, "why": "CANARY",
         "number": 19610412123456, "pid": 4})},
    {"_SYSTEMD_UNIT": "appliance-work.service", "MESSAGE": json.dumps({"event": "Zhang San is ill", "level": "info"})},
    {"_SYSTEMD_UNIT": "appliance-work.service", "MESSAGE": "CANARY without JSON"},
    {"_SYSTEMD_UNIT": "sshd.service", "MESSAGE": json.dumps({"event": "login", "level": "info"})},
]  # fmt: skip


def play_journal(folder, monkeypatch, entries) -> None:
    lines = [json.dumps({"__REALTIME_TIMESTAMP": "1767225600000000"} | entry) for entry in entries]
    (folder / "lines").write_text("\n".join(lines))
    script = folder / "journalctl"
    script.write_text(f"#!/bin/sh\ncat {folder}/lines\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_of_a_log_line_only_words_of_ours_and_numbers_leave_the_box(settings, tmp_path, monkeypatch):
    play_journal(tmp_path, monkeypatch, JOURNAL)
    with open_database(settings.box.database, read_only=True) as store:
        bundle = build(str(uuid.uuid4()), settings, store, measure(settings))
    (line,) = bundle.log
    assert (line.event, line.scan, line.reason, line.numbers) == ("attempt_lost", 7, "time_limit", {"attempt": 2.0})
    assert "CANARY" not in bundle.model_dump_json()


def test_the_bundle_is_bounded(settings, tmp_path, monkeypatch):
    noisy = {"event": "x" * 40, "level": "info"} | {f"{'n' * 35}{number}": 1.5 for number in range(60)}
    play_journal(
        tmp_path, monkeypatch, [{"_SYSTEMD_UNIT": "appliance-work.service", "MESSAGE": json.dumps(noisy)}] * 200
    )
    with open_database(settings.box.database) as store:
        for _ in range(100):
            store.events.record(EventKind.REFUSED, numbers={f"{'n' * 30}{number}": 1.5 for number in range(30)})
        bundle = build(str(uuid.uuid4()), settings, store, measure(settings))
    assert len(bundle.to_payload()) <= LONGEST_BYTES
    assert bundle.log


def test_without_a_journal_the_bundle_says_so(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_database(settings.box.database, read_only=True) as store:
        bundle = build(str(uuid.uuid4()), settings, store, measure(settings))
    assert not bundle.log_readable


def test_the_access_rules_of_the_manual_are_those_tested():
    assert RULES.strip() in (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
    codes = set(re.findall(r"`([a-z_]+)`", "".join(code_cells())))
    assert codes == {code.value for code in Code}


def code_cells() -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text().partition("| code | meaning |")[2]
    return [line.split("|")[1] for line in text.partition("\n\n")[0].splitlines()[2:]]
