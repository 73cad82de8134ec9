"""Finding scans, the queue at a glance, and handing scans over to delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.errors import StoreError
from appliance.reasons import Reason, ReasonCode
from appliance.store.lifecycle import ScanState
from tests.store.conftest import spooled

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store


def _ids(store: Store, reference: str | int) -> list[int]:
    return [scan.id for scan in store.scans.find(reference)]


def test_a_scan_is_found_by_id_accession_number_and_uids(store: Store, add_scan: Callable[..., int]) -> None:
    first = add_scan(series="1.9.1", study="1.9", accession="20261121")
    second = add_scan(series="1.9.2", study="1.9", accession="20261121")
    assert _ids(store, first) == _ids(store, str(first)) == [first]
    assert _ids(store, "20261121") == [second, first]
    assert _ids(store, "1.9") == [second, first]
    assert _ids(store, "1.9.1") == [first]
    assert _ids(store, "1.9.1.1") == [first]
    assert _ids(store, " 1.9.1 ") == [first]


@pytest.mark.parametrize("reference", ["", "  ", "0", "nothing", "9" * 30, "x' OR 1=1", "١"])
def test_nothing_is_found_by_nothing(store: Store, add_scan: Callable[..., int], reference: str) -> None:
    add_scan(accession="")
    assert store.scans.find(reference) == []


def test_an_id_is_preferred_to_an_accession_number(store: Store, add_scan: Callable[..., int]) -> None:
    first = add_scan()
    add_scan(accession=str(first))
    assert _ids(store, str(first)) == [first]


def test_an_unknown_scan_is_a_sentence(store: Store) -> None:
    with pytest.raises(StoreError, match="There is no scan 7"):
        store.scans.get(7)


def test_summary_counts_every_state_and_the_oldest(store: Store, add_scan: Callable[..., int]) -> None:
    old = add_scan(ScanState.COMPLETE)
    add_scan(ScanState.COMPLETE)
    add_scan(ScanState.DONE)
    completed_at = store.scans.get(old).completed_at
    assert completed_at is not None
    summary = store.scans.summary(now=completed_at + 500.0, last=2)
    assert summary.counts == {**dict.fromkeys(ScanState, 0), ScanState.COMPLETE: 2, ScanState.DONE: 1}
    assert summary.oldest_s == {ScanState.COMPLETE: 500.0}
    assert len(summary.last) == 2
    assert summary.last[0].id > summary.last[1].id
    assert summary.last_finished_at == summary.last[0].finished_at


def test_summary_of_an_empty_box(store: Store) -> None:
    summary = store.scans.summary()
    assert set(summary.counts.values()) == {0}
    assert (summary.oldest_s, summary.last_finished_at, summary.last) == ({}, None, ())


def test_without_destinations_a_screened_scan_is_done(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENED)
    store.scans.hand_over(scan_id, [])
    assert store.scans.get(scan_id).state is ScanState.DONE
    assert [line.to_state for line in store.scans.history(scan_id)][-2:] == [ScanState.DELIVERING, ScanState.DONE]


def test_a_scan_is_done_when_every_destination_has_it(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENED)
    store.scans.hand_over(scan_id, ["east", "west"])
    keys = [entry.key for entry in store.outbox.of_scan(scan_id)]
    assert store.scans.settle(scan_id) is ScanState.DELIVERING
    store.outbox.done(keys[0])
    assert store.scans.settle(scan_id) is ScanState.DELIVERING
    store.outbox.done(keys[1])
    assert store.scans.settle(scan_id) is ScanState.DONE
    assert store.scans.settle(scan_id) is ScanState.DONE


def test_a_scan_is_parked_with_the_reason_and_goes_on_when_asked(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENED)
    store.scans.hand_over(scan_id, ["east"])
    (entry,) = store.outbox.of_scan(scan_id)
    store.outbox.park(entry.key, "Add the AE title APPLIANCE to the PACS.")
    assert store.scans.settle(scan_id) is ScanState.PARKED
    assert store.scans.get(scan_id).reason == Reason(
        ReasonCode.DELIVERY_PARKED, "Add the AE title APPLIANCE to the PACS."
    )
    store.scans.retry(scan_id)
    assert store.scans.get(scan_id).state is ScanState.DELIVERING
    assert [e.key for e in store.outbox.due()] == [entry.key]


def test_advance_walks_every_step_and_not_backwards(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENED)
    store.scans.advance(scan_id, ScanState.SCREENED, cause="again")
    with pytest.raises(StoreError, match="cannot become planned"):
        store.scans.advance(scan_id, ScanState.PLANNED, cause="back")


def test_a_refused_scan_keeps_its_reason(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan()
    reason = Reason(ReasonCode.LOCALIZER, "A localizer is not a volume.")
    store.scans.move(scan_id, ScanState.REFUSED, cause="child", reason=reason)
    assert store.scans.get(scan_id).reason == reason


@pytest.mark.parametrize("state", [ScanState.REFUSED, ScanState.FAILED])
def test_what_a_later_revision_replaced_is_not_tried_again(
    store: Store, add_scan: Callable[..., int], state: ScanState
) -> None:
    first = add_scan(series="1.9")
    store.scans.move(first, state, cause="child", reason=Reason(ReasonCode.MISSING_SLICE, "There is a gap."))
    store.associations.see("late", at=3.0)
    (second,) = store.instances.add("late", [spooled(2, series="1.9")])
    with pytest.raises(StoreError, match=f"revision 2, scan {second}"):
        store.scans.retry(first)


@pytest.mark.parametrize("state", [ScanState.REFUSED, ScanState.FAILED])
def test_a_scan_whose_images_were_deleted_is_not_tried_again_until_they_come(
    store: Store, add_scan: Callable[..., int], state: ScanState
) -> None:
    scan_id = add_scan(series="1.9")
    store.scans.move(scan_id, state, cause="child", reason=Reason(ReasonCode.TOO_LARGE, "Too large."))
    store.associations.mark_pruned(store.instances.of_scan(scan_id)[0].association, at=4.0)
    with pytest.raises(StoreError, match="1 of the 1 images"):
        store.scans.retry(scan_id)
    store.associations.see("again", at=5.0)
    store.instances.add("again", [spooled(1, series="1.9")])
    store.scans.retry(scan_id)
    assert store.scans.get(scan_id).state is ScanState.COMPLETE


def test_a_failed_scan_is_tried_from_the_start_when_asked(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan()
    reason = Reason(ReasonCode.ATTEMPTS_EXHAUSTED, "Three attempts were lost.")
    store.scans.move(scan_id, ScanState.FAILED, cause="child", reason=reason)
    store.scans.retry(scan_id)
    scan = store.scans.get(scan_id)
    assert (scan.state, scan.attempts, scan.reason, scan.finished_at) == (ScanState.COMPLETE, 0, None, None)
