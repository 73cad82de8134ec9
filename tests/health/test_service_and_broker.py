"""The real health service and a real mosquitto: birth, will, rebirth, absence, events."""

import json
import signal

import jsonschema

from appliance.config import MqttSettings
from appliance.health.broker import Broker as MqttBroker
from appliance.health.messages import MESSAGES
from appliance.health.publisher import Publisher
from appliance.reasons import ReasonCode
from appliance.store.database import open_database
from appliance.store.events import EventKind
from tests.machine import wait_until

from .conftest import Listener


def test_the_birth_is_retained_and_first(box, broker, listener):
    box.start()
    wait_until(lambda: listener.of("health"), "health")
    assert [message.topic for message in listener.messages][:1] == ["appliances/box-7/state"]
    assert listener.states() == [("online", 1)]
    with Listener(broker.port) as late:
        late.wait_state("online")
        wait_until(lambda: late.of("health"), "retained health")


def test_every_message_is_valid_by_the_shipped_schema(box, listener):
    box.start()
    wait_until(lambda: listener.of("health") and listener.of("events"), "health and an event")
    # The box goes on publishing: what came so far is judged, or a slow judge would never see the end.
    box.stop()
    validators = {leaf: jsonschema.Draft202012Validator(model.model_json_schema()) for leaf, model in MESSAGES.items()}
    for message in tuple(listener.messages):
        validators[message.topic.rpartition("/")[2]].validate(json.loads(message.payload))


def test_health_is_published_again_and_again(box, listener):
    box.start()
    wait_until(lambda: len(listener.of("health")) >= 3, "three health messages")
    measured = [message["measured_at"] for message in listener.of("health")]
    assert measured == sorted(set(measured))


def test_a_clean_stop_says_offline(box, listener):
    process = box.start()
    listener.wait_state("online")
    process.terminate()
    assert process.wait(60) == 0
    listener.wait_state("offline")
    assert not (box.state_directory / "run/health.json").exists()


def test_the_last_will_says_offline_when_the_process_is_killed(box, broker, listener):
    process = box.start()
    listener.wait_state("online")
    process.send_signal(signal.SIGKILL)
    process.wait()
    listener.wait_state("offline")
    assert listener.states()[-1] == ("offline", 1)
    with Listener(broker.port) as late:
        late.wait_state("offline")


def test_the_session_counter_survives_a_restart(box, listener):
    box.start()
    listener.wait_state("online")
    box.stop()
    listener.wait_state("offline")
    box.start()
    listener.wait_state("online")
    assert listener.states()[-1] == ("online", 2)


def test_it_is_born_again_when_the_broker_comes_back_empty(box, broker):
    broker.start()
    box.start()
    with Listener(broker.port) as listener:
        listener.wait_state("online")
    broker.stop()
    broker.start()
    with Listener(broker.port) as listener:
        listener.wait_state("online")
        assert listener.states()[-1] == ("online", 2)
        wait_until(lambda: listener.of("health"), "health after the broker's restart")


def test_it_starts_without_a_broker_and_appears_when_there_is_one(box, broker):
    process = box.start()
    wait_until(lambda: (box.folder / "log.txt").exists() and "broker_unreachable" in box.log(), "a failed attempt")
    assert process.poll() is None
    broker.start()
    with Listener(broker.port) as listener:
        listener.wait_state("online")


def test_an_absent_broker_is_complained_of_once(box, broker):
    box.interval_s = 0.2
    box.start()
    wait_until((box.state_directory / "run/health.json").exists, "the service")
    broker.start()
    with Listener(broker.port) as listener:
        listener.wait_state("online")
    assert box.log().count("broker_unreachable") <= 1


def test_events_outlive_a_killed_service_and_arrive_once(box, broker):
    box.state_directory.mkdir()
    with open_database(box.state_directory / "appliance.db") as store:
        for _ in range(5):
            store.events.record(EventKind.REFUSED, scan_id=3, reason=ReasonCode.MISSING_SLICE, numbers={"slices": 41})
    box.start()
    wait_until(lambda: (box.folder / "log.txt").exists() and "broker_unreachable" in box.log(), "a failed attempt")
    with open_database(box.state_directory / "appliance.db", read_only=True) as store:
        assert len(store.events.waiting()) >= 5
    box.stop()
    broker.start()
    # Events are not retained: whoever wants them listens first.
    with Listener(broker.port) as listener:
        box.start()
        wait_until(lambda: len(refused(listener)) >= 5, "five events")
        with open_database(box.state_directory / "appliance.db", read_only=True) as store:
            wait_until(lambda: not store.events.waiting(), "the outbox to empty")
        wait_until(lambda: len(listener.of("health")) >= 3, "some more rounds")
        assert sorted(event["id"] for event in refused(listener)) == [1, 2, 3, 4, 5]
        assert refused(listener)[0]["reason"] == "missing_slice"
        assert refused(listener)[0]["numbers"] == {"slices": 41.0}


def refused(listener: Listener) -> list[dict]:
    return [event for event in listener.of("events") if event["event"] == "refused"]


def refuse_events(broker) -> None:
    rules = broker.folder / "rules"
    rules.write_text("topic readwrite appliances/+/state\ntopic readwrite appliances/+/health\ntopic read #\n")
    rules.chmod(0o600)
    broker.options += f"\nacl_file {rules}"
    broker.start()


def test_what_the_broker_refuses_is_known_and_does_not_stand_in_the_way(broker, tmp_path):
    refuse_events(broker)
    settings = MqttSettings(host="127.0.0.1", port=broker.port, allow_plaintext=True)
    publisher = Publisher(MqttBroker.from_settings(settings, "box-1"), tmp_path / "n", "0.1.0")
    publisher.start()
    wait_until(lambda: publisher.publish_event(7, b"{}"), "the connection")
    wait_until(lambda: publisher.refused == {7}, "the refusal")
    assert publisher.take_acknowledged() == set()
    assert publisher.refused == {7}
    publisher.close()


def test_an_event_that_the_broker_refuses_stays_in_the_outbox(box, broker):
    refuse_events(broker)
    box.start()
    wait_until(lambda: (box.folder / "log.txt").exists() and "publish_refused" in box.log(), "the refusal")
    with open_database(box.state_directory / "appliance.db", read_only=True) as store:
        assert store.events.waiting()


def test_a_service_that_is_missing_makes_the_box_down(box, listener):
    box.start()
    wait_until(lambda: listener.of("health"), "health")
    message = listener.of("health")[-1]
    assert message["condition"] == "down"
    assert {"receive_absent", "work_absent", "deliver_absent"} <= set(message["problems"])
    assert "health_absent" not in message["problems"]
