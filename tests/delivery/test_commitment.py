"""A scan is done only when the PACS has reported that it keeps every object; what goes wrong ends in a sentence."""

from __future__ import annotations

import logging
import shutil
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage

from appliance.config import ReceiveSettings
from appliance.delivery.backoff import Backoff
from appliance.delivery.c_store import CStoreCarrier
from appliance.delivery.commitment import Committer
from appliance.delivery.commitment_inbox import CommitmentInbox
from appliance.delivery.courier import Courier
from appliance.delivery.node import PacsNode
from appliance.delivery.outbox_worker import settle
from appliance.delivery.shipment import Shipment
from appliance.dicom.commitment_spool import CommitmentReport, CommitmentSpool, ReferencedInstance
from appliance.dicom.network.receiver import Receiver
from appliance.store.commitments import CommitmentState
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.delivery.committing_pacs import CommittingPacs
from tests.delivery.conftest import BOX, PACS
from tests.delivery.test_real_peers import BASIC, held, orthanc
from tests.machine import free_port, wait_until
from tests.objects.conftest import case_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.store.database import Store

__all__ = ["orthanc"]  # a fixture


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


@pytest.fixture
def box(spool: Path) -> Iterator[Receiver]:
    """Give the box's DICOM port, which admits the PACS."""
    settings = ReceiveSettings.model_validate(
        {
            "address": "127.0.0.1", "port": 0, "ae_title": BOX, "disk_reserve_mib": 0,
            "peers": [{"ae_title": PACS, "address": "127.0.0.1"}],
        }
    )  # fmt: skip
    with Receiver(settings, spool, takes_reports=True) as receiver:
        yield receiver


@pytest.fixture
def committing(box: Receiver) -> Iterator[CommittingPacs]:
    pacs = CommittingPacs(box.port)
    yield pacs
    pacs.close()


class Deliveries:
    """The deliver service's loop, taken step by step."""

    def __init__(
        self, store: Store, results: Path, spool: Path, port: int, *, linger_s: float = 0.2, **changes: Any
    ) -> None:
        node = PacsNode(
            **{"name": "pacs", "ae_title": PACS, "address": "127.0.0.1", "port": port, "calling_ae": BOX,
               "timeout_s": 10.0, "commitment": True, "commitment_timeout_s": 3600.0, **changes}
        )  # fmt: skip
        files = CommitmentSpool(spool)
        self.store = store
        self.inbox = CommitmentInbox(store, spool, files)
        stop = threading.Event()
        self.committer = Committer(store, node, files, stop, linger_s=linger_s) if node.commitment else None
        self.shipment = Shipment(store, results, CStoreCarrier(node), stop, committer=self.committer)
        self.courier = Courier(store, self.shipment, Backoff(0.0, 0.0), stop)

    def round(self) -> None:
        self.inbox.round()
        self.courier.round()
        settle(self.store)

    def until(self, scan_id: int, state: ScanState) -> None:
        """Go round until a scan is in a state."""

        def reached() -> bool:
            self.round()
            return self.store.scans.get(scan_id).state is state

        wait_until(reached, f"the scan to be {state.value}", 90)


@pytest.fixture
def deliveries(store: Store, results: Path, spool: Path) -> Callable[..., Deliveries]:
    CommitmentSpool(spool).make()
    return lambda port, **changes: Deliveries(store, results, spool, port, **changes)


@pytest.mark.parametrize("manner", ["new", "same", "twice"])
def test_a_scan_is_done_when_every_object_is_committed(
    screen, deliveries, committing, store, spool, manner: str
) -> None:
    committing.manner = manner
    scan_id, uids = screen()
    deliveries(committing.port, linger_s=30.0 if manner == "same" else 0.2).until(scan_id, ScanState.DONE)
    (entry,) = store.outbox.of_scan(scan_id)
    assert store.commitments.committed(entry.key) == uids
    assert [row.state for row in store.commitments.of_entry(entry.key)] == [CommitmentState.COMMITTED]
    assert sorted(committing.stored) == sorted(uids)
    wait_until(lambda: len(committing.answers) == (2 if manner == "twice" else 1), "the answers to the reports")
    assert set(committing.answers) == {0x0000}
    CommitmentInbox(store, spool, CommitmentSpool(spool)).round()  # the second one changes nothing
    assert store.scans.get(scan_id).state is ScanState.DONE
    assert CommitmentSpool(spool).reports() == []


def test_until_the_report_the_scan_is_delivering_and_says_so(screen, deliveries, committing, store) -> None:
    committing.manner = "never"
    scan_id, uids = screen()
    delivery = deliveries(committing.port)
    for _ in range(5):
        delivery.round()
    (entry,) = store.outbox.of_scan(scan_id)
    assert store.scans.get(scan_id).state is ScanState.DELIVERING
    assert (entry.state, entry.attempts) == (OutboxState.WAITING, 0)
    assert "report of storage commitment is waited for" in entry.reason
    assert len(committing.requests) == 1  # it is not asked again and again
    assert {item.ReferencedSOPInstanceUID for item in committing.requests[0].ReferencedSOPSequence} == uids
    assert ComprehensiveSRStorage in {i.ReferencedSOPClassUID for i in committing.requests[0].ReferencedSOPSequence}


def test_without_commitment_nothing_is_asked(screen, deliveries, committing, store) -> None:
    scan_id, _ = screen()
    deliveries(committing.port, commitment=False).until(scan_id, ScanState.DONE)
    assert committing.requests == []


def test_what_is_not_kept_is_sent_again(screen, deliveries, committing, store) -> None:
    committing.lose = 1
    scan_id, uids = screen()
    deliveries(committing.port).until(scan_id, ScanState.DONE)
    assert sorted(committing.stored) == sorted([*uids, *uids])
    (entry,) = store.outbox.of_scan(scan_id)
    states = [row.state for row in store.commitments.of_entry(entry.key)]
    assert states == [CommitmentState.FAILED, CommitmentState.COMMITTED]


def test_what_is_never_kept_is_parked_with_the_reason(screen, deliveries, committing, store) -> None:
    committing.lose = 1000
    scan_id, uids = screen()
    delivery = deliveries(committing.port)
    delivery.until(scan_id, ScanState.PARKED)
    (entry,) = store.outbox.of_scan(scan_id)
    assert entry.parked_for == "commitment_failed"
    assert "0x0112 no such object instance" in entry.reason
    assert "commitment = false" in entry.reason
    assert len(committing.requests) == 3
    assert not set(entry.reason.split()) & uids
    committing.lose = 0
    store.scans.retry(scan_id)
    delivery.until(scan_id, ScanState.DONE)


def test_a_pacs_that_never_reports_is_parked_with_the_setting_and_goes_on_when_it_does(
    screen, deliveries, committing, store
) -> None:
    committing.manner = "never"
    scan_id, _ = screen()
    other, _ = screen()
    delivery = deliveries(committing.port, commitment_timeout_s=0.05)
    delivery.until(scan_id, ScanState.PARKED)
    delivery.until(other, ScanState.PARKED)
    (entry,) = store.outbox.of_scan(scan_id)
    assert entry.parked_for == "commitment_unanswered"
    assert f"enter this box there with AE title {BOX}" in entry.reason
    assert "receive.peers" in entry.reason
    asked = sum(row.outbox_key == entry.key for row in store.commitments.of_entry(entry.key))
    assert asked >= 3
    # A report that comes too late still counts, and the other one that was given up goes on with it.
    row = store.commitments.of_entry(entry.key)[0]
    late = tuple(ReferencedInstance("1.2", uid) for uid in row.objects)
    delivery.inbox._spool.put_report(CommitmentReport("late", row.transaction_uid, late, ()))
    committing.manner = "new"
    delivery.until(scan_id, ScanState.DONE)
    later = deliveries(committing.port, commitment_timeout_s=3600.0)
    later.until(other, ScanState.DONE)


def test_a_report_of_another_transaction_changes_nothing(screen, deliveries, committing, store) -> None:
    committing.manner = "wrong_transaction"
    scan_id, _ = screen()
    delivery = deliveries(committing.port)
    delivery.round()
    wait_until(lambda: committing.answers == [0x0000], "the report")
    for _ in range(3):
        delivery.round()
    assert store.scans.get(scan_id).state is ScanState.DELIVERING
    (entry,) = store.outbox.of_scan(scan_id)
    assert store.commitments.committed(entry.key) == set()


def test_a_pacs_without_storage_commitment_is_parked_with_the_setting(screen, deliveries, box, store) -> None:
    pacs = CommittingPacs(box.port, offers=False)
    scan_id, uids = screen()
    delivery = deliveries(pacs.port)
    delivery.until(scan_id, ScanState.PARKED)
    (entry,) = store.outbox.of_scan(scan_id)
    assert entry.parked_for == "commitment_not_offered"
    assert 'set commitment = false in deliver.destinations "pacs"' in entry.reason
    assert sorted(pacs.stored) == sorted(uids)
    pacs.close()
    # That setting was changed: what is there already is not sent again.
    changed = deliveries(pacs.port, commitment=False)
    changed.courier.begin()
    changed.until(scan_id, ScanState.DONE)


def test_a_request_that_is_refused_is_tried_again_and_then_parked(screen, deliveries, committing, store) -> None:
    committing.manner = "refuse"
    scan_id, _ = screen()
    deliveries(committing.port).until(scan_id, ScanState.PARKED)
    (entry,) = store.outbox.of_scan(scan_id)
    assert entry.parked_for == "commitment_refused"
    assert "0x0110" in entry.reason
    assert len(committing.requests) == 5
    assert store.commitments.of_entry(entry.key) == []


def test_a_pacs_that_breaks_off_is_asked_again(screen, deliveries, committing, store) -> None:
    committing.manner = "drop"
    scan_id, _ = screen()
    delivery = deliveries(committing.port)

    def asked_twice() -> bool:
        delivery.round()
        return len(committing.requests) >= 2

    wait_until(asked_twice, "a second request", 90)
    committing.manner = "new"
    delivery.until(scan_id, ScanState.DONE)


def test_a_pacs_that_is_gone_after_it_has_the_objects_is_waited_for(
    screen, deliveries, committing, store, monkeypatch
) -> None:
    scan_id, uids = screen()
    away = free_port()
    ask = deliveries(committing.port)
    node = ask.committer._node
    gone = PacsNode(**{name: getattr(node, name) for name in node.__slots__} | {"port": away})
    ask.committer._node = gone
    ask.round()
    (entry,) = store.outbox.of_scan(scan_id)
    assert (entry.state, sorted(committing.stored)) == (OutboxState.WAITING, sorted(uids))
    assert "cannot be reached" in entry.reason
    ask.committer._node = node
    ask.until(scan_id, ScanState.DONE)
    assert sorted(committing.stored) == sorted(uids)


def test_killed_after_asking_the_report_is_still_known(screen, deliveries, committing, store) -> None:
    committing.manner = "never"
    scan_id, _ = screen()
    first = deliveries(committing.port)
    first.round()
    (entry,) = store.outbox.of_scan(scan_id)
    (row,) = store.commitments.of_entry(entry.key)
    del first  # the report comes while nobody runs
    kept = tuple(ReferencedInstance("1.2", uid) for uid in row.objects)
    second = deliveries(committing.port)
    second.inbox._spool.put_report(CommitmentReport("r", row.transaction_uid, kept, ()))
    second.until(scan_id, ScanState.DONE)
    assert len(committing.requests) == 1


def test_a_report_is_applied_once_although_the_box_was_killed_before_its_file_was_removed(
    screen, deliveries, committing, store
) -> None:
    committing.manner = "never"
    scan_id, _ = screen()
    delivery = deliveries(committing.port)
    delivery.round()
    (entry,) = store.outbox.of_scan(scan_id)
    (row,) = store.commitments.of_entry(entry.key)
    report = CommitmentReport("r", row.transaction_uid, (), ())  # mentions nothing: nothing is committed
    for _ in range(2):
        delivery.inbox._spool.put_report(report)
        delivery.inbox.round()
    (after,) = store.commitments.of_entry(entry.key)
    assert (after.state, set(after.failures.values())) == (CommitmentState.FAILED, {0x0110})
    assert store.deliveries.confirmed(entry.key) == {}


def test_a_clock_that_is_set_back_does_not_hold_a_scan(screen, deliveries, committing, store) -> None:
    committing.manner = "never"
    scan_id, _ = screen()
    delivery = deliveries(committing.port)
    delivery.round()
    (entry,) = store.outbox.of_scan(scan_id)
    with store.atomic():
        store.execute("UPDATE commitments SET deadline = ?", (time.time() + 86400 * 365,))
    committing.manner = "new"
    delivery.until(scan_id, ScanState.DONE)
    states = {row.state for row in store.commitments.of_entry(entry.key)}
    assert states == {CommitmentState.EXPIRED, CommitmentState.COMMITTED}


# --- a real archive ---------------------------------------------------------------------------------------------


@pytest.fixture
def orthanc_settings(box: Receiver) -> dict[str, Any]:
    """Let Orthanc know the box, so that it can report back."""
    known = {"AET": BOX, "Host": "127.0.0.1", "Port": box.port, "AllowStorageCommitment": True}
    return {"DicomModalities": {"box": known}}


@pytest.mark.slow
def test_orthanc_commits_and_what_it_lost_is_sent_again(
    screen, deliveries, orthanc, store, results, tmp_path, spool
) -> None:
    port, get = orthanc
    scan_id, _ = screen(())
    folder = results / store.scans.get(scan_id).folder / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    for path in case_of(tmp_path / "case").objects:
        shutil.copy(path, folder)
    uids = sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir())
    delivery = deliveries(port)
    delivery.until(scan_id, ScanState.DONE)
    (entry,) = store.outbox.of_scan(scan_id)
    assert store.commitments.committed(entry.key) == set(uids)
    assert held(get) == uids

    # Of another delivery of the same, the archive loses one object before it is asked.
    lost, _ = screen(())
    shutil.copytree(folder, results / store.scans.get(lost).folder / "objects", dirs_exist_ok=True)
    delivery.shipment._committer = None
    delivery.courier.round()
    delivery.shipment._committer = delivery.committer
    instance = get("/instances")[0]
    request = urllib.request.Request(
        f"{get.base}/instances/{instance}", method="DELETE", headers={"Authorization": BASIC}
    )
    urllib.request.urlopen(request, timeout=30).close()
    assert len(held(get)) == len(uids) - 1
    (entry,) = store.outbox.of_scan(lost)
    with store.atomic():
        store.execute("UPDATE outbox SET state = 'waiting', finished_at = NULL WHERE key = ?", (entry.key,))
    delivery.until(lost, ScanState.DONE)
    assert held(get) == uids
    states = [row.state for row in store.commitments.of_entry(entry.key)]
    assert states == [CommitmentState.FAILED, CommitmentState.COMMITTED]
