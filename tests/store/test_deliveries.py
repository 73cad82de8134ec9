"""What a receiver has confirmed, what goes on once it is mended, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.errors import StoreError
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState

if TYPE_CHECKING:
    from appliance.store.database import Store


def delivering(store: Store, number: int = 1, destinations: tuple[str, ...] = ("pacs",)) -> int:
    scan_id = store.scans.create(
        study_instance_uid="1.2", series_instance_uid=f"1.2.{number}", accession_number="", modality="CT", revision=1,
        instances=0, at=0.0,
    )  # fmt: skip
    store.scans.advance(scan_id, ScanState.SCREENED, cause="test")
    store.scans.hand_over(scan_id, destinations, at=0.0)
    return scan_id


def test_a_confirmation_is_kept_once(store: Store) -> None:
    store.outbox.put("k", "pacs", {})
    store.deliveries.confirm("k", "1.2.3", 0xB000)
    store.deliveries.confirm("k", "1.2.3", 0)
    assert store.deliveries.confirmed("k") == {"1.2.3": 0xB000}


def test_nothing_is_confirmed_of_an_unknown_entry(store: Store) -> None:
    with pytest.raises(StoreError):
        store.deliveries.confirm("unknown", "1.2.3", 0)


def test_resuming_takes_the_scan_along(store: Store) -> None:
    scan_id = delivering(store)
    (entry,) = store.outbox.of_scan(scan_id)
    store.outbox.park(entry.key, "Add it.", waits_for="calling_ae_title", settings="sha256:1")
    store.scans.settle(scan_id)
    (parked,) = store.outbox.parked("pacs", "pacs")
    assert (parked.parked_for, parked.parked_with) == ("calling_ae_title", "sha256:1")
    store.deliveries.resume(parked, cause="mended")
    assert store.scans.get(scan_id).state is ScanState.DELIVERING
    assert store.outbox.get(entry.key).state is OutboxState.WAITING


def test_resuming_what_is_not_parked_changes_nothing(store: Store) -> None:
    scan_id = delivering(store)
    (entry,) = store.outbox.of_scan(scan_id)
    store.outbox.done(entry.key)
    store.scans.settle(scan_id)
    store.deliveries.resume(entry, cause="mended")
    assert store.scans.get(scan_id).state is ScanState.DONE


def test_only_scans_for_which_nothing_waits_are_to_be_settled(store: Store) -> None:
    first, second = delivering(store, 1), delivering(store, 2, ("pacs", "east"))
    assert store.deliveries.unsettled() == []
    store.outbox.done(store.outbox.of_scan(first)[0].key)
    store.outbox.done(store.outbox.of_scan(second)[0].key)
    assert store.deliveries.unsettled() == [first]


def test_due_is_asked_for_one_destination(store: Store) -> None:
    delivering(store, 1, ("pacs", "east"))
    assert [entry.destination for entry in store.outbox.due("pacs", destination="east")] == ["east"]


def test_what_waits_longer_than_anybody_planned_is_due(store: Store) -> None:
    store.outbox.put("k", "pacs", {}, at=1e6)
    assert store.outbox.due("pacs", now=10.0) == []
    assert len(store.outbox.due("pacs", now=10.0, longest_wait_s=900.0)) == 1


def test_what_was_put_off_is_hastened_for_its_destination_alone(store: Store) -> None:
    for name in ("east", "west"):
        store.outbox.put(name, "pacs", {}, destination=name, at=100.0)
    store.outbox.hasten("pacs", "east", at=10.0)
    assert [entry.key for entry in store.outbox.due("pacs", now=10.0)] == ["east"]


def test_the_state_of_each_destination(store: Store) -> None:
    first, second = delivering(store, 1), delivering(store, 2, ("pacs", "east"))
    store.outbox.park(store.outbox.of_scan(first)[0].key, "Add it.")
    store.outbox.failed(store.outbox.of_scan(second)[1].key, retry_at=50.0, reason="No answer.")
    east, pacs = store.deliveries.destinations()
    assert (east.name, east.waiting, east.parked, east.next_try_at, east.reason) == ("east", 1, 0, 50.0, "No answer.")
    assert (pacs.name, pacs.waiting, pacs.parked, pacs.reason) == ("pacs", 1, 1, "Add it.")
