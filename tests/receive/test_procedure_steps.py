"""What scanners report of their procedure steps: kept before it is acknowledged, refused as the standard says."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE
from pynetdicom.dimse_primitives import N_CREATE
from pynetdicom.presentation import build_context

from appliance.dicom import procedure_steps
from appliance.dicom.network.link import Link, application_entity
from appliance.dicom.network.link import associate as open_association
from appliance.dicom.procedure_steps import PerformedSeries, ProcedureStep, StepStatus
from appliance.dicom.uids import MODALITY_PERFORMED_PROCEDURE_STEP as MPPS
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as PUSH
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE as WELL_KNOWN
from tests.receive.conftest import CALLED, SENDER, associate, eventually
from tests.receive.test_power_cut import service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pynetdicom.association import Association

    from appliance.dicom.network.receiver import Receiver

CANARY = "Canary^Patient"


def in_progress(**elements: Any) -> Dataset:
    """What a scanner says when it begins, identifiers included."""
    step = Dataset()
    scheduled = Dataset()
    scheduled.StudyInstanceUID, scheduled.AccessionNumber = generate_uid(), "CANARY-ACC"
    step.ScheduledStepAttributesSequence = [scheduled]
    step.PatientName, step.PatientID = CANARY, "CANARY-ID"
    step.PerformedProcedureStepID, step.Modality = "1", "CT"
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.PerformedSeriesSequence = []
    for keyword, value in elements.items():
        setattr(step, keyword, value)
    return step


def ended(status: str = "COMPLETED", **series: list[str]) -> Dataset:
    """What it says when it ends: for each series (a name for its UID) its images."""
    step = Dataset()
    step.PerformedProcedureStepStatus = status
    step.PerformedSeriesSequence = [performed(uid.replace("_", ".").strip("s"), ims) for uid, ims in series.items()]
    return step


def performed(series_uid: str, images: list[str], *, sop_class: str = CTImageStorage) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID, item.ProtocolName = series_uid, "CANARY protocol"
    item.ReferencedImageSequence = [reference(sop_class, uid) for uid in images]
    return item


def reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


@pytest.fixture
def scanner(receiver: Receiver) -> Iterator[Association]:
    association = associate(receiver, (MPPS, ImplicitVRLittleEndian))
    assert association.is_established
    yield association
    if association.is_established:
        association.release()


def kept(spool: Path) -> list[ProcedureStep]:
    steps = [procedure_steps.read(path) for path, _ in procedure_steps.files(spool)]
    assert None not in steps
    return steps  # type: ignore[return-value]


def create(association: Association, uid: str, dataset: Dataset) -> Dataset:
    return association.send_n_create(dataset, MPPS, uid)[0]


def change(association: Association, uid: str, dataset: Dataset) -> Dataset:
    return association.send_n_set(dataset, MPPS, uid)[0]


def test_a_step_is_kept_from_its_beginning_to_its_end(scanner: Association, spool: Path) -> None:
    assert create(scanner, "1.2.3", in_progress()).Status == 0x0000
    (step,) = kept(spool)
    assert (step.sop_instance_uid, step.peer_ae_title) == ("1.2.3", SENDER)
    assert (step.status, step.series) == (StepStatus.IN_PROGRESS, ())
    end = ended()
    end.PerformedSeriesSequence = [
        performed("1.5", ["1.5.1", "1.5.2", "1.5.1"]),
        performed("1.6", ["1.6.1"], sop_class=SecondaryCaptureImageStorage),
    ]
    assert change(scanner, "1.2.3", end).Status == 0x0000
    (step,) = kept(spool)
    assert step.status is StepStatus.COMPLETED
    # Nobody waits for what is only set aside.
    assert step.series == (PerformedSeries("1.5", ("1.5.1", "1.5.2")), PerformedSeries("1.6", ()))


def test_a_change_that_does_not_speak_of_series_or_status_leaves_them(scanner: Association, spool: Path) -> None:
    create(scanner, "1.2.3", in_progress(PerformedSeriesSequence=[performed("1.5", ["1.5.1"])]))
    only_a_description = Dataset()
    only_a_description.PerformedProcedureStepDescription = "Thorax"
    assert change(scanner, "1.2.3", only_a_description).Status == 0x0000
    (step,) = kept(spool)
    assert (step.status, len(step.series)) == (StepStatus.IN_PROGRESS, 1)


def test_the_same_step_is_created_once(scanner: Association) -> None:
    assert create(scanner, "1.2.3", in_progress()).Status == 0x0000
    again = create(scanner, "1.2.3", in_progress())
    assert again.Status == 0x0111
    assert again.ErrorComment


def test_an_unknown_step_cannot_be_changed(scanner: Association, spool: Path) -> None:
    assert change(scanner, "1.2.3", ended()).Status == 0x0112
    assert kept(spool) == []


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_has_ended_stays_as_it_is(scanner: Association, spool: Path, status: str) -> None:
    create(scanner, "1.2.3", in_progress())
    assert change(scanner, "1.2.3", ended(status)).Status == 0x0000
    answer = change(scanner, "1.2.3", ended("COMPLETED"))
    assert (answer.Status, answer.ErrorID) == (0x0110, 0xA710)
    assert answer.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    assert kept(spool)[0].status == status


@pytest.mark.parametrize(
    ("dataset", "status"),
    [
        (in_progress(PerformedProcedureStepStatus="COMPLETED"), 0x0106),
        (in_progress(PerformedProcedureStepStatus="STARTED"), 0x0106),
        (in_progress(PerformedProcedureStepStatus=None), 0x0120),
    ],
)
def test_a_step_begins_in_progress(scanner: Association, dataset: Dataset, status: int, spool: Path) -> None:
    assert create(scanner, "1.2.3", dataset).Status == status
    assert kept(spool) == []


def test_a_wrong_end_is_refused_and_changes_nothing(scanner: Association, spool: Path) -> None:
    create(scanner, "1.2.3", in_progress())
    assert change(scanner, "1.2.3", ended("FINISHED")).Status == 0x0106
    assert kept(spool)[0].status is StepStatus.IN_PROGRESS


def test_items_without_uids_are_left_out(scanner: Association, spool: Path) -> None:
    create(scanner, "1.2.3", in_progress())
    end = ended()
    nameless, empty = performed("1.7", ["1.7.1"]), performed("1.5", ["1.5.1"])
    del nameless.SeriesInstanceUID
    empty.ReferencedImageSequence.append(Dataset())
    end.PerformedSeriesSequence = [nameless, empty]
    assert change(scanner, "1.2.3", end).Status == 0x0000
    assert kept(spool)[0].series == (PerformedSeries("1.5", ("1.5.1",)),)


@pytest.mark.parametrize("data", [b"\x08\x00\x50\x00\xff\xff\xff\x00abc", bytes(range(64)), b"\xff" * 40])
def test_a_damaged_data_set_fails_alone(scanner: Association, data: bytes, spool: Path) -> None:
    from io import BytesIO

    request = N_CREATE()
    request.MessageID, request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = 7, MPPS, "1.2.3"
    request.AttributeList = BytesIO(data)
    scanner._reactor_checkpoint.clear()
    scanner.dimse.send_msg(request, scanner.accepted_contexts[0].context_id)
    _, answer = scanner.dimse.get_msg(block=True)
    scanner._reactor_checkpoint.set()
    assert answer.Status in {0x0106, 0x0115, 0x0120}
    assert kept(spool) == []
    assert create(scanner, "1.2.3", in_progress()).Status == 0x0000  # the association goes on


def test_a_full_disk_is_told(start_receiver: Callable[..., Receiver], spool: Path) -> None:
    free = [10 << 30]
    receiver = start_receiver(free_space=lambda _: free[0], disk_reserve_mib=1024)
    association = associate(receiver, (MPPS, ImplicitVRLittleEndian))
    free[0] = 0
    assert create(association, "1.2.3", in_progress()).Status == 0x0213
    association.release()
    assert kept(spool) == []


def test_a_disk_that_fails_is_told(scanner: Association, spool: Path) -> None:
    folder = spool / procedure_steps.FOLDER
    folder.rmdir()
    folder.write_text("no folder any more")
    assert create(scanner, "1.2.3", in_progress()).Status == 0x0110
    folder.unlink()
    folder.mkdir()
    assert create(scanner, "1.2.3", in_progress()).Status == 0x0000


def test_switched_off_it_is_not_offered(start_receiver: Callable[..., Receiver]) -> None:
    association = associate(start_receiver(procedure_steps=False), (MPPS, ImplicitVRLittleEndian))
    assert not association.is_established


def test_nobody_unknown_reports_anything(receiver: Receiver) -> None:
    association = associate(receiver, (MPPS, ImplicitVRLittleEndian), calling="STRANGER")
    assert association.is_rejected


def test_nothing_of_the_patient_is_kept(scanner: Association, spool: Path) -> None:
    create(scanner, "1.2.3", in_progress())
    change(scanner, "1.2.3", ended(s1_5=["1.5.1"]))
    for path in (spool / procedure_steps.FOLDER).iterdir():
        assert "canary" not in path.read_text().lower()
        assert "1.2.3" not in path.name


def test_nothing_of_the_patient_is_in_the_log(tmp_path: Path) -> None:
    config, log = tmp_path / "box.toml", tmp_path / "log"
    config.write_text(
        f'[box]\nstate_directory = "{tmp_path}/state"\n[receive]\naddress = "127.0.0.1"\nport = 0\n'
        f'disk_reserve_mib = 0\npeers = [{{ ae_title = "{SENDER}", address = "127.0.0.1" }}]\n'
    )
    heartbeat = tmp_path / "state" / "run" / "receive.json"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "appliance", "receive", "--config", str(config)], stderr=stream
        )
        try:
            eventually(heartbeat.exists, 60)
            ae = AE(ae_title=SENDER)
            for uid in (MPPS, PUSH):
                ae.add_requested_context(uid, ImplicitVRLittleEndian)
            port = int(json.loads(heartbeat.read_text())["port"])
            association = ae.associate("127.0.0.1", port, ae_title=CALLED)
            answers = [
                create(association, "1.2.826.3.1", in_progress()),
                create(association, "1.2.826.3.1", in_progress()),
                create(association, "1.2.826.3.2", in_progress(PerformedProcedureStepStatus="CANARY")),
                change(association, "1.2.826.3.1", ended(s1_2_826_5=["1.2.826.5.1"])),
                association.send_n_action(in_progress(), 1, PUSH, WELL_KNOWN)[0],
            ]
            association.release()
        finally:
            process.terminate()
            process.wait(30)
    assert [answer.Status for answer in answers] == [0x0000, 0x0111, 0x0106, 0x0000, 0x0115]
    written = log.read_text().lower()
    assert "procedure_step" in written
    assert "canary" not in written
    assert "1.2.826" not in written
    assert not any("canary" in str(answer).lower() for answer in answers)


def test_two_that_change_the_same_step_do_not_undo_each_other(receiver: Receiver, spool: Path) -> None:
    first, second = (associate(receiver, (MPPS, ImplicitVRLittleEndian)) for _ in range(2))
    create(first, "1.2.3", in_progress())
    statuses: list[int] = []

    def end(association: Association, status: str) -> None:
        statuses.append(change(association, "1.2.3", ended(status)).Status)

    pairs = [(first, "COMPLETED"), (second, "DISCONTINUED")]
    threads = [threading.Thread(target=end, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0x0000, 0x0110]
    for association in (first, second):
        association.release()


@pytest.mark.slow
def test_killed_at_random_every_acknowledged_step_is_there(tmp_path: Path) -> None:
    state = tmp_path / "state"
    pick = random.Random(6)
    begun: set[str] = set()
    completed: set[str] = set()

    def report(port: int) -> None:
        entity = application_entity(SENDER, 20.0)
        link = open_association(entity, [build_context(MPPS, ImplicitVRLittleEndian)], "127.0.0.1", port, CALLED, None)
        assert isinstance(link, Link)
        with link as association, contextlib.suppress(RuntimeError):
            while association.is_established:
                uid = generate_uid()
                if create(association, uid, in_progress()).get("Status") == 0:
                    begun.add(uid)
                if change(association, uid, ended(s1_5=["1.5.1"])).get("Status") == 0:
                    completed.add(uid)

    for _ in range(4):
        with service(state) as (process, port):
            thread = threading.Thread(target=report, args=(port,))
            thread.start()
            time.sleep(pick.uniform(0.3, 0.8))
            process.kill()
            thread.join(60)
    with service(state):
        found = {step.sop_instance_uid: step for step in kept(state / "spool")}
        assert not list(state.rglob("*.part"))
    assert len(completed) > 10
    assert begun <= found.keys()
    assert {found[uid].status for uid in completed} == {StepStatus.COMPLETED}


def test_images_are_stored_while_steps_are_reported(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    from appliance.dicom.network.sender import send
    from tests.receive.conftest import list_associations, make_series

    association = associate(receiver, (MPPS, ImplicitVRLittleEndian))
    images = make_series(tmp_path / "images", 20)
    sending = threading.Thread(
        target=send,
        args=(images,),
        kwargs={"host": "127.0.0.1", "port": receiver.port, "called_ae": "APPLIANCE", "calling_ae": SENDER},
    )
    sending.start()
    for number in range(20):
        assert create(association, f"1.2.{number + 1}", in_progress()).Status == 0x0000
    sending.join()
    association.release()
    eventually(lambda: sum(len(each.instances) for each in list_associations(spool)) == 20)
    assert len(kept(spool)) == 20
