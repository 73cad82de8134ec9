"""Completion of series from a real spool, with injected interruptions."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from appliance.dicom import procedure_steps
from appliance.dicom.procedure_steps import (
    PerformedSeries,
    ProcedureStep,
    ProcedureSteps,
    StepExistsError,
    StepStatus,
)
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

    from appliance.config import Settings
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


# --- procedure steps --------------------------------------------------------------------------------------------


@pytest.fixture
def patient_assembler(store: Store, scanner: Scanner) -> Assembler:
    """Give one whose quiet time is never over in a test."""
    return Assembler(store, scanner.root, quiet_s=3600.0, force_s=7200.0)


@pytest.fixture
def report(scanner: Scanner) -> Callable[..., None]:
    """Report a procedure step as the DICOM port keeps it: ``report(status, series=images, …)``."""
    steps = ProcedureSteps(scanner.root)
    steps.make()

    def change(status: str, uid: str = "1.9", **series: int | list[int]) -> None:
        named = []
        for name, numbers in series.items():
            uid_of_series = name.strip("s").replace("_", ".")
            images = range(1, numbers + 1) if isinstance(numbers, int) else numbers
            named.append(PerformedSeries(uid_of_series, tuple(f"{uid_of_series}.{number}" for number in images)))
        with suppress(StepExistsError):
            steps.create(ProcedureStep(uid, "SCANNER", StepStatus.IN_PROGRESS, (), time.time()))
        steps.change(uid, status=StepStatus(status), series=tuple(named), changed_at=time.time())

    return change


def test_a_completed_step_needs_no_quiet_time(
    patient_assembler: Assembler, scanner: Scanner, store: Store, report: Callable[..., None]
) -> None:
    scanner.send("1.1", 3)
    scanner.send("1.2", 2)
    assert settle(patient_assembler) == []
    report("COMPLETED", s1_1=3, s1_2=2)
    scans = [store.scans.get(scan_id) for scan_id in settle(patient_assembler)]
    assert {scan.series_instance_uid: scan.instances for scan in scans} == {"1.1": 3, "1.2": 2}
    assert {scan.completion_reason for scan in scans} == {"mpps"}


def test_a_completed_step_may_come_first(
    patient_assembler: Assembler, scanner: Scanner, store: Store, report: Callable[..., None]
) -> None:
    report("COMPLETED", s1_1=3, s1_8=4)  # of the second series nothing ever comes
    assert settle(patient_assembler) == []
    scanner.send("1.1", 2)
    assert settle(patient_assembler) == []
    scanner.send("1.1", 1, first=3)
    (scan_id,) = settle(patient_assembler)
    assert (store.scans.get(scan_id).completion_reason, store.scans.get(scan_id).instances) == ("mpps", 3)


def test_an_association_that_is_open_may_bring_more(
    patient_assembler: Assembler, scanner: Scanner, report: Callable[..., None]
) -> None:
    folder = scanner.open()
    for number in (1, 2):
        folder.store(instance("1.1", number))
    report("COMPLETED", s1_1=2)
    assert settle(patient_assembler) == []
    folder.close(CloseReason.RELEASED)
    assert len(settle(patient_assembler)) == 1


def test_images_that_a_completed_step_names_are_waited_for(
    store: Store, scanner: Scanner, report: Callable[..., None], clock: Callable[[float], None]
) -> None:
    assembler = Assembler(store, scanner.root, quiet_s=15.0, force_s=600.0)
    scanner.send("1.1", 3)
    report("COMPLETED", s1_1=5)
    settle(assembler)
    clock(599.0)
    assert settle(assembler) == []
    clock(2.0)
    (scan_id,) = settle(assembler)
    assert (store.scans.get(scan_id).completion_reason, store.scans.get(scan_id).instances) == ("forced", 3)


@pytest.mark.parametrize("status", ["IN PROGRESS", "DISCONTINUED"])
def test_a_step_that_is_not_completed_changes_nothing(
    store: Store, scanner: Scanner, report: Callable[..., None], clock: Callable[[float], None], status: str
) -> None:
    assembler = Assembler(store, scanner.root, quiet_s=15.0, force_s=600.0)
    scanner.send("1.1", 3)
    report(status, s1_1=3)
    assert settle(assembler) == []
    clock(16.0)
    (scan_id,) = settle(assembler)
    assert store.scans.get(scan_id).completion_reason == "released+quiet"


def test_a_completed_step_that_names_no_images_says_nothing_of_them(
    store: Store, scanner: Scanner, report: Callable[..., None], clock: Callable[[float], None]
) -> None:
    assembler = Assembler(store, scanner.root, quiet_s=15.0, force_s=600.0)
    scanner.send("1.1", 1)
    report("COMPLETED", s1_1=0)
    assert settle(assembler) == []  # an association for each image: the first is closed, and more will come
    clock(14.0)
    scanner.send("1.1", 2, first=2)
    assert settle(assembler) == []
    clock(16.0)
    assert len(settle(assembler)) == 1


def test_a_second_step_that_goes_on_with_a_series_is_waited_for(
    patient_assembler: Assembler, scanner: Scanner, report: Callable[..., None]
) -> None:
    scanner.send("1.1", 3)
    report("COMPLETED", s1_1=3)
    report("IN PROGRESS", uid="1.10", s1_1=[])
    assert settle(patient_assembler) == []
    report("COMPLETED", uid="1.10", s1_1=[4])
    assert settle(patient_assembler) == []
    scanner.send("1.1", 1, first=4)
    assert len(settle(patient_assembler)) == 1


def test_late_images_that_a_step_names_make_a_revision_at_once(
    store: Store, scanner: Scanner, report: Callable[..., None], clock: Callable[[float], None]
) -> None:
    assembler = Assembler(store, scanner.root, quiet_s=15.0, force_s=600.0)
    scanner.send("1.1", 3)
    settle(assembler)
    clock(16.0)
    settle(assembler)
    report("COMPLETED", s1_1=4)
    scanner.send("1.1", 1, first=4)
    (scan_id,) = settle(assembler)
    scan = store.scans.get(scan_id)
    assert (scan.revision, scan.completion_reason, scan.instances) == (2, "mpps", 4)


def test_steps_are_found_again_after_the_database_was_lost(
    settings: Settings, scanner: Scanner, report: Callable[..., None], tmp_path: Path
) -> None:
    report("COMPLETED", s1_1=2)
    for number in range(2):
        with open_database(tmp_path / f"{number}.db") as store:
            assembler = Assembler(store, scanner.root, quiet_s=3600.0, force_s=7200.0)
            if number == 0:
                settle(assembler)
                scanner.send("1.1", 2)
            assert len(settle(assembler)) == 1


def test_a_damaged_step_is_passed_over(
    patient_assembler: Assembler, scanner: Scanner, report: Callable[..., None]
) -> None:
    report("COMPLETED", s1_1=2)
    (scanner.root / procedure_steps.FOLDER / "damaged.json").write_text('{"status": "COMPL')
    scanner.send("1.1", 2)
    assert len(settle(patient_assembler)) == 1
