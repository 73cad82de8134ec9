"""What waits to be sent, once each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.errors import StoreError
from appliance.store.outbox import OutboxState

if TYPE_CHECKING:
    from appliance.store.database import Store


def test_a_key_is_put_in_once(store: Store) -> None:
    assert store.outbox.put("k", "pacs", {"folder": "1-r1"}, destination="east", at=10.0)
    assert not store.outbox.put("k", "pacs", {"folder": "other"}, destination="west", at=11.0)
    (entry,) = store.outbox.due(now=10.0)
    assert (entry.payload, entry.destination, entry.attempts) == ({"folder": "1-r1"}, "east", 0)


def test_only_what_is_due_and_of_that_kind_is_given(store: Store) -> None:
    store.outbox.put("now", "pacs", {}, at=10.0)
    store.outbox.put("later", "pacs", {}, at=20.0)
    store.outbox.put("other", "alert", {}, at=5.0)
    assert [e.key for e in store.outbox.due(now=15.0)] == ["other", "now"]
    assert [e.key for e in store.outbox.due("pacs", now=25.0)] == ["now", "later"]


def test_a_failed_attempt_waits_for_its_next_time(store: Store) -> None:
    store.outbox.put("k", "pacs", {}, at=10.0)
    store.outbox.failed("k", retry_at=50.0, reason="No answer.")
    assert store.outbox.due(now=49.0) == []
    (entry,) = store.outbox.due(now=50.0)
    assert (entry.attempts, entry.reason) == (1, "No answer.")


def test_what_is_done_stays_done(store: Store) -> None:
    store.outbox.put("k", "pacs", {})
    store.outbox.done("k")
    store.outbox.done("k")
    store.outbox.failed("k", retry_at=0.0, reason="late answer")
    store.outbox.park("k", "late answer")
    assert store.outbox.get("k").state is OutboxState.DONE
    assert store.outbox.counts() == {OutboxState.DONE: 1}
    assert not store.outbox.put("k", "pacs", {})


def test_what_is_parked_waits_for_a_person(store: Store) -> None:
    store.outbox.put("k", "pacs", {})
    store.outbox.park("k", "Add our AE title to the PACS.")
    assert store.outbox.due(now=1e12) == []
    assert store.outbox.get("k").reason == "Add our AE title to the PACS."
    store.outbox.unpark("k")
    assert store.outbox.get("k").state is OutboxState.WAITING


def test_an_unknown_key_is_a_sentence(store: Store) -> None:
    with pytest.raises(StoreError, match="nothing with the key"):
        store.outbox.done("unknown")


def test_the_oldest_waiting_is_known(store: Store) -> None:
    assert store.outbox.oldest_waiting_at() is None
    store.outbox.put("a", "pacs", {}, at=10.0)
    store.outbox.put("b", "pacs", {}, at=20.0)
    store.outbox.done("a")
    assert store.outbox.oldest_waiting_at() == 20.0
