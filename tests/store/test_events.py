"""What the fleet is told: nothing but enumerations and numbers, and nothing twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import StoreError
from appliance.reasons import ReasonCode
from appliance.store.events import EventKind, _number
from tests.store.samples import events

if TYPE_CHECKING:
    from appliance.store.database import Store


def test_an_event_waits_until_it_is_published(store: Store) -> None:
    first = store.events.record(EventKind.FAILED, scan_id=7, reason=ReasonCode.WORKER_LOST, numbers={"attempt": 3})
    second = store.events.record(EventKind.STARTED)
    event, later = store.events.waiting()
    assert (event.id, later.id) == (first, second)
    store.events.published(first, at=100.0)
    assert [event.id for event in store.events.waiting()] == [second]
    assert (event.kind, event.scan_id, event.reason, event.numbers) == (
        EventKind.FAILED,
        7,
        ReasonCode.WORKER_LOST,
        {"attempt": 3},
    )


def test_events_are_forgotten_some_time_after_they_were_told(store: Store) -> None:
    store.events.published(store.events.record(EventKind.STARTED), at=100.0)
    waiting = store.events.record(EventKind.STARTED)
    assert store.events.forget(published_before=200.0, happened_before=0.0, keep=100) == 1
    assert events(store) == [waiting]


def test_what_nobody_ever_fetches_is_forgotten_by_age_and_by_number(store: Store) -> None:
    store.events.record(EventKind.STARTED, at=100.0)
    ids = [store.events.record(EventKind.STARTED, at=1000.0) for _ in range(5)]
    assert store.events.forget(published_before=0.0, happened_before=500.0, keep=100) == 1
    assert store.events.forget(published_before=0.0, happened_before=500.0, keep=2) == 3
    assert [event.id for event in store.events.waiting()] == ids[-2:]
    store.events.published(ids[-1], at=1.0)
    store.events.published(ids[-2], at=1.0)
    assert store.events.forget(published_before=2.0, happened_before=0.0, keep=2) == 2
    assert store.events.forget(published_before=2.0, happened_before=0.0, keep=2) == 0


def test_events_that_it_is_pointless_to_try_do_not_stand_in_the_way(store: Store) -> None:
    ids = [store.events.record(EventKind.STARTED) for _ in range(5)]
    assert [event.id for event in store.events.waiting(2)] == ids[:2]
    assert [event.id for event in store.events.waiting(2, without=set(ids[:2]))] == ids[2:4]


@pytest.mark.parametrize("value", ["Zhang San", None, math.nan, math.inf, [1], b"x"])
def test_a_value_that_is_no_number_is_refused(store: Store, value: Any) -> None:
    with pytest.raises(StoreError, match="finite numbers"):
        store.events.record(EventKind.STARTED, numbers={"value": value})


@given(st.text().filter(lambda text: not text.isascii() or not text.islower() or " " in text))
def test_a_name_that_could_carry_text_is_refused(name: str) -> None:
    with pytest.raises(StoreError):
        _number(name, 1.0)


def test_kinds_and_reasons_outside_the_vocabulary_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="not a valid"):
        store.events.record("patient Zhang")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a valid"):
        store.events.record(EventKind.REFUSED, reason="Zhang")  # type: ignore[arg-type]
