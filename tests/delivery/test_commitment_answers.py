"""Asked for storage commitment, the box says of each instance what is true, and says it even after a kill."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from appliance.config import ReceiveSettings
from appliance.delivery.backoff import Backoff
from appliance.delivery.commitment_answers import GIVE_UP_AFTER_S, CommitmentAnswers
from appliance.delivery.commitment_inbox import CommitmentInbox
from appliance.dicom.commitment_spool import CommitmentRequest, CommitmentSpool, ReferencedInstance
from appliance.dicom.network.link import Link, application_entity, associate
from appliance.dicom.network.receiver import Receiver
from appliance.dicom.network.sender import send
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as PUSH
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE as WELL_KNOWN
from appliance.services.assemble import Assembler
from appliance.store.commitment_requests import RequestState
from appliance.tls import server_context
from tests.delivery.conftest import BOX, PACS
from tests.delivery.test_real_peers import BASIC, orthanc
from tests.machine import free_port, wait_until
from tests.receive.conftest import make_instance, make_series
from tests.receive.test_commitment_requests import reference
from tests.receive.test_tls import authority, certificate, files

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.store.database import Store

__all__ = ["orthanc"]  # a fixture

SCANNER = "CT1"
TRANSACTION = "2.25.4711"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


class Scanner:
    """A scanner that listens for reports on a port of its own."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.reports: list[tuple[int, Dataset]] = []
        self.status = 0x0000
        ae = AE(ae_title=SCANNER)
        ae.require_called_aet = True
        ae.add_supported_context(PUSH, scu_role=True, scp_role=True)
        self._server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._report)],
            ssl_context=tls,
        )
        self.port = int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()

    def _report(self, event: evt.Event) -> tuple[int, None]:
        assert event.assoc.requestor.ae_title.strip() == BOX
        assert event.assoc.accepted_contexts[0].as_scu  # the roles are reversed
        self.reports.append((event.request.EventTypeID, event.event_information))
        return self.status, None

    @property
    def failures(self) -> dict[str, int]:
        ((event_type, report),) = self.reports
        assert event_type == 2
        assert "ReferencedSOPSequence" not in report
        return {str(item.ReferencedSOPInstanceUID): item.FailureReason for item in report.FailedSOPSequence}


@pytest.fixture
def scanner() -> Iterator[Scanner]:
    scanner = Scanner()
    yield scanner
    scanner.close()


class Box:
    """The port, the work service's indexing, and the deliver service's two parts, taken step by step."""

    def __init__(self, store: Store, spool: Path, settings: ReceiveSettings, *, window_s: float) -> None:
        self.store, self.root, self.settings = store, spool, settings
        self.files = CommitmentSpool(spool)
        self.receiver = Receiver(settings, spool)
        self.assembler = Assembler(store, spool, quiet_s=3600.0, force_s=7200.0)
        self.window_s = window_s
        self.begin()

    def begin(self) -> None:
        """Begin anew, as after a kill of the deliver service."""
        self.inbox = CommitmentInbox(self.store, self.root, self.files, same_association_s=self.window_s)
        self.answers = CommitmentAnswers(self.store, self.files, self.settings, Backoff(0.0, 0.0), threading.Event())

    def ask(
        self, *references: Dataset, transaction: str = TRANSACTION, stay: Callable[[], object] | None = None
    ) -> None:
        """Ask as the scanner does; with ``stay`` the association is kept open while that runs."""
        dataset = Dataset()
        dataset.TransactionUID = TRANSACTION
        dataset.ReferencedSOPSequence = list(references)
        reports: list[Any] = []
        handlers = [(evt.EVT_N_EVENT_REPORT, lambda event: (reports.append(event.event_information), (0, None))[1])]
        entity = application_entity(SCANNER, 30.0)
        contexts = [build_context(PUSH, ImplicitVRLittleEndian)]
        link = associate(entity, contexts, "127.0.0.1", self.receiver.port, BOX, None, handlers=handlers)
        assert isinstance(link, Link)
        with link as association:
            assert association.send_n_action(dataset, 1, PUSH, WELL_KNOWN)[0].Status == 0x0000
            if stay is not None:
                stay()
                wait_until(lambda: len(reports) > 0, "the report on the same association")
                wait_until((self.root / "commitments" / "answers" / f"{self.rows()[0].name}.sent").exists, "its answer")

    def index(self) -> None:
        while not self.assembler.index():
            pass

    def send(self, paths: list[Path]) -> None:
        sent = send(paths, host="127.0.0.1", port=self.receiver.port, called_ae=BOX, calling_ae=SCANNER)
        assert sent.ok

    def round(self) -> None:
        self.inbox._look_at = 0.0
        self.inbox.round()
        self.answers.round()

    def rows(self) -> list[Any]:
        return self.store.commitment_requests._select("ORDER BY id")


@pytest.fixture
def start_box(store: Store, tmp_path: Path, scanner: Scanner) -> Iterator[Callable[..., Box]]:
    started = []

    def start(*, port: int | None = scanner.port, window_s: float = 0.0) -> Box:
        peer = {"ae_title": SCANNER, "address": "127.0.0.0/24"} | ({} if port is None else {"port": port})
        settings = ReceiveSettings.model_validate(
            {"address": "127.0.0.1", "port": 0, "ae_title": BOX, "disk_reserve_mib": 0, "peers": [peer]}
        )
        box = Box(store, tmp_path / "state" / "spool", settings, window_s=window_s)
        box.receiver.start()
        started.append(box)
        return box

    yield start
    for box in started:
        box.receiver.stop(grace_s=0.2)


@pytest.fixture
def box(start_box: Callable[..., Box]) -> Box:
    return start_box()


def test_of_each_instance_it_says_what_is_true(box: Box, scanner: Scanner, tmp_path: Path) -> None:
    images = make_series(tmp_path / "images", 2)
    capture = make_instance(tmp_path / "capture.dcm", sop_class=SecondaryCaptureImageStorage)
    box.send([*images, capture])
    box.index()
    here, other_class = (str(dcmread(path).SOPInstanceUID) for path in images)
    aside = str(dcmread(capture).SOPInstanceUID)
    box.ask(
        reference(here),
        reference(other_class, EnhancedCTImageStorage),
        reference(aside, SecondaryCaptureImageStorage),
        reference("1.2.3.4"),
    )
    box.round()
    assert scanner.failures == {here: 0x0213, other_class: 0x0119, aside: 0x0122, "1.2.3.4": 0x0112}
    assert scanner.reports[0][1].TransactionUID == TRANSACTION
    (row,) = box.rows()
    assert row.state is RequestState.REPORTED
    assert list((box.root / "commitments").rglob("*.*")) == []


def test_what_was_deleted_is_no_longer_there(box: Box, scanner: Scanner, tmp_path: Path) -> None:
    (image,) = make_series(tmp_path / "images", 1)
    box.send([image])
    box.index()
    wait_until(lambda: all(item.indexed for item in box.store.associations.all()) or bool(box.index()), "the index")
    for association in box.store.associations.all():
        box.store.associations.mark_pruned(association.name, at=time.time())
    uid = str(dcmread(image).SOPInstanceUID)
    assert box.store.commitment_requests.held([uid]) == {}


def test_it_waits_until_what_was_received_is_indexed(box: Box, scanner: Scanner, tmp_path: Path) -> None:
    images = make_series(tmp_path / "images", 3)
    box.send(images)
    box.ask(*(reference(str(dcmread(path).SOPInstanceUID)) for path in images))
    box.round()
    assert scanner.reports == []
    box.index()
    box.round()
    assert set(scanner.failures.values()) == {0x0213}


def test_where_nothing_is_indexed_for_long_it_does_not_claim_to_know(
    box: Box, scanner: Scanner, tmp_path: Path
) -> None:
    images = make_series(tmp_path / "images", 1)
    box.send(images)
    box.ask(reference(str(dcmread(images[0]).SOPInstanceUID)))
    box.round()
    with box.store.atomic():
        box.store.execute("UPDATE commitment_requests SET received_at = received_at - 601")
    box.round()
    assert set(scanner.failures.values()) == {0x0110}


def test_the_report_goes_over_the_association_that_asked_while_it_is_open(
    start_box: Callable[..., Box], scanner: Scanner
) -> None:
    box = start_box(port=None, window_s=0.0)
    box.ask(reference("1.2.3.4"), stay=box.inbox.round)
    box.round()
    assert scanner.reports == []
    assert [row.state for row in box.rows()] == [RequestState.REPORTED]


def test_without_a_port_it_is_given_up_with_what_to_change(start_box: Callable[..., Box]) -> None:
    box = start_box(port=None)
    box.ask(reference("1.2.3.4"))
    box.round()
    (row,) = box.rows()
    assert row.state is RequestState.GIVEN_UP
    assert f"clear the setting for storage commitment of {BOX} on {SCANNER}" in row.reason
    (peer,) = box.store.commitment_requests.peers(since=0.0)
    assert (peer.ae_title, peer.given_up, peer.reason) == (SCANNER, 1, row.reason)


def test_a_scanner_that_is_away_is_told_later(start_box: Callable[..., Box], scanner: Scanner) -> None:
    box = start_box(port=free_port())
    box.ask(reference("1.2.3.4"))
    box.round()
    (row,) = box.rows()
    assert (row.state, row.attempts) == (RequestState.DECIDED, 1)
    assert "cannot be reached" in row.reason
    box.settings = ReceiveSettings.model_validate(
        box.settings.model_dump() | {"peers": [{"ae_title": SCANNER, "address": "127.0.0.1", "port": scanner.port}]}
    )
    box.begin()
    wait_until(lambda: box.round() or box.rows()[0].state is RequestState.REPORTED, "the report")
    assert scanner.failures == {"1.2.3.4": 0x0112}


def test_a_scanner_that_stays_away_is_given_up(start_box: Callable[..., Box]) -> None:
    box = start_box(port=free_port())
    box.ask(reference("1.2.3.4"))
    box.round()
    with box.store.atomic():
        box.store.execute(
            "UPDATE commitment_requests SET next_try_at = 0, received_at = ?", (time.time() - GIVE_UP_AFTER_S - 1,)
        )
    box.round()
    (row,) = box.rows()
    assert row.state is RequestState.GIVEN_UP
    assert "given up" in row.reason


@pytest.mark.parametrize(
    ("status", "state"),
    [(0x0110, RequestState.DECIDED), (0x0112, RequestState.GIVEN_UP), (0x0107, RequestState.REPORTED)],
)
def test_what_the_scanner_answers_decides(box: Box, scanner: Scanner, status: int, state: RequestState) -> None:
    scanner.status = status
    box.ask(reference("1.2.3.4"))
    box.round()
    assert box.rows()[0].state is state


def test_killed_between_any_two_steps_the_report_arrives_and_says_the_same(box: Box, scanner: Scanner) -> None:
    box.ask(reference("1.2.3.4"))
    name = box.files.requests()[0].name
    for kill in ("remove_request", "offer"):
        original = getattr(box.files, kill)

        def dies(*_: object) -> None:
            raise KeyboardInterrupt

        setattr(box.files, kill, dies)
        box.inbox._look_at = 0.0
        with pytest.raises(KeyboardInterrupt):
            box.inbox.round()
        setattr(box.files, kill, original)
        box.begin()
    assert box.store.commitment_requests.get(name).state is RequestState.DECIDED
    box.store.commitment_requests.finish, finish = (
        (lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)),
        box.store.commitment_requests.finish,
    )  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        box.round()
    box.store.commitment_requests.finish = finish  # type: ignore[method-assign]
    box.begin()
    wait_until(lambda: box.round() or box.rows()[0].state is RequestState.REPORTED, "the report")
    assert len(scanner.reports) == 2  # at most the one in hand goes out again
    assert scanner.reports[0] == scanner.reports[1]
    assert box.files.requests() == []


def test_the_same_request_again_is_answered_once(box: Box, scanner: Scanner) -> None:
    for _ in range(2):
        box.ask(reference("1.2.3.4"))
    box.round()
    assert scanner.failures == {"1.2.3.4": 0x0112}
    assert len(box.rows()) == 1


def test_a_transaction_that_is_in_use_for_others_fails(box: Box, scanner: Scanner) -> None:
    box.ask(reference("1.2.3.4"))
    box.ask(reference("1.2.3.5"))
    box.round()
    box.round()
    told = {
        str(item.ReferencedSOPInstanceUID): item.FailureReason
        for _, report in scanner.reports
        for item in report.FailedSOPSequence
    }
    assert told == {"1.2.3.4": 0x0112, "1.2.3.5": 0x0131}


def test_a_transaction_that_was_answered_may_be_asked_again(box: Box, scanner: Scanner) -> None:
    for _ in range(2):
        box.ask(reference("1.2.3.4", CTImageStorage))
        box.round()
    assert [row.state for row in box.rows()] == [RequestState.REPORTED] * 2
    assert len(scanner.reports) == 2
    assert box.store.commitment_requests.forget(finished_before=time.time() + 1) == 2
    assert box.rows() == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")
def test_over_tls_the_report_is_encrypted_too(store: Store, tmp_path: Path, scanner: Scanner) -> None:
    authority(tmp_path, "site")
    for name in ("box", "scanner"):
        certificate(tmp_path, name, "site")
    for key in tmp_path.glob("*.key"):
        key.chmod(0o600)
    secure = Scanner(server_context(files(tmp_path, "scanner")))
    peer = {"ae_title": SCANNER, "address": "127.0.0.1", "port": secure.port}
    tls = files(tmp_path, "box").model_dump()
    settings = ReceiveSettings.model_validate({"ae_title": BOX, "disk_reserve_mib": 0, "peers": [peer], "tls": tls})
    box = Box(store, tmp_path / "state" / "spool", settings, window_s=0.0)
    box.files.make()
    asked = (ReferencedInstance(CTImageStorage, "1.2.3.4"),)
    box.files.put_request(CommitmentRequest("r", SCANNER, "127.0.0.1", TRANSACTION, asked, time.time()))
    box.round()
    secure.close()
    assert secure.failures == {"1.2.3.4": 0x0112}
    assert scanner.reports == []


# --- a real one that asks ---------------------------------------------------------------------------------------


@pytest.fixture
def box_port() -> int:
    return free_port()


@pytest.fixture
def orthanc_settings(box_port: int) -> dict[str, Any]:
    """Let Orthanc know the box, so that it can ask it."""
    known = {"AET": BOX, "Host": "127.0.0.1", "Port": box_port, "AllowStorageCommitment": True}
    return {"DicomModalities": {"box": known}}


@pytest.mark.slow
def test_orthanc_asks_and_is_told(store: Store, tmp_path: Path, box_port: int, orthanc: Any) -> None:
    port, get = orthanc
    peer = {"ae_title": PACS, "address": "127.0.0.1", "port": port}
    settings = ReceiveSettings.model_validate(
        {"address": "127.0.0.1", "port": box_port, "ae_title": BOX, "disk_reserve_mib": 0, "peers": [peer]}
    )
    box = Box(store, tmp_path / "state" / "spool", settings, window_s=0.0)
    with box.receiver:
        body = json.dumps({"DicomInstances": [[CTImageStorage, "1.2.3.4"]]}).encode()
        request = urllib.request.Request(
            f"{get.base}/modalities/box/storage-commitment", data=body, headers={"Authorization": BASIC}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            path = json.load(answer)["Path"]
        wait_until(lambda: box.round() or get(path)["Status"] != "Pending", "Orthanc to have the report")
        report = get(path)
    assert report["Status"] == "Failure"
    (failure,) = report["Failures"]
    assert (failure["SOPInstanceUID"], failure["FailureReason"]) == ("1.2.3.4", 0x0112)
    assert [row.state for row in box.rows()] == [RequestState.REPORTED]
