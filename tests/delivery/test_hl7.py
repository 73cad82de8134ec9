"""Results and alerts over HL7: a receiver with every illness, in a process of its own."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest
import structlog
from hl7apy.parser import parse_message

from appliance.delivery.backoff import Backoff
from appliance.delivery.courier import Courier
from appliance.delivery.hl7 import Notice
from appliance.delivery.node import Hl7Node
from appliance.delivery.outbox_worker import let_go, settle
from appliance.hl7.routing import CharacterSet, Routing
from appliance.store.alert_rules import AlertChannel, ChannelKind
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.delivery.conftest import Pacs, make_object
from tests.machine import free_port
from tests.receive.test_tls import authority, certificate, files
from tests.store.samples import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry

ROUTING = Routing("APPLIANCE", "box-7", "HIS", "HOSP")


class Receiver(Pacs):
    """The receiver's process; its illness is a word in a file."""

    def heard(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.folder.glob("*.hl7"))]


@pytest.fixture(scope="module")
def _receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with Receiver.running("ill_receiver.py", tmp_path_factory.mktemp("hl7")) as peer:
        yield peer


@pytest.fixture
def his(_receiver: Receiver) -> Receiver:
    """Give the receiver, well and with nothing heard."""
    _receiver.become("")
    for path in _receiver.folder.glob("*.hl7"):
        path.unlink()
    return _receiver


@pytest.fixture
def told(store: Store, results: Path) -> Callable[..., int]:
    """Make a screened scan with a stored result, to be told to the receiver ``his``; gives its id."""
    numbers = iter(range(1, 1000))

    def make(*, objects: bool = True) -> int:
        scan_id = store.scans.create(
            study_instance_uid="1.2", series_instance_uid=f"1.2.{next(numbers)}", accession_number="A1",
            modality="CT", revision=1, instances=0, at=time.time(),
        )  # fmt: skip
        store.scans.advance(scan_id, ScanState.SCREENING, cause="test")
        store.results.save(scan_id, report(), folder=store.scans.get(scan_id).folder, at=1_796_000_000.0)
        if objects:
            make_object(results / store.scans.get(scan_id).folder / "objects" / "report.dcm", "sr")
        store.scans.hand_over(scan_id, [], hl7=["his"])
        return scan_id

    return make


@pytest.fixture
def courier(store: Store, results: Path, tmp_path: Path) -> Callable[..., Courier]:
    def make(port: int, *, backoff: Backoff = Backoff(0.0, 0.0), **changes: object) -> Courier:  # noqa: B008
        node = Hl7Node(
            **{"name": "his", "address": "127.0.0.1", "port": port, "routing": ROUTING, "timeout_s": 10.0, **changes}
        )  # type: ignore[arg-type]
        stop = threading.Event()
        return Courier(store, Notice(store, results, tmp_path / "state" / "spool", node, stop), backoff, stop)

    return make


def entry_of(store: Store, scan_id: int) -> OutboxEntry:
    (entry,) = store.outbox.of_scan(scan_id)
    return entry


def until_done(store: Store, scan_id: int, served: Courier) -> None:
    for _ in range(200):
        if entry_of(store, scan_id).state is OutboxState.DONE:
            return
        served.round()
        threading.Event().wait(0.01)
    pytest.fail(f"not done: {entry_of(store, scan_id)}")


def test_a_result_is_told_and_the_scan_is_done(told, courier, his, store):
    scan_id = told()
    courier(his.port).round()
    settle(store)
    assert store.scans.get(scan_id).state is ScanState.DONE
    (text,) = his.heard()
    message = parse_message(text.decode(), find_groups=True)
    message.validate()
    assert message.msh.msh_9.value == "ORU^R01^ORU_R01"
    assert message.oru_r01_patient_result.oru_r01_patient.pid.pid_5.value == "Test^Patient"


def test_a_commit_accept_is_enough(told, courier, his, store):
    his.become("CA")
    scan_id = told()
    courier(his.port).round()
    assert entry_of(store, scan_id).state is OutboxState.DONE


@pytest.mark.parametrize(
    ("illness", "sentence"),
    [
        ("AR=203", 'set version of deliver.hl7 "his" to the one that it takes'),
        ("AE=204", "it does not know this patient or order"),
        ("CR=200", "it does not take ORU^R01 messages"),
        ("CE", "answered CE (error): ask its administrator what it logged"),
        ("AE", "answered AE (error)"),
    ],
)
def test_a_refusal_is_parked_at_once_with_what_to_change_and_goes_on_when_mended(
    told, courier, his, store, illness, sentence
):
    his.become(illness)
    scan_id = told()
    served = courier(his.port)
    served.round()
    settle(store)
    assert store.scans.get(scan_id).state is ScanState.PARKED
    assert sentence in store.scans.get(scan_id).reason.text
    his.become("")
    store.scans.retry(scan_id)
    until_done(store, scan_id, served)
    assert len(set(his.heard())) == 1  # what was refused and what was taken are one message


def test_what_passes_at_the_receiver_is_tried_again(told, courier, his, store):
    his.become("AE=207")
    scan_id = told()
    served = courier(his.port)
    served.round()
    assert entry_of(store, scan_id).state is OutboxState.WAITING
    his.become("")
    until_done(store, scan_id, served)


@pytest.mark.parametrize(
    ("illness", "said"),
    [
        ("drop", "broke off the connection"),
        ("hang", "gave no whole answer within timeout_s = 1"),
        ("half", "gave no whole answer within timeout_s = 1"),
        ("wrong", "answered to another message than the one sent (MSA-2)"),
        ("garbage", "does not answer in HL7 over MLLP"),
    ],
)
def test_without_a_whole_answer_to_this_message_it_is_sent_again_as_the_same(told, courier, his, store, illness, said):
    his.become(illness)
    scan_id = told()
    served = courier(his.port, timeout_s=1.0)
    served.round()
    entry = entry_of(store, scan_id)
    assert (entry.state, entry.attempts) == (OutboxState.WAITING, 1)
    assert said in entry.reason
    his.become("")
    until_done(store, scan_id, served)
    assert len(his.heard()) == (1 if illness == "drop" else 2)
    assert len(set(his.heard())) == 1


@pytest.mark.parametrize("illness", ["slow", "wrong right"])
def test_a_slow_answer_or_one_after_a_stranger_s_is_taken(told, courier, his, store, illness):
    his.become(illness)
    scan_id = told()
    courier(his.port).round()
    assert entry_of(store, scan_id).state is OutboxState.DONE
    assert len(his.heard()) == 1


def test_nobody_there_is_one_try_for_all(told, courier, store):
    scans = [told() for _ in range(3)]
    away = courier(free_port(), backoff=Backoff(600.0, 600.0))
    for _ in range(3):
        away.round()
    assert [entry_of(store, scan_id).attempts for scan_id in scans] == [1, 0, 0]
    assert "cannot be reached" in entry_of(store, scans[0]).reason


def test_stopping_does_not_wait_for_a_receiver_that_hangs(told, courier, his, store):
    his.become("hang")
    scan_id = told()
    served = courier(his.port, timeout_s=600.0)
    threading.Timer(0.5, served._stop.set).start()
    served.round()
    assert (entry_of(store, scan_id).state, entry_of(store, scan_id).attempts) == (OutboxState.WAITING, 0)


def test_an_alert_goes_before_the_results_and_tells_of_its_screening(told, courier, his, store):
    scan_id = told()
    store.alerts.raise_for(
        scan_id, [("emphysema", "urgent")], channels=[AlertChannel(ChannelKind.HL7, "his")], at=1_796_000_001.0
    )
    served = courier(his.port)
    served.round()
    store.alerts.escalate_overdue(at=1_796_000_900.0)
    served.round()
    alert, result, escalated = his.heard()
    assert b"|ALERT\r" in alert
    assert b"ALERT" not in result
    assert b"nobody has acknowledged" in escalated
    assert b"emphysema" in alert
    assert len({text.split(b"|")[9] for text in (alert, result, escalated)}) == 3


def test_a_scan_whose_patient_nobody_can_tell_any_more_is_parked(told, courier, his, store):
    scan_id = told(objects=False)
    courier(his.port).round()
    assert "could not say whose result it is" in entry_of(store, scan_id).reason
    assert his.heard() == []


def test_neither_message_nor_answer_is_logged(told, courier, his, store):
    his.become("AE=204")
    told()
    with structlog.testing.capture_logs() as logs:
        courier(his.port).round()
        his.become("")
        told()
        courier(his.port).round()
    assert logs
    assert not any(word in str(logs) for word in ("Zhang", "Test", "P1", "A1"))


def test_the_receiver_s_character_set(told, courier, his, store, results):
    scan_id = told()
    path = results / store.scans.get(scan_id).folder / "objects" / "report.dcm"
    name = "王^小东".encode("gb18030")
    path.write_bytes(path.read_bytes().replace(b"Test^Patient", name + b" " * (12 - len(name))))
    routing = Routing("APPLIANCE", "box-7", character_set=CharacterSet.GB18030, language="zh")
    courier(his.port, routing=routing).round()
    assert entry_of(store, scan_id).state is OutboxState.DONE
    text = his.heard()[0].decode("gb18030")
    assert "王^小东" in text
    assert "|GB 18030-2000\r" in text


def test_a_receiver_that_is_no_longer_configured_is_waited_for_no_more(told, store):
    scan_id = told()
    let_go(store, ["pacs"])
    assert entry_of(store, scan_id).state is OutboxState.WAITING
    let_go(store, ["ris"], kind="hl7")
    settle(store)
    assert store.scans.get(scan_id).state is ScanState.DONE


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("site", "stranger"):
        authority(folder, name)
    for name in ("box", "his"):
        certificate(folder, name, "site")
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    return folder


def test_messages_go_over_tls_and_not_to_a_stranger(told, courier, certificates, store, tmp_path_factory):
    names = [certificates / name for name in ("his.pem", "his.key", "site.pem")]
    with Receiver.running("ill_receiver.py", tmp_path_factory.mktemp("secure"), *names) as peer:
        scan_id = told()
        courier(peer.port, tls=files(certificates, "box", trusted="stranger")).round()
        assert "do not trust each other" in entry_of(store, scan_id).reason
        assert peer.heard() == []
        until_done(store, scan_id, courier(peer.port, tls=files(certificates, "box")))
        assert len(peer.heard()) == 1
