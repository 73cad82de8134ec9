"""Retention on a real spool and a real database."""

import os
import time
from datetime import UTC, datetime

import pytest

from appliance.config import RetentionSettings
from appliance.dicom import procedure_steps, spool
from appliance.dicom.commitment_spool import CommitmentRequest, ReferencedInstance
from appliance.dicom.procedure_steps import PerformedSeries, ProcedureStep, ProcedureSteps, StepStatus
from appliance.health.disk import DiskKeeper, Swept
from appliance.reasons import Reason, ReasonCode
from appliance.store.commitment_requests import RequestState
from appliance.store.database import open_database
from appliance.store.instances import InstanceIdentity, SpooledInstance
from appliance.store.lifecycle import ScanState

DAY_S = 86400.0
NOW = time.time()
RETENTION = RetentionSettings(pixel_days=7, set_aside_days=1, soft_free_mib=100)
PLENTY, SHORT = 1 << 40, 0


class Spooled:
    """A spool with one database, and associations put into both."""

    def __init__(self, folder) -> None:
        self.root = folder / "spool"
        self.spool = spool.Spool(self.root)
        self.store = open_database(folder / "appliance.db")

    def association(self, room: spool.Room, age_days: float, *, closed: bool = True):
        opened = spool.Opened("CT1", "APPLIANCE", "127.0.0.1", "2026-01-01T00:00:00+00:00", 1)
        folder = self.spool.open_folder(room, spool.new_association_name(), opened)
        folder.store(b"an instance")
        if closed:
            folder.close(spool.CloseReason.RELEASED)
            moment = datetime.fromtimestamp(NOW - age_days * DAY_S, UTC).isoformat()
            (folder.path / "closed.json").write_text(f'{{"reason": "released", "time": "{moment}", "instances": 1}}')
        return folder.path

    def scan(self, age_days: float, state: ScanState = ScanState.DONE, *, series: str = ""):
        path = self.association(spool.Room.ASSOCIATIONS, age_days)
        at = NOW - age_days * DAY_S
        self.store.associations.see(path.name, at=at)
        identity = InstanceIdentity(
            sop_instance_uid=f"1.{path.name}", sop_class_uid="1", series_instance_uid=series or path.name,
            study_instance_uid="1", accession_number="", modality="CT",
        )  # fmt: skip
        item = SpooledInstance("000001.dcm", identity, None, 11, "sha256:0", at)
        (scan_id,) = self.store.instances.add(path.name, [item])
        self.store.associations.close(path.name, "released", at=at)
        self.store.associations.mark_indexed(path.name)
        if state in {ScanState.REFUSED, ScanState.FAILED}:
            self.store.scans.advance(scan_id, ScanState.COMPLETE, cause="test", at=at)
            reason = Reason(ReasonCode.ATTEMPTS_EXHAUSTED, "Three attempts were lost.")
            self.store.scans.move(scan_id, state, cause="test", reason=reason, at=at)
        elif state is not ScanState.RECEIVING:
            self.store.scans.advance(scan_id, state, cause="test", at=at)
        return path

    def sweep(self, free: int = PLENTY) -> Swept:
        return DiskKeeper(self.root, RETENTION, lambda _: free).sweep(self.store, now=NOW)


@pytest.fixture
def spooled(tmp_path):
    spooled = Spooled(tmp_path)
    yield spooled
    spooled.store.close()
    spooled.spool.close()


def test_images_of_a_finished_scan_go_when_their_days_are_over(spooled):
    old, young = spooled.scan(8), spooled.scan(6)
    assert spooled.sweep() == Swept(associations=1)
    assert (old.exists(), young.exists()) == (False, True)


def test_the_database_knows_what_is_gone(spooled):
    spooled.scan(8)
    spooled.sweep()
    assert spooled.store.associations.all() == []
    assert spooled.sweep() == Swept()


@pytest.mark.parametrize("state", [ScanState.RECEIVING, ScanState.COMPLETE, ScanState.SCREENING, ScanState.DELIVERING])
@pytest.mark.parametrize("free", [PLENTY, SHORT])
def test_images_of_an_unfinished_scan_stay_whatever_happens(spooled, state, free):
    path = spooled.scan(100, state)
    assert spooled.sweep(free) == Swept()
    assert path.exists()


def test_images_that_a_later_revision_still_needs_stay(spooled):
    first = spooled.scan(100, series="1.5")
    spooled.scan(0, ScanState.COMPLETE, series="1.5")
    spooled.sweep(SHORT)
    assert first.exists()


def test_a_folder_that_the_database_does_not_know_stays(spooled):
    path = spooled.association(spool.Room.ASSOCIATIONS, 100)
    spooled.sweep(SHORT)
    assert path.exists()


def test_a_short_disk_takes_images_of_finished_scans_early(spooled):
    young = spooled.scan(1)
    assert spooled.sweep(SHORT) == Swept(associations=1, early=1)
    assert not young.exists()


def test_a_short_disk_takes_no_images_of_a_failed_scan_early(spooled):
    path, refused = spooled.scan(6, ScanState.FAILED), spooled.scan(6, ScanState.REFUSED)
    assert spooled.sweep(SHORT) == Swept(associations=1, early=1)
    assert (path.exists(), refused.exists()) == (True, False)


def test_images_of_a_failed_scan_go_when_their_days_are_over(spooled):
    path = spooled.scan(8, ScanState.FAILED)
    assert spooled.sweep() == Swept(associations=1)
    assert not path.exists()


def test_a_short_disk_takes_the_oldest_first_and_no_more_than_it_needs(spooled):
    paths = [spooled.scan(3), spooled.scan(2), spooled.scan(1)]
    keeper = DiskKeeper(spooled.root, RETENTION, lambda _: PLENTY if sum(p.exists() for p in paths) < 2 else SHORT)
    keeper.sweep(spooled.store, now=NOW)
    assert [path.exists() for path in paths] == [False, False, True]


def test_set_aside_objects_go_when_their_day_is_over(spooled):
    old = spooled.association(spool.Room.ASIDE, 2)
    young = spooled.association(spool.Room.ASIDE, 0.5)
    assert spooled.sweep() == Swept(set_aside=1)
    assert (old.exists(), young.exists()) == (False, True)


def test_set_aside_objects_of_an_open_association_stay(spooled):
    path = spooled.association(spool.Room.ASIDE, 0, closed=False)
    assert spooled.sweep(SHORT) == Swept()
    assert path.exists()


def test_what_a_killed_sweep_left_is_finished_by_the_next(spooled):
    left = spooled.root / "going" / "associations-x"
    left.mkdir(parents=True)
    (left / "000001.dcm").write_bytes(b"half")
    spooled.sweep()
    assert not left.exists()


def test_a_folder_that_is_gone_already_is_marked(spooled):
    path = spooled.scan(8)
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    assert spooled.sweep() == Swept(associations=1)
    assert spooled.store.associations.all() == []


def test_what_scanners_reported_and_asked_is_forgotten_after_a_month(spooled):
    steps = ProcedureSteps(spooled.root)
    steps.make()
    for uid, age_days in (("1.1", 31), ("1.2", 29)):
        at = NOW - age_days * DAY_S
        step = ProcedureStep(uid, "CT1", StepStatus.COMPLETED, (PerformedSeries("1.9", ("1.9.1",)),), at)
        steps.create(step)
        spooled.store.procedure_steps.put(step)
        request = CommitmentRequest(uid, "CT1", "127.0.0.1", uid, (ReferencedInstance("1", "1.9.1", 274),), at)
        spooled.store.commitment_requests.put(request, duplicate_failure=305)
        spooled.store.commitment_requests.decide(uid, request.instances, report_at=at)
        spooled.store.commitment_requests.finish(uid, RequestState.REPORTED, at=at)
    for path, _ in procedure_steps.files(spooled.root):
        at = procedure_steps.read(path).changed_at
        os.utime(path, (at, at))
    spooled.sweep()
    assert [procedure_steps.read(path).sop_instance_uid for path, _ in procedure_steps.files(spooled.root)] == ["1.2"]
    assert spooled.store.procedure_steps.counts() == {StepStatus.COMPLETED: 1}
    assert spooled.store.procedure_steps.signal("1.9").named == 1
    assert [spooled.store.commitment_requests.get(uid) is not None for uid in ("1.1", "1.2")] == [False, True]
