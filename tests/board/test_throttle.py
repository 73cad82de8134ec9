"""Guessing becomes slow, and the room is never shut out for longer than a minute."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.board.throttle import ALL_TRIES_A_MINUTE, FREE_TRIES, LONGEST_WAIT_S, Throttle


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_few_mistakes_cost_nothing():
    throttle = Throttle(Clock())
    for _ in range(FREE_TRIES - 1):
        throttle.failed("10.0.0.1")
    assert throttle.wait_s("10.0.0.1") == 0


def test_further_ones_cost_twice_as_much_each():
    clock = Clock()
    throttle = Throttle(clock)
    waits = []
    for _ in range(FREE_TRIES + 8):
        throttle.failed("10.0.0.1")
        waits.append(throttle.wait_s("10.0.0.1"))
        clock.now_s += waits[-1]
        assert throttle.wait_s("10.0.0.1") == 0
    assert waits[FREE_TRIES - 1 :] == [2, 4, 8, 16, 32, 60, 60, 60, 60]


@given(st.lists(st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), st.floats(0, 100)), max_size=200))
def test_nobody_waits_longer_than_a_minute_whatever_was_tried(tries):
    clock = Clock()
    throttle = Throttle(clock)
    for address, pause_s in tries:
        throttle.failed(address)
        clock.now_s += pause_s
        assert throttle.wait_s("10.0.0.1") <= LONGEST_WAIT_S


def test_the_right_password_forgives():
    throttle = Throttle(Clock())
    for _ in range(20):
        throttle.failed("10.0.0.1")
    throttle.succeeded("10.0.0.1")
    assert throttle.wait_s("10.0.0.1") == 0


def test_an_hour_forgives():
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(20):
        throttle.failed("10.0.0.1")
    clock.now_s += 3600
    throttle.failed("10.0.0.1")
    assert throttle.wait_s("10.0.0.1") == 0


def test_many_addresses_together_are_slowed_but_not_the_rooms_own():
    throttle = Throttle(Clock())
    throttle.succeeded("10.0.0.9")
    for number in range(ALL_TRIES_A_MINUTE):
        throttle.failed(f"10.0.1.{number}")
    assert 0 < throttle.wait_s("10.0.2.1") <= 1
    assert throttle.wait_s("10.0.0.9") == 0


def test_an_ipv6_host_has_one_count_for_all_its_addresses():
    throttle = Throttle(Clock())
    for number in range(FREE_TRIES):
        throttle.failed(f"fd00::{number + 1:x}")
    assert throttle.wait_s("fd00::ffff") == 2
    assert throttle.wait_s("fd00:0:0:1::1") == 0


def test_what_is_remembered_is_bounded_and_keeps_who_logged_in():
    throttle = Throttle(Clock())
    throttle.succeeded("10.9.9.9")
    for number in range(5000):
        throttle.failed(f"10.1.{number // 250}.{number % 250}")
    assert len(throttle._records) <= 1024
    assert throttle.wait_s("10.9.9.9") == 0
