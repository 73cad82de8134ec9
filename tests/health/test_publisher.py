"""The parts of the publisher that need no broker; the rest is in test_service_and_broker.py."""

import pytest

from appliance.config import MqttSettings
from appliance.errors import ConfigurationError
from appliance.health.broker import Broker
from appliance.health.publisher import BackOff, Publisher, SessionCounter
from tests.machine import free_port, wait_until

from .conftest import Listener


def broker(port: int) -> Broker:
    settings = MqttSettings(host="127.0.0.1", port=port, allow_plaintext=True)
    return Broker.from_settings(settings, "box-1")


def test_the_delay_doubles_up_to_the_longest():
    back_off = BackOff(first_s=1.0, longest_s=60.0)
    for failures, least, most in [(1, 0.5, 1), (2, 1, 2), (4, 4, 8), (7, 30, 60), (1000, 30, 60)]:
        assert least <= back_off.delay_s(failures) <= most


def test_a_fleet_does_not_come_back_as_one():
    assert len({BackOff().delay_s(7) for _ in range(20)}) > 10


def test_the_counter_goes_on_where_it_was(tmp_path):
    SessionCounter(tmp_path / "n").advance()
    SessionCounter(tmp_path / "n").advance()
    assert SessionCounter(tmp_path / "n").following == 3


@pytest.mark.parametrize("content", ["", "x", "\x00\x00"])
def test_a_damaged_counter_begins_again(tmp_path, content):
    (tmp_path / "n").write_text(content)
    assert SessionCounter(tmp_path / "n").following == 1


def test_a_counter_that_cannot_be_saved_still_counts(tmp_path):
    (tmp_path / "file").touch()
    counter = SessionCounter(tmp_path / "file" / "n")
    counter.advance()
    assert counter.following == 2


def test_an_event_without_a_connection_is_not_under_way(tmp_path):
    publisher = Publisher(broker(free_port()), tmp_path / "n", "0.1.0")
    assert not publisher.publish_event(1, b"{}")


def test_close_without_a_broker_returns(tmp_path):
    publisher = Publisher(broker(free_port()), tmp_path / "n", "0.1.0", BackOff(longest_s=600, first_s=600))
    publisher.start()
    publisher.close()
    assert not publisher.connected


def test_close_before_start_returns(tmp_path):
    Publisher(broker(free_port()), tmp_path / "n", "0.1.0").close()


def test_an_acknowledged_event_is_not_sent_again_before_it_was_taken(tmp_path, listener):
    publisher = Publisher(broker(listener.port), tmp_path / "n", "0.1.0")
    publisher.start()
    wait_until(lambda: publisher.publish_event(7, b"{}"), "the connection")
    wait_until(lambda: listener.of("events"), "the event")
    for _ in range(20):
        publisher.publish_event(7, b"{}")
    taken: set[int] = set()
    wait_until(lambda: bool(taken.update(publisher.take_acknowledged()) or taken), "the acknowledgement")
    publisher.publish_event(8, b'{"last": true}')
    wait_until(lambda: {"last": True} in listener.of("events"), "the last event")
    publisher.close()
    assert taken == {7}
    assert listener.of("events") == [{}, {"last": True}]


def test_health_given_while_disconnected_is_the_latest_only(tmp_path, listener):
    publisher = Publisher(broker(listener.port), tmp_path / "n", "0.1.0")
    for number in range(3):
        publisher.publish_health(b'{"number": %d}' % number)
    publisher.start()
    wait_until(lambda: listener.of("health"), "health")
    publisher.close()
    assert listener.of("health") == [{"number": 2}]


def test_plain_connections_need_permission():
    with pytest.raises(ConfigurationError, match="allow_plaintext"):
        Broker.from_settings(MqttSettings(host="fleet.example"), "box-1")


def test_two_boxes_at_once(tmp_path, listener):
    publishers = [
        Publisher(
            Broker.from_settings(MqttSettings(host="127.0.0.1", port=listener.port, allow_plaintext=True), f"box-{i}"),
            tmp_path / str(i),
            "0.1.0",
        )
        for i in (1, 2)
    ]
    for publisher in publishers:
        publisher.start()
    wait_until(lambda: len(listener.states()) == 2, "both births")
    for publisher in publishers:
        publisher.close(60.0)
    with Listener(listener.port) as late:
        wait_until(lambda: len(late.states()) == 2, "both farewells")
        assert {state for state, _ in late.states()} == {"offline"}


def test_acknowledgements_arriving_while_publishing_block_nobody(tmp_path, listener):
    publisher = Publisher(broker(listener.port), tmp_path / "n", "0.1.0")
    publisher.start()
    wait_until(lambda: publisher.connected, "the connection")
    for key in range(500):
        publisher.publish_event(key, b"{}")
        publisher.publish_health(b"{}")
    taken: set[int] = set()
    wait_until(lambda: bool(taken.update(publisher.take_acknowledged()) or len(taken) == 500), "500 acknowledgements")
    publisher.close()
