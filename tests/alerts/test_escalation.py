"""Waiting is counted while the service runs, and neither a clock nor a restart escalates anything twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from appliance.services.alert_watch import Escalation
from appliance.store.alerts import AlertState

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store

MINUTE_S, YEAR_S = 60.0, 365 * 86400.0


class Clocks:
    """The two clocks of a machine, to be moved by hand."""

    def __init__(self) -> None:
        self.wall, self.running = 1.8e9, 1000.0

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.running += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(time, "time", lambda: clocks.wall)
    monkeypatch.setattr(time, "monotonic", lambda: clocks.running)
    return clocks


def rounds(escalation: Escalation, clocks: Clocks, seconds: float, each_s: float = 5.0) -> int:
    """Run for a while, and return how many alerts escalated."""
    escalated = 0
    for _ in range(int(seconds / each_s)):
        clocks.run(each_s)
        escalated += escalation.round()
    return escalated


def test_an_alert_escalates_once_when_nobody_came(store: Store, alarm: Callable[..., int], clocks: Clocks) -> None:
    number, escalation = alarm(), Escalation(store, 10 * MINUTE_S)
    assert rounds(escalation, clocks, 9.9 * MINUTE_S) == 0
    assert rounds(escalation, clocks, 0.5 * MINUTE_S) == 1
    assert store.alerts.get(number).escalated_at == pytest.approx(1.8e9 + 10 * MINUTE_S, abs=10)
    assert rounds(escalation, clocks, 60 * MINUTE_S) == 0


def test_an_acknowledged_one_does_not(store: Store, alarm: Callable[..., int], clocks: Clocks) -> None:
    number, escalation = alarm(), Escalation(store, 10 * MINUTE_S)
    rounds(escalation, clocks, 5 * MINUTE_S)
    store.alerts.acknowledge(number, "Li")
    assert rounds(escalation, clocks, 20 * MINUTE_S) == 0


@pytest.mark.parametrize("jump_s", [10 * YEAR_S, -10 * YEAR_S, 3600.0, -3600.0])
def test_a_clock_that_is_set_changes_nothing(
    store: Store, alarm: Callable[..., int], clocks: Clocks, jump_s: float
) -> None:
    alarm()
    escalation = Escalation(store, 10 * MINUTE_S)
    assert rounds(escalation, clocks, 5 * MINUTE_S) == 0
    clocks.wall += jump_s
    assert rounds(escalation, clocks, 4.9 * MINUTE_S) == 0
    clocks.wall -= 2 * jump_s
    assert rounds(escalation, clocks, 0.5 * MINUTE_S) == 1
    assert rounds(escalation, clocks, 60 * MINUTE_S) == 0


def test_waiting_survives_restarts(store: Store, alarm: Callable[..., int], clocks: Clocks) -> None:
    alarm()
    escalated = sum(rounds(Escalation(store, 10 * MINUTE_S), clocks, 1.5 * MINUTE_S) for _ in range(6))
    assert escalated == 0
    clocks.run(2 * YEAR_S)  # switched off
    assert rounds(Escalation(store, 10 * MINUTE_S), clocks, 0.5 * MINUTE_S) == 0
    assert rounds(Escalation(store, 10 * MINUTE_S), clocks, 1.0 * MINUTE_S) == 1


def test_what_comes_while_the_loop_is_held_up_has_not_waited(
    store: Store, alarm: Callable[..., int], clocks: Clocks
) -> None:
    old, escalation = alarm(), Escalation(store, 10 * MINUTE_S)
    clocks.run(11 * MINUTE_S)
    new = alarm()
    assert escalation.round() == 1
    assert (store.alerts.get(old).state, store.alerts.get(new).state) == (AlertState.ESCALATED, AlertState.OPEN)


def test_none_escalates_nothing(store: Store, alarm: Callable[..., int], clocks: Clocks) -> None:
    alarm()
    assert rounds(Escalation(store, None), clocks, 60 * MINUTE_S) == 0


def test_a_thousand_escalate_together_once_and_in_their_order(
    store: Store, alarm: Callable[..., int], clocks: Clocks
) -> None:
    with store.atomic():
        numbers = [alarm("urgent" if number % 3 else "soon") for number in range(1000)]
    escalation = Escalation(store, 10 * MINUTE_S)
    assert rounds(escalation, clocks, 11 * MINUTE_S) == 1000
    escalated = [key for entry in store.outbox.due(limit=5000) if "/escalated/" in (key := entry.key)]
    urgent, soon = ([n for place, n in enumerate(numbers) if bool(place % 3) is wanted] for wanted in (True, False))
    assert escalated == [f"alert/{number}/escalated/command/" for number in (*urgent, *soon)]
