"""Storage commitment on the port: durable before it is acknowledged, refused as the standard says, without database."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import build_role, evt
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.presentation import build_context

from appliance.dicom.commitment_spool import (
    CommitmentReport,
    CommitmentRequest,
    CommitmentSpool,
    Handover,
    ReferencedInstance,
)
from appliance.dicom.network.link import Link, application_entity
from appliance.dicom.network.link import associate as open_association
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as PUSH
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE as WELL_KNOWN
from tests.receive.conftest import CALLED, PEER, SENDER, associate, eventually
from tests.receive.test_power_cut import service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pynetdicom.association import Association

    from appliance.dicom.network.receiver import Receiver

TRANSACTION = "2.25.4711"


def reference(uid: str, sop_class: str = CTImageStorage, failure: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    if failure is not None:
        item.FailureReason = failure
    return item


def asked(*uids: str, **elements: Any) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = TRANSACTION
    dataset.ReferencedSOPSequence = [reference(uid) for uid in uids or ("1.2.1",)]
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def act(association: Association, dataset: Dataset | None, *, action: int = 1, instance: str = WELL_KNOWN) -> Dataset:
    return association.send_n_action(dataset, action, PUSH, instance)[0]


@pytest.fixture
def commitments(spool: Path) -> CommitmentSpool:
    return CommitmentSpool(spool)


@pytest.fixture
def scanner(receiver: Receiver) -> Iterator[Association]:
    association = associate(receiver, (PUSH, ImplicitVRLittleEndian))
    assert association.is_established
    yield association
    if association.is_established:
        association.release()


def test_a_request_is_kept_before_it_is_acknowledged(scanner: Association, commitments: CommitmentSpool) -> None:
    assert act(scanner, asked("1.2.1", "1.2.2", "1.2.1")).Status == 0x0000
    (request,) = commitments.requests()
    assert (request.transaction_uid, request.peer_ae_title, request.peer_address) == (TRANSACTION, SENDER, "127.0.0.1")
    assert request.instances == tuple(ReferencedInstance(CTImageStorage, uid) for uid in ("1.2.1", "1.2.2"))


@pytest.mark.parametrize(
    ("dataset", "options", "status"),
    [
        (asked(TransactionUID=None), {}, 0x0115),
        (asked(ReferencedSOPSequence=[]), {}, 0x0115),
        (asked(ReferencedSOPSequence=[Dataset()]), {}, 0x0115),
        (None, {}, 0x0115),
        (asked(), {"action": 2}, 0x0123),
        (asked(), {"instance": "1.2.3"}, 0x0112),
    ],
)
def test_what_cannot_be_answered_is_refused(
    scanner: Association, commitments: CommitmentSpool, dataset: Dataset | None, options: dict[str, Any], status: int
) -> None:
    answer = act(scanner, dataset, **options)
    assert answer.Status == status
    assert answer.ErrorComment
    assert commitments.requests() == []
    assert act(scanner, asked()).Status == 0x0000  # the association goes on


@pytest.mark.parametrize("data", [b"\x08\x00\x95\x11\xff\xff\xff\x00abc", bytes(range(80))])
def test_a_damaged_request_fails_alone(scanner: Association, commitments: CommitmentSpool, data: bytes) -> None:
    request = N_ACTION()
    request.MessageID, request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = 7, PUSH, WELL_KNOWN
    request.ActionTypeID, request.ActionInformation = 1, BytesIO(data)
    scanner._reactor_checkpoint.clear()
    scanner.dimse.send_msg(request, scanner.accepted_contexts[0].context_id)
    _, answer = scanner.dimse.get_msg(block=True)
    scanner._reactor_checkpoint.set()
    assert answer.Status == 0x0115
    assert commitments.requests() == []


def test_a_full_disk_is_told(start_receiver: Callable[..., Receiver], commitments: CommitmentSpool) -> None:
    free = [10 << 30]
    receiver = start_receiver(free_space=lambda _: free[0], disk_reserve_mib=1024)
    association = associate(receiver, (PUSH, ExplicitVRLittleEndian))
    free[0] = 0
    assert act(association, asked()).Status == 0x0213
    association.release()
    assert commitments.requests() == []


def test_switched_off_it_is_not_offered(start_receiver: Callable[..., Receiver]) -> None:
    assert not associate(start_receiver(storage_commitment="off"), (PUSH, ImplicitVRLittleEndian)).is_established


def test_nobody_unknown_asks(receiver: Receiver) -> None:
    assert associate(receiver, (PUSH, ImplicitVRLittleEndian), calling="STRANGER").is_rejected


# --- the report on the same association -------------------------------------------------------------------------


def listening(receiver: Receiver, status: int = 0x0000) -> tuple[Association, list[tuple[int, Dataset]]]:
    """Open an association that takes reports and answers them with a status."""
    reports: list[tuple[int, Dataset]] = []

    def on_report(event: evt.Event) -> tuple[int, None]:
        reports.append((event.request.EventTypeID, event.event_information))
        return status, None

    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    return associate(receiver, (PUSH, ImplicitVRLittleEndian), evt_handlers=handlers), reports


def report_for(commitments: CommitmentSpool) -> CommitmentReport:
    (request,) = commitments.requests()
    failed = tuple(ReferencedInstance(i.sop_class_uid, i.sop_instance_uid, 0x0112) for i in request.instances)
    return CommitmentReport(request.name, request.transaction_uid, (), failed)


def test_the_report_comes_on_the_association_that_asked(
    receiver: Receiver, commitments: CommitmentSpool, spool: Path
) -> None:
    association, reports = listening(receiver)
    act(association, asked())
    report = report_for(commitments)
    commitments.offer(report)
    eventually((spool / "commitments" / "answers" / f"{report.name}.sent").exists, 60)
    assert commitments.withdraw(report.name) is Handover.SENT
    ((event_type, dataset),) = reports
    assert event_type == 2
    assert dataset.TransactionUID == TRANSACTION
    assert dataset.FailedSOPSequence[0].FailureReason == 0x0112
    assert "ReferencedSOPSequence" not in dataset
    assert act(association, asked()).Status == 0x0000  # it goes on
    association.release()


@pytest.mark.parametrize("how", ["released", "refused"])
def test_a_report_that_is_not_taken_there_is_left_to_another_association(
    receiver: Receiver, commitments: CommitmentSpool, how: str
) -> None:
    association, reports = listening(receiver, 0x0110 if how == "refused" else 0x0000)
    act(association, asked())
    report = report_for(commitments)
    if how == "released":
        association.release()
        eventually(lambda: receiver.statistics.associations_open == 0)
    commitments.offer(report)
    if how == "refused":
        eventually(lambda: reports, 60)
        association.release()
        eventually(lambda: receiver.statistics.associations_open == 0, 60)
    assert eventually(lambda: commitments.withdraw(report.name) is Handover.NOT_SENT, 60)


def test_a_report_that_a_killed_port_had_taken_is_sent_elsewhere(commitments: CommitmentSpool) -> None:
    commitments.make()
    commitments.offer(CommitmentReport("x", TRANSACTION, (), ()))
    assert commitments.take("x") is not None
    assert commitments.take("x") is None
    assert commitments.withdraw("x") is Handover.BEING_SENT
    assert commitments.withdraw("x", now=time.time() + 121) is Handover.NOT_SENT
    assert commitments.withdraw("x") is Handover.NOT_SENT


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "x", "instances": [{"nothing": 1}]}', '{"name"'])
def test_a_damaged_file_is_passed_over(commitments: CommitmentSpool, spool: Path, content: str) -> None:
    commitments.make()
    for folder in ("requests", "reports", "answers"):
        (spool / "commitments" / folder / "x.json").write_text(content)
    commitments.put_request(CommitmentRequest("y", SENDER, "127.0.0.1", TRANSACTION, (), 0.0))
    assert [request.name for request in commitments.requests()] == ["y"]
    assert commitments.reports() == []
    assert commitments.take("x") is None


# --- reports of what this box has asked -------------------------------------------------------------------------


def told(*committed: str, failed: tuple[str, ...] = (), **elements: Any) -> Dataset:
    dataset = asked(*committed, **elements)
    if failed:
        dataset.FailedSOPSequence = [reference(uid, failure=0x0213) for uid in failed]
    return dataset


@pytest.mark.parametrize("role", ["proposed", "not proposed"])
def test_a_report_is_kept_before_it_is_acknowledged(
    spool: Path, commitments: CommitmentSpool, start_taker: Callable[[], Receiver], role: str
) -> None:
    receiver = start_taker()
    roles = [build_role(PUSH, scu_role=False, scp_role=True)] if role == "proposed" else []
    association = associate(receiver, (PUSH, ImplicitVRLittleEndian), ext_neg=roles)
    if roles:
        assert association.accepted_contexts[0].as_scp
    status, _ = association.send_n_event_report(told("1.2.1", failed=("1.2.2",)), 2, PUSH, WELL_KNOWN)
    assert status.Status == 0x0000
    association.release()
    (report,) = commitments.reports()
    assert report.transaction_uid == TRANSACTION
    assert report.committed == (ReferencedInstance(CTImageStorage, "1.2.1"),)
    assert report.failed == (ReferencedInstance(CTImageStorage, "1.2.2", 0x0213),)


@pytest.fixture
def start_taker(spool: Path) -> Iterator[Callable[[], Receiver]]:
    """Start a receiver of a box that asks a PACS and answers nobody."""
    from appliance.config import ReceiveSettings
    from appliance.dicom.network.receiver import Receiver

    settings = ReceiveSettings.model_validate(
        {"address": "127.0.0.1", "port": 0, "disk_reserve_mib": 0, "peers": [PEER], "storage_commitment": "off"}
    )
    receiver = Receiver(settings, spool, takes_reports=True)

    def start() -> Receiver:
        receiver.start()
        return receiver

    yield start
    receiver.stop(grace_s=0.2)


def test_a_box_that_only_asks_takes_no_requests(
    commitments: CommitmentSpool, start_taker: Callable[[], Receiver]
) -> None:
    association = associate(start_taker(), (PUSH, ImplicitVRLittleEndian))
    assert act(association, asked()).Status == 0x0124
    association.release()
    assert commitments.requests() == []


@pytest.mark.parametrize(
    ("dataset", "event_type", "status"), [(told(), 3, 0x0113), (told(TransactionUID=None), 1, 0x0115)]
)
def test_a_report_that_says_nothing_is_refused(
    commitments: CommitmentSpool,
    start_taker: Callable[[], Receiver],
    dataset: Dataset,
    event_type: int,
    status: int,
) -> None:
    association = associate(start_taker(), (PUSH, ImplicitVRLittleEndian))
    assert association.send_n_event_report(dataset, event_type, PUSH, WELL_KNOWN)[0].Status == status
    association.release()
    assert commitments.reports() == []


# --- kills ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_random_every_acknowledged_request_is_there(tmp_path: Path) -> None:
    state = tmp_path / "state"
    pick = random.Random(9)
    acknowledged: set[str] = set()

    def ask(port: int) -> None:
        entity = application_entity(SENDER, 20.0)
        link = open_association(entity, [build_context(PUSH)], "127.0.0.1", port, CALLED, None)
        assert isinstance(link, Link)
        with link as association, contextlib.suppress(RuntimeError):
            while association.is_established:
                uid = generate_uid()
                if act(association, asked(TransactionUID=uid)).get("Status") == 0:
                    acknowledged.add(uid)

    for _ in range(3):
        with service(state) as (process, port):
            thread = threading.Thread(target=ask, args=(port,))
            thread.start()
            time.sleep(pick.uniform(0.3, 0.8))
            process.kill()
            thread.join(60)
    assert len(acknowledged) > 10
    assert acknowledged <= {request.transaction_uid for request in CommitmentSpool(state / "spool").requests()}
