"""Which scan an instance belongs to, under duplicates, late arrivals and interleaving."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from appliance.reasons import Reason, ReasonCode
from appliance.store.events import EventKind
from appliance.store.instances import Disposition, SpooledInstance
from appliance.store.lifecycle import ScanState
from tests.store.conftest import spooled
from tests.store.samples import dispositions

if TYPE_CHECKING:
    from appliance.store.database import Store


def _add(store: Store, association: str, *items: SpooledInstance) -> list[int]:
    store.associations.see(association, at=0.0)
    return store.instances.add(association, list(items))


def _complete(store: Store, scan_id: int) -> None:
    store.scans.move(scan_id, ScanState.COMPLETE, cause="released+quiet")


def test_instances_of_one_series_make_one_scan(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1), spooled(2), spooled(3))
    scan = store.scans.get(scan_id)
    assert (scan.state, scan.revision, scan.instances, scan.accession_number) == (ScanState.RECEIVING, 1, 3, "A1")
    assert [i.path for i in store.instances.of_scan(scan_id)] == [f"associations/a/00000{n}.dcm" for n in (1, 2, 3)]


def test_indexing_again_changes_nothing(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1), spooled(2))
    before = store.scans.get(scan_id)
    assert _add(store, "a", spooled(1), spooled(2)) == []
    assert store.scans.get(scan_id) == before


def test_a_series_over_two_associations_is_one_scan(store: Store) -> None:
    first, second = _add(store, "a", spooled(1)), _add(store, "b", spooled(2))
    assert first == second
    assert store.scans.get(first[0]).instances == 2


def test_interleaved_studies_stay_apart(store: Store) -> None:
    scans = _add(store, "a", *(spooled(n, series=f"1.{n % 2}", study=f"2.{n % 2}") for n in range(1, 7)))
    assert [store.scans.get(scan).instances for scan in scans] == [3, 3]


def test_one_series_uid_in_two_studies_makes_two_scans(store: Store) -> None:
    scans = _add(store, "a", spooled(1, study="1"), spooled(2, study="2"))
    assert len(scans) == 2


def test_the_same_instance_again_is_a_duplicate(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1))
    assert _add(store, "b", spooled(1)) == [scan_id]
    assert store.scans.get(scan_id).instances == 1
    assert dispositions(store) == {Disposition.USED: 1, Disposition.DUPLICATE: 1}


def test_a_duplicate_after_completion_makes_no_revision(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1))
    _complete(store, scan_id)
    assert _add(store, "b", spooled(1)) == []
    assert len(store.scans.last()) == 1


def test_a_duplicate_disturbs_the_quiet_of_a_receiving_series(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1))
    _add(store, "b", replace(spooled(1), received_at=5000.0))
    assert store.scans.get(scan_id).last_instance_at == 5000.0
    assert store.scans.open_associations(scan_id) == 2


def test_of_two_that_differ_the_first_counts(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1, content="first"))
    _add(store, "b", spooled(1, content="second"))
    assert [i.digest for i in store.instances.of_scan(scan_id)] == ["sha256:first"]
    (event,) = store.events.waiting()
    assert (event.kind, event.scan_id) == (EventKind.CONFLICTING_DUPLICATE, scan_id)
    assert event.reason is ReasonCode.CONFLICTING_DUPLICATES


def _refuse(store: Store, scan_id: int) -> None:
    _complete(store, scan_id)
    gap = Reason(ReasonCode.MIXED_GEOMETRY, "The pixel size differs.")
    store.scans.move(scan_id, ScanState.REFUSED, cause="the series cannot be used", reason=gap)


def test_a_refused_series_that_is_sent_again_with_other_content_is_a_new_revision(store: Store) -> None:
    (first,) = _add(store, "a", spooled(1, content="bad"), spooled(2, content="bad"), spooled(3))
    _refuse(store, first)
    again = [spooled(1, content="good"), spooled(2, content="good"), spooled(3)]
    (second,) = _add(store, "b", *again)
    scan = store.scans.get(second)
    assert (scan.revision, scan.state, scan.instances) == (2, ScanState.RECEIVING, 3)
    used = {(i.association, i.name, i.digest) for i in store.instances.of_scan(second)}
    assert used == {
        ("b", "000001.dcm", "sha256:good"),
        ("b", "000002.dcm", "sha256:good"),
        ("a", "000003.dcm", "sha256:a"),
    }
    rows = store.rows("SELECT reason_code FROM instances WHERE association = 'a' AND disposition = 'conflicting'")
    assert [row["reason_code"] for row in rows] == ["conflicting_duplicates"] * 2


def test_of_two_corrections_in_one_revision_the_first_counts(store: Store) -> None:
    (first,) = _add(store, "a", spooled(1, content="bad"))
    _refuse(store, first)
    (second,) = _add(store, "b", spooled(1, content="good"))
    _add(store, "c", spooled(1, content="third"))
    assert [i.digest for i in store.instances.of_scan(second)] == ["sha256:good"]
    assert len(store.scans.last()) == 2


def test_a_refused_series_may_be_corrected_more_than_once(store: Store) -> None:
    (first,) = _add(store, "a", spooled(1, content="bad"), spooled(2))
    _refuse(store, first)
    (second,) = _add(store, "b", spooled(1, content="worse"))
    _refuse(store, second)
    (third,) = _add(store, "c", spooled(1, content="good"), spooled(2, content="good"))
    assert (store.scans.get(third).revision, store.scans.get(third).instances) == (3, 2)
    assert {i.digest for i in store.instances.of_scan(third)} == {"sha256:good"}


def test_a_screened_series_that_is_sent_again_with_other_content_stays_as_it_is(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1, content="first"))
    store.scans.advance(scan_id, ScanState.DONE, cause="test")
    assert _add(store, "b", spooled(1, content="second")) == []
    assert [i.digest for i in store.instances.of_scan(scan_id)] == ["sha256:first"]


def test_a_late_instance_makes_a_revision_with_everything(store: Store) -> None:
    (first,) = _add(store, "a", spooled(1), spooled(2))
    _complete(store, first)
    (second,) = _add(store, "b", spooled(3))
    _complete(store, second)
    (third,) = _add(store, "c", spooled(4))
    assert [store.scans.get(scan).revision for scan in (first, second, third)] == [1, 2, 3]
    assert [store.scans.get(scan).instances for scan in (first, second, third)] == [2, 3, 4]
    assert [len(store.instances.of_scan(scan)) for scan in (first, second, third)] == [2, 3, 4]
    assert [event.kind for event in store.events.waiting()] == [EventKind.LATE_INSTANCES] * 2


def test_an_unreadable_instance_is_a_row_with_a_reason_and_blocks_nothing(store: Store) -> None:
    problem = Reason(ReasonCode.UNREADABLE_FILE, "The header is damaged.")
    bad = SpooledInstance("000001.dcm", None, problem, 10, "sha256:x", 1000.0)
    (scan_id,) = _add(store, "a", bad, spooled(2))
    assert store.scans.get(scan_id).instances == 1
    assert dispositions(store)[Disposition.UNREADABLE] == 1
    assert store.events.waiting()[0].reason is ReasonCode.UNREADABLE_FILE


def test_an_instance_has_an_identity_or_a_problem() -> None:
    with pytest.raises(ValueError, match="either"):
        SpooledInstance("1.dcm", None, None, 1, "", 0.0)


def test_an_accession_number_that_comes_later_is_kept(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1, accession=""), spooled(2, accession="A7"))
    assert store.scans.get(scan_id).accession_number == "A7"


def test_a_pruned_association_takes_no_part(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1))
    store.associations.mark_pruned("a", at=1.0)
    assert store.scans.open_associations(scan_id) == 0
    assert store.instances.of_scan(scan_id)[0].pruned
    assert store.associations.all() == []


def test_a_pruned_instance_that_came_again_is_taken_from_there(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1), spooled(2))
    _add(store, "b", spooled(1))
    store.associations.mark_pruned("a", at=1.0)
    assert [(i.association, i.pruned) for i in store.instances.of_scan(scan_id)] == [("b", False), ("a", True)]


def test_only_associations_whose_scans_are_all_finished_are_prunable(store: Store) -> None:
    (scan_id,) = _add(store, "a", spooled(1))
    store.associations.close("a", "released", at=1.0)
    store.associations.mark_indexed("a")
    assert store.associations.prunable(finished_before=1e12, failed_before=1e12) == []
    store.scans.advance(scan_id, ScanState.DONE, cause="test", at=2000.0)
    assert store.associations.prunable(finished_before=1999.0, failed_before=1999.0) == []
    assert store.associations.prunable(finished_before=2001.0, failed_before=2001.0) == ["a"]
    _add(store, "b", spooled(2))  # a second revision needs the first one's images
    assert store.associations.prunable(finished_before=1e12, failed_before=1e12) == []


def test_an_open_association_is_never_indexed_to_its_end(store: Store) -> None:
    store.associations.see("a", at=0.0)
    store.associations.mark_indexed("a")
    assert not store.associations.all()[0].indexed


def test_what_was_pruned_long_ago_is_forgotten(store: Store) -> None:
    (first,) = _add(store, "a", spooled(1), spooled(2))
    _complete(store, first)
    (second,) = _add(store, "b", spooled(3))
    _complete(store, second)
    store.associations.mark_pruned("a", at=100.0)
    assert store.associations.forget(pruned_before=100.0) == 0
    assert store.associations.forget(pruned_before=101.0) == 1
    assert [item.name for item in store.instances.of_scan(second)] == ["000003.dcm"]
    (third,) = _add(store, "c", spooled(1))
    assert (store.scans.get(third).revision, store.scans.get(third).instances) == (3, 2)
    assert len(store.instances.of_scan(third)) == 2
