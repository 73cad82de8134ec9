"""The fleet's side at its worst: small windows, storms, a month without a broker, a clock that jumps."""

import time
from datetime import UTC, datetime

import pytest

from appliance.config import MqttSettings, Settings
from appliance.health import drift
from appliance.health.broker import Broker as MqttBroker
from appliance.health.model import Problem
from appliance.health.publisher import Publisher
from appliance.reasons import ReasonCode
from appliance.services import health as service
from appliance.store.database import open_database
from appliance.store.events import EventKind
from tests.machine import wait_until

from .conftest import Listener
from .test_drift import Box as Filled

DAY_S = 86400.0


@pytest.fixture
def settings(tmp_path) -> Settings:
    made = Settings.model_validate(
        {"box": {"state_directory": tmp_path / "state"}, "retention": {"soft_free_mib": 0},
         "receive": {"disk_reserve_mib": 0}}
    )  # fmt: skip
    open_database(made.box.database).close()
    return made


def publisher_to(broker, folder) -> Publisher:
    address = MqttSettings(host="127.0.0.1", port=broker.port, allow_plaintext=True)
    return Publisher(MqttBroker.from_settings(address, "box-1"), folder / "n", "0.1.0")


def record(settings: Settings, number: int, at: float | None = None) -> None:
    with open_database(settings.box.database, check=False) as store, store.atomic():
        for _ in range(number):
            store.events.record(EventKind.REFUSED, scan_id=1, reason=ReasonCode.MISSING_SLICE, at=at)


def tell_all(settings: Settings, publisher: Publisher, *, meanwhile=lambda: None) -> None:
    """Go the service's own rounds until nothing waits."""
    rounds = service._Service(settings, publisher, None)
    with open_database(settings.box.database, read_only=True) as store:

        def told() -> bool:
            rounds._publish_events()
            meanwhile()
            return not store.events.waiting()

        wait_until(told, "all events to be told", at_most_s=240)


def ids(listener) -> list[int]:
    return [event["id"] for event in listener.of("events")]


def test_a_broker_that_takes_few_at_once_gets_no_more(broker, settings, tmp_path):
    broker.options += "\nmax_inflight_messages 2"  # what mosquitto then says is its Receive Maximum
    broker.start()
    record(settings, 200)
    publisher = publisher_to(broker, tmp_path)
    with Listener(broker.port) as listener:
        publisher.start()
        wait_until(lambda: publisher.connected, "the connection")
        tell_all(settings, publisher)
        wait_until(lambda: len(ids(listener)) >= 200, "the events")
        assert ids(listener) == list(range(1, 201))
        assert [session for _, session in listener.states()] == [1], "it was never thrown out"
    publisher.close()
    assert publisher._window == 2
    assert "receive maximum" not in (broker.folder / "mosquitto.log").read_text().lower()


def test_a_storm_of_a_thousand_loses_nothing(listener, broker, settings, tmp_path):
    publisher = publisher_to(broker, tmp_path)
    publisher.start()
    wait_until(lambda: publisher.connected, "the connection")
    under_way = []
    record(settings, 500)
    tell_all(settings, publisher, meanwhile=lambda: under_way.append(len(publisher._in_flight)))
    record(settings, 500)
    tell_all(settings, publisher, meanwhile=lambda: under_way.append(len(publisher._in_flight)))
    wait_until(lambda: len(ids(listener)) >= 1000, "the events")
    publisher.close()
    assert ids(listener) == list(range(1, 1001))
    assert max(under_way) <= 100, "no more is handed over at once than one look at the outbox gives"


def test_a_month_without_a_broker(broker, settings, tmp_path, monkeypatch):
    """Three times more happens than is kept: the newest are kept, the file does not grow on, and all of them arrive."""
    monkeypatch.setattr(service, "_EVENTS_KEPT", 1000)
    rounds = service._Service(settings, None, None)
    began = time.time() - 30 * DAY_S
    sizes = []
    for day in range(30):
        record(settings, 100, at=began + day * DAY_S)
        rounds._sweep()
        with open_database(settings.box.database, read_only=True) as store:
            assert store.row_counts()["events"] <= 1000
            sizes.append(store.rows("SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size"))
    assert sizes[-1][0]["bytes"] <= sizes[12][0]["bytes"] + 16 * 4096
    broker.start()
    publisher = publisher_to(broker, tmp_path)
    with Listener(broker.port) as listener:
        publisher.start()
        wait_until(lambda: publisher.connected, "the connection")
        tell_all(settings, publisher)
        wait_until(lambda: len(ids(listener)) >= 1000, "the events")
        assert ids(listener) == list(range(2001, 3001))
    publisher.close()


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_a_clock_that_is_set_is_told_and_stops_nothing(settings, monkeypatch, jump_s):
    rounds = service._Service(settings, None, None)
    rounds._measure()
    assert Problem.CLOCK_WRONG not in rounds._health.problems
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    rounds._measure()
    told = rounds._health
    assert Problem.CLOCK_WRONG in told.problems
    assert told.machine.clock_stepped_s == pytest.approx(jump_s, abs=2.0)
    monkeypatch.setattr(time, "time", real)
    rounds._measure()
    assert rounds._health.machine.clock_stepped_s == pytest.approx(0.0, abs=2.0)
    with open_database(settings.box.database, read_only=True) as store:
        steps = [event for event in store.events.last() if event.kind is EventKind.CLOCK_STEPPED]
    assert [step.numbers["seconds"] > 0 for step in steps] == [jump_s > 0, jump_s < 0]


def test_a_clock_behind_the_database_is_wrong(settings):
    with open_database(settings.box.database) as store:
        store.events.record(EventKind.STARTED, at=time.time() + 3600.0)
    rounds = service._Service(settings, None, None)
    rounds._measure()
    assert Problem.CLOCK_WRONG in rounds._health.problems
    assert rounds._health.queue.clock_behind_s == pytest.approx(3600.0, abs=60.0)


def test_the_drift_of_yesterday_is_retained_and_told_again_to_a_broker_that_forgot_it(box, broker):
    box.state_directory.mkdir()
    filled = Filled(box.state_directory)
    filled.scans(drift.LEAST_STUDIES, time.time() - DAY_S)
    filled.store.close()
    broker.start()
    box.start()
    with Listener(broker.port) as listener:
        wait_until(lambda: listener.of("drift"), "drift")
    broker.stop()
    broker.start()
    with Listener(broker.port) as listener:
        wait_until(lambda: listener.of("drift"), "drift once more")
        (message,) = listener.of("drift")
    yesterday = datetime.fromtimestamp(time.time() - DAY_S, UTC).astimezone().date().isoformat()
    assert message["last_day"] == yesterday
    assert message["groups"][0]["studies"] == drift.LEAST_STUDIES
