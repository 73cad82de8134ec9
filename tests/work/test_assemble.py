"""Completion of series from a real spool, with injected interruptions."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from appliance.dicom.spool import CloseReason, Room, Spool
from appliance.reasons import ReasonCode
from appliance.services import assemble
from appliance.services.assemble import Assembler
from appliance.store.database import open_database
from appliance.store.instances import Disposition
from appliance.store.lifecycle import ScanState
from tests.store.samples import dispositions
from tests.work.conftest import OPENED, Scanner, instance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.dicom.spool import AssociationFolder
    from appliance.store.database import Store


@pytest.fixture
def assembler(store: Store, scanner: Scanner) -> Assembler:
    return Assembler(store, scanner.root, quiet_s=0.0, force_s=600.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the monotonic clock that assembly looks at."""
    offset = [0.0]

    class Clock:
        time = staticmethod(time.time)

        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + offset[0]

    monkeypatch.setattr(assemble, "time", Clock)

    def move(seconds: float) -> None:
        offset[0] += seconds

    return move


def settle(assembler: Assembler) -> list[int]:
    """Index everything and complete what is complete."""
    while not assembler.index():
        pass
    return assembler.complete()


def uids(store: Store, scan_id: int) -> list[str]:
    return sorted(item.sop_instance_uid for item in store.instances.of_scan(scan_id))


def test_a_released_series_is_complete(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    scanner.send("1.1", 3)
    (scan_id,) = settle(assembler)
    scan = store.scans.get(scan_id)
    assert (scan.state, scan.completion_reason, scan.instances) == (ScanState.COMPLETE, "released+quiet", 3)
    assert (scan.accession_number, scan.modality) == ("A1", "CT")


def test_paths_lead_to_the_files(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    scanner.send("1.1", 3)
    (scan_id,) = settle(assembler)
    assert all((scanner.root / item.path).is_file() for item in store.instances.of_scan(scan_id))


def test_an_open_association_is_waited_for(
    assembler: Assembler, scanner: Scanner, store: Store, clock: Callable[[float], None]
) -> None:
    folder = scanner.open()
    folder.store(instance("1.1", 1))
    settle(assembler)
    clock(599.0)
    assert settle(assembler) == []
    folder.store(instance("1.1", 2))
    folder.close(CloseReason.RELEASED)
    (scan_id,) = settle(assembler)
    assert store.scans.get(scan_id).instances == 2


def test_quiet_is_waited_for(store: Store, scanner: Scanner, clock: Callable[[float], None]) -> None:
    assembler = Assembler(store, scanner.root, quiet_s=15.0, force_s=600.0)
    scanner.send("1.1", 2)
    assert settle(assembler) == []
    clock(14.0)
    assert settle(assembler) == []
    clock(1.5)
    assert len(settle(assembler)) == 1


def test_quiet_begins_again_with_each_instance(store: Store, scanner: Scanner, clock: Callable[[float], None]) -> None:
    assembler = Assembler(store, scanner.root, quiet_s=15.0, force_s=600.0)
    scanner.send("1.1", 1)
    settle(assembler)
    clock(14.0)
    scanner.send("1.1", 1, first=2)
    # The file's own time is the real one, before the moved clock; what counts is that it came just now.
    assert settle(assembler) == []
    clock(10.0)
    assert settle(assembler) == []


def test_a_clock_that_is_set_back_does_not_hold_a_series(store: Store, scanner: Scanner) -> None:
    name = scanner.send("1.1", 1)
    future = time.time() + 86400.0
    os.utime(scanner.root / Room.ASSOCIATIONS / name / "000001.dcm", (future, future))
    assert len(settle(Assembler(store, scanner.root, quiet_s=0.0, force_s=600.0))) == 1


def test_an_association_that_never_ends_is_forced(
    assembler: Assembler, scanner: Scanner, store: Store, clock: Callable[[float], None]
) -> None:
    folder = scanner.open()
    folder.store(instance("1.1", 1))
    settle(assembler)
    clock(601.0)
    (scan_id,) = settle(assembler)
    assert store.scans.get(scan_id).completion_reason == "forced"


@pytest.mark.parametrize("reason", [CloseReason.ABORTED, CloseReason.TIMEOUT, CloseReason.RECEIVER_RESTARTED])
def test_an_aborted_association_is_said_to_be(
    assembler: Assembler, scanner: Scanner, store: Store, reason: CloseReason
) -> None:
    folder = scanner.open()
    folder.store(instance("1.1", 1))
    folder.close(reason)
    (scan_id,) = settle(assembler)
    assert store.scans.get(scan_id).completion_reason == "aborted+quiet"


def test_a_series_over_two_associations_waits_for_both(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    open_one = scanner.open()
    open_one.store(instance("1.1", 1))
    scanner.send("1.1", 2, first=2)
    assert settle(assembler) == []
    open_one.close(CloseReason.RELEASED)
    (scan_id,) = settle(assembler)
    assert store.scans.get(scan_id).instances == 3


def test_interleaved_studies_stay_apart(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    folders = [scanner.open(), scanner.open()]
    for number in range(1, 7):
        for folder, series in zip(folders, ("1.1", "2.2"), strict=True):
            folder.store(instance(series, number))
        settle(assembler)
    folders[0].close(CloseReason.RELEASED)
    (first,) = settle(assembler)
    folders[1].close(CloseReason.RELEASED)
    (second,) = settle(assembler)
    assert uids(store, first) == [f"1.1.{n}" for n in range(1, 7)]
    assert uids(store, second) == [f"2.2.{n}" for n in range(1, 7)]


def test_a_repeated_send_changes_nothing(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    scanner.send("1.1", 3)
    settle(assembler)
    scanner.send("1.1", 3)
    assert settle(assembler) == []
    assert len(store.scans.last()) == 1
    assert dispositions(store) == {Disposition.USED: 3, Disposition.DUPLICATE: 3}


def test_late_instances_make_revision_2_with_everything(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    scanner.send("1.1", 3)
    (first,) = settle(assembler)
    scanner.send("1.1", 4)  # three again and a new one
    (second,) = settle(assembler)
    assert [store.scans.get(scan).revision for scan in (first, second)] == [1, 2]
    assert [len(uids(store, scan)) for scan in (first, second)] == [3, 4]


def test_another_content_under_the_same_uid_does_not_replace_the_first(
    assembler: Assembler, scanner: Scanner, store: Store
) -> None:
    scanner.send("1.1", 1, text="first")
    (scan_id,) = settle(assembler)
    before = store.instances.of_scan(scan_id)
    scanner.send("1.1", 1, text="second")
    assert settle(assembler) == []
    assert store.instances.of_scan(scan_id) == before
    assert dispositions(store)[Disposition.CONFLICTING] == 1


def test_the_file_meta_information_does_not_make_a_difference(
    assembler: Assembler, scanner: Scanner, store: Store
) -> None:
    content = instance("1.1", 1)
    folder = scanner.open()
    folder.store(content)
    folder.store(b"another preamble".ljust(128) + content[128:])
    folder.close(CloseReason.RELEASED)
    settle(assembler)
    assert dispositions(store) == {Disposition.USED: 1, Disposition.DUPLICATE: 1}


@pytest.mark.parametrize("content", [b"", b"hello", instance("1.9", 1)[:200]])
def test_an_unreadable_instance_blocks_nothing(
    assembler: Assembler, scanner: Scanner, store: Store, content: bytes
) -> None:
    folder = scanner.open()
    folder.store(content)
    folder.store(instance("1.1", 1))
    folder.close(CloseReason.RELEASED)
    (scan_id,) = settle(assembler)
    assert uids(store, scan_id) == ["1.1.1"]
    assert dispositions(store)[Disposition.UNREADABLE] == 1
    assert store.events.waiting()[0].reason in {ReasonCode.UNREADABLE_FILE, ReasonCode.NO_DICOM}


def test_an_instance_without_a_uid_is_unreadable(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    folder = scanner.open()
    meta_uid_and_uid = b"1.1.1"
    folder.store(instance("1.1", 1).replace(meta_uid_and_uid, b"\0" * len(meta_uid_and_uid)))
    folder.close(CloseReason.RELEASED)
    settle(assembler)
    assert dispositions(store) == {Disposition.UNREADABLE: 1}


def test_set_aside_and_unfinished_files_are_not_looked_at(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    with Spool(scanner.root) as spool:
        folder = spool.open_folder(Room.ASIDE, "x", OPENED)
        folder.store(instance("1.1", 1))
        folder.close(CloseReason.RELEASED)
    open_one = scanner.open()
    open_one.store(instance("1.2", 1))
    (open_one.path / "000002.dcm.part").write_bytes(b"half")
    settle(assembler)
    assert dispositions(store) == {Disposition.USED: 1}


def test_an_instance_that_the_receiver_takes_back_is_not_missed(
    assembler: Assembler, scanner: Scanner, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scanner.open()
    path = folder.store(instance("1.1", 1))
    folder.store(instance("1.1", 2))
    listed = assemble.read_association(folder.path)
    path.unlink()
    monkeypatch.setattr(assemble, "read_association", lambda _: listed)
    while not assembler.index():
        pass
    assert dispositions(store) == {Disposition.USED: 1}


def test_many_instances_take_several_batches(
    assembler: Assembler, scanner: Scanner, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "BATCH", 4)
    scanner.send("1.1", 10)
    scanner.send("1.2", 3)
    steps = 1
    while not assembler.index():
        steps += 1
    assert steps == 4
    assert sorted(store.scans.get(scan).instances for scan in assembler.complete()) == [3, 10]


def test_a_fresh_database_finds_everything_again(fresh_path: Path, scanner: Scanner, store: Store) -> None:
    scanner.send("1.1", 3)
    scanner.send("1.1", 1, first=4)
    scanner.send("1.2", 2)
    settle(Assembler(store, scanner.root, quiet_s=0.0, force_s=600.0))
    with open_database(fresh_path) as fresh:
        scans = settle(Assembler(fresh, scanner.root, quiet_s=0.0, force_s=600.0))
        assert sorted(uids(fresh, scan) for scan in scans) == [[f"1.1.{n}" for n in range(1, 5)], ["1.2.1", "1.2.2"]]


@pytest.fixture
def fresh_path(tmp_path: Path) -> Path:
    return tmp_path / "fresh.db"


def test_a_second_assembler_goes_on_where_the_first_was_stopped(
    store: Store, scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "BATCH", 2)
    scanner.send("1.1", 5)
    assert not Assembler(store, scanner.root, quiet_s=0.0, force_s=600.0).index()
    (scan_id,) = settle(Assembler(store, scanner.root, quiet_s=0.0, force_s=600.0))
    assert len(uids(store, scan_id)) == 5


def test_a_full_disk_in_the_middle_of_a_pass_loses_nothing(
    assembler: Assembler, scanner: Scanner, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner.send("1.1", 3)
    real = store.instances.add

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.instances, "add", fail)
    with pytest.raises(OSError, match="No space"):
        assembler.index()
    monkeypatch.setattr(store.instances, "add", real)
    (scan_id,) = settle(assembler)
    assert len(uids(store, scan_id)) == 3


def test_a_folder_that_vanished_holds_nothing_up(store: Store, scanner: Scanner) -> None:
    store.associations.see("gone", at=0.0)
    Assembler(store, scanner.root, quiet_s=0.0, force_s=600.0)
    assert store.associations.all() == []


def test_an_association_without_instances_leaves_no_row(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    scanner.open()
    settle(assembler)
    assert store.associations.all() == []


def test_a_folder_that_vanishes_while_it_works_holds_nothing_up(
    assembler: Assembler, scanner: Scanner, store: Store
) -> None:
    folder = _half_open(scanner)
    settle(assembler)
    shutil.rmtree(folder.path)
    (scan_id,) = settle(assembler)
    assert store.associations.all() == []
    assert store.scans.get(scan_id).state is ScanState.COMPLETE


def _half_open(scanner: Scanner) -> AssociationFolder:
    folder = scanner.open()
    folder.store(instance("1.1", 1))
    return folder


def test_a_receiver_that_died_is_closed_by_its_successor(assembler: Assembler, scanner: Scanner, store: Store) -> None:
    _half_open(scanner)
    assert settle(assembler) == []
    with Spool(scanner.root) as spool:
        assert spool.recover() == 1
    (scan_id,) = settle(assembler)
    assert store.scans.get(scan_id).completion_reason == "aborted+quiet"
