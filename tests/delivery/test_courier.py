"""One destination, with every illness a PACS can have."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
import structlog
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from appliance.delivery.backoff import Backoff
from appliance.delivery.objects import Kind
from appliance.delivery.outbox_worker import settle
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.machine import free_port

if TYPE_CHECKING:
    from appliance.delivery.courier import Courier
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry


def entry_of(store: Store, scan_id: int) -> OutboxEntry:
    (entry,) = store.outbox.of_scan(scan_id)
    return entry


def test_a_scan_goes_over_in_one_association_and_is_done(store, screen, courier, pacs):
    scan_id, uids = screen()
    courier(pacs.port).round()
    settle(store)
    assert pacs.uids == uids
    assert pacs.associations == 1
    assert store.scans.get(scan_id).state is ScanState.DONE
    assert set(store.deliveries.confirmed(entry_of(store, scan_id).key)) == uids


def test_the_report_goes_last(screen, courier, pacs, store, results):
    scan_id, _ = screen(("sr", "capture", "seg"))
    courier(pacs.port).round()
    folder = results / store.scans.get(scan_id).folder / "objects"
    names = {str(dcmread(path).SOPInstanceUID): path.name for path in folder.iterdir()}
    assert [names[uid] for uid, _ in pacs.arrived()] == ["1-capture.dcm", "2-seg.dcm", "0-sr.dcm"]


def test_only_the_kinds_that_a_destination_takes_are_sent(screen, courier, pacs, store):
    scan_id, _ = screen()
    courier(pacs.port, kinds=frozenset({Kind.CAPTURE})).round()
    assert len(pacs.arrived()) == 1
    assert entry_of(store, scan_id).state is OutboxState.DONE


def test_a_warning_is_a_success(screen, courier, pacs, store):
    pacs.become("warn=0xB000")
    scan_id, uids = screen()
    courier(pacs.port).round()
    assert entry_of(store, scan_id).state is OutboxState.DONE
    assert store.deliveries.confirmed(entry_of(store, scan_id).key) == dict.fromkeys(uids, 0xB000)


def test_a_peer_that_has_the_instance_already_has_it(screen, courier, pacs, store):
    pacs.become("0x0111")
    scan_id, _ = screen()
    courier(pacs.port).round()
    assert entry_of(store, scan_id).state is OutboxState.DONE


def test_a_full_peer_is_asked_again_and_only_for_what_it_lacks(screen, courier, pacs, store):
    pacs.become("0xA700=seg")
    scan_id, uids = screen()
    served = courier(pacs.port)
    served.round()
    entry = entry_of(store, scan_id)
    assert (entry.state, entry.attempts) == (OutboxState.WAITING, 1)
    assert "0xA700" in entry.reason
    pacs.become("")
    until_done(store, scan_id, served)
    assert sorted(uid for uid, _ in pacs.arrived()) == sorted(uids)


def until_done(store: Store, scan_id: int, served: Courier, rounds: int = 200) -> None:
    for _ in range(rounds):
        if entry_of(store, scan_id).state is OutboxState.DONE:
            return
        served.round()
        threading.Event().wait(0.01)
    pytest.fail(f"not done: {entry_of(store, scan_id)}")


@pytest.mark.parametrize(
    ("illness", "sentence"),
    [
        ("unknown_caller", "add AE title BOX with this box's address to the PACS"),
        ("other_title", 'correct ae_title of deliver.destinations "pacs" in the configuration'),
        ("refuse_seg", "does not take Segmentation Storage (1.2.840.10008.5.1.4.1.1.66.4): have it accept"),
        ("0x0122=seg", 'or leave "seg" out of its kinds in deliver.destinations'),
        ("0x0124", "does not let BOX store; allow it there"),
        ("0xA900=sr", "It does not take this Comprehensive SR Storage"),
    ],
)  # fmt: skip
def test_what_is_permanent_is_parked_at_once_with_the_setting_and_goes_on_when_mended(
    screen, courier, pacs, store, illness, sentence
):
    pacs.become(illness)
    scan_id, uids = screen()
    served = courier(pacs.port)
    served.round()
    settle(store)
    scan = store.scans.get(scan_id)
    assert scan.state is ScanState.PARKED
    assert sentence in scan.reason.text
    pacs.become("")
    store.scans.retry(scan_id)
    until_done(store, scan_id, served)
    assert sorted(uid for uid, _ in pacs.arrived()) == sorted(uids)


def test_the_rest_of_a_scan_goes_over_when_a_class_is_refused(screen, courier, pacs):
    pacs.become("refuse_seg")
    screen()
    courier(pacs.port).round()
    assert len(pacs.arrived()) == 2


def test_a_refused_peer_is_not_asked_again_and_again(screen, courier, pacs):
    pacs.become("unknown_caller")
    screen()
    served = courier(pacs.port)
    for _ in range(5):
        served.round()
    assert pacs.associations == 2  # the delivery and one trial; the next trial is an hour later


def test_what_is_not_understood_is_parked_after_some_tries(screen, courier, pacs, store):
    pacs.become("0xC000=sr")
    scan_id, _ = screen()
    served = courier(pacs.port)
    for _ in range(200):
        served.round()
        if entry_of(store, scan_id).state is OutboxState.PARKED:
            break
    entry = entry_of(store, scan_id)
    assert (entry.state, entry.attempts) == (OutboxState.PARKED, 5)
    assert "0xC000" in entry.reason


@pytest.mark.filterwarnings("ignore:The value length")
def test_what_a_peer_says_in_words_is_kept_as_one_bounded_line_and_never_logged(screen, courier, pacs, store):
    pacs.become("0xA900 comment")
    scan_id, _ = screen(("capture",))
    with structlog.testing.capture_logs() as logs:
        courier(pacs.port).round()
    settle(store)
    reason = store.scans.get(scan_id).reason.text
    assert "Zhang^San" in reason  # local status may say it
    assert reason.isprintable()
    assert len(reason) < 600
    assert "Zhang" not in str(logs)
    assert "Zhang" not in str([event.numbers for event in store.events.waiting()])


def test_changed_settings_take_up_what_was_parked_under_the_old_ones(screen, courier, pacs, store):
    pacs.become("refuse_seg")
    scan_id, _ = screen()
    courier(pacs.port).round()
    settle(store)
    same = courier(pacs.port)
    same.begin()
    assert store.scans.get(scan_id).state is ScanState.PARKED
    changed = courier(pacs.port, kinds=frozenset({Kind.SR, Kind.CAPTURE}))
    changed.begin()
    changed.round()
    settle(store)
    assert store.scans.get(scan_id).state is ScanState.DONE


def test_one_scan_that_goes_through_takes_all_parked_ones_along(screen, courier, pacs, store):
    pacs.become("unknown_caller")
    parked = [screen()[0] for _ in range(3)]
    served = courier(pacs.port)
    served.round()
    settle(store)
    pacs.become("")
    fourth, _ = screen()
    served.round()
    served.round()
    settle(store)
    assert {store.scans.get(scan_id).state for scan_id in (*parked, fourth)} == {ScanState.DONE}


@pytest.mark.parametrize("illness", ["drop", "drop_after"])
def test_a_peer_that_drops_is_asked_again(screen, courier, pacs, store, illness):
    pacs.become(illness)
    scan_id, uids = screen()
    served = courier(pacs.port)
    served.round()
    assert entry_of(store, scan_id).state is OutboxState.WAITING
    pacs.become("")
    until_done(store, scan_id, served)
    assert pacs.uids == uids
    assert len(set(pacs.arrived())) == len(uids)  # what came twice came as the same bytes


@pytest.mark.slow
def test_a_peer_that_hangs_is_left_after_the_time_out(screen, courier, pacs, store):
    pacs.become("hang")
    scan_id, uids = screen()
    served = courier(pacs.port, timeout_s=2.0)
    served.round()
    assert "gave no answer" in entry_of(store, scan_id).reason
    pacs.become("")
    until_done(store, scan_id, served)
    assert pacs.uids == uids


def test_stopping_does_not_wait_for_a_peer_that_hangs(screen, store, results, pacs, courier):
    pacs.become("hang")
    scan_id, _ = screen()
    served = courier(pacs.port, timeout_s=600.0)
    stop = served._stop
    threading.Timer(1.0, stop.set).start()
    served.round()
    entry = entry_of(store, scan_id)
    assert (entry.state, entry.attempts) == (OutboxState.WAITING, 0)


def test_nobody_there_is_one_try_for_all_and_the_first_answer_hastens_all(screen, courier, store, results):
    scans = [screen()[0] for _ in range(3)]
    served = courier(free_port(), backoff=Backoff(600.0, 600.0))
    for _ in range(3):
        served.round()
    assert [entry_of(store, scan_id).attempts for scan_id in scans] == [1, 0, 0]
    assert "cannot be reached" in entry_of(store, scans[0]).reason


def test_a_round_says_whether_more_is_due(screen, courier, pacs, store):
    scans = [screen(("sr",))[0] for _ in range(21)]
    served = courier(pacs.port)
    assert [served.round(), served.round()] == [True, False]
    assert {entry_of(store, scan_id).state for scan_id in scans} == {OutboxState.DONE}


def test_the_first_answer_hastens_what_was_put_off(screen, courier, pacs, store, results):
    first, second = screen()[0], screen()[0]
    away = courier(free_port(), backoff=Backoff(600.0, 600.0))
    away.round()
    assert entry_of(store, first).attempts == 1
    away._errand, away._quiet_until = courier(pacs.port)._errand, 0.0
    away.round()
    away.round()
    assert {entry_of(store, scan).state for scan in (first, second)} == {OutboxState.DONE}


def test_what_ends_on_this_box_is_no_sign_that_the_peer_is_back(screen, courier, store, results):
    put_off = screen()[0]
    away = courier(free_port(), backoff=Backoff(600.0, 600.0))
    away.round()
    waits_until = entry_of(store, put_off).next_try_at
    empty = screen(())[0]
    away._quiet_until = 0.0
    away.round()
    assert entry_of(store, empty).state is OutboxState.PARKED
    assert entry_of(store, put_off).next_try_at == waits_until


@pytest.mark.parametrize("answer", ["nothing", "hang up"])
def test_a_port_that_speaks_no_dicom_is_asked_again(screen, courier, store, answer):
    scan_id, _ = screen()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.close()

        if answer == "hang up":
            threading.Thread(target=hang_up, daemon=True).start()
        courier(listener.getsockname()[1], timeout_s=1.0).round()
    assert entry_of(store, scan_id).state is OutboxState.WAITING
    assert "broke it off" in entry_of(store, scan_id).reason


def test_a_scan_without_objects_is_parked(screen, courier, pacs, store):
    scan_id, _ = screen(())
    courier(pacs.port).round()
    assert "There are no DICOM objects" in entry_of(store, scan_id).reason
    assert pacs.associations == 0


def test_a_damaged_object_is_parked(screen, courier, pacs, store, results):
    scan_id, _ = screen()
    (results / store.scans.get(scan_id).folder / "objects" / "9.dcm").write_text("no")
    courier(pacs.port).round()
    assert "9.dcm in the results folder is not a DICOM file" in entry_of(store, scan_id).reason


def test_a_clock_that_was_set_back_does_not_hold_up_a_delivery(screen, courier, pacs, store):
    scan_id, _ = screen()
    store.outbox.failed(entry_of(store, scan_id).key, retry_at=4e9, reason="clock")
    courier(pacs.port).round()
    assert entry_of(store, scan_id).state is OutboxState.DONE


def test_dcmtk_that_speaks_only_implicit_gets_the_same_objects(screen, courier, storescp, store, results):
    scan_id, uids = screen()
    port, folder = storescp("+xi")
    courier(port).round()
    stored = {str(item.SOPInstanceUID): item for item in map(dcmread, folder.iterdir())}
    assert set(stored) == uids
    for path in (results / store.scans.get(scan_id).folder / "objects").iterdir():
        original = dcmread(path)
        copy = stored[str(original.SOPInstanceUID)]
        assert copy.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert copy == original


@pytest.mark.slow
def test_a_peer_that_stops_reading_is_left_after_the_time_out(screen, courier, storescp, store):
    scan_id, _ = screen(("capture",), size=64 << 20)
    port, _ = storescp("--sleep-during", "60")
    courier(port, timeout_s=2.0).round()
    entry = entry_of(store, scan_id)
    assert (entry.state, entry.attempts) == (OutboxState.WAITING, 1)


def test_an_object_that_cannot_be_converted_is_parked_and_holds_up_no_other(screen, courier, storescp, store, results):
    damaged, _ = screen(("capture",))
    whole, uids = screen(("capture",))
    (path,) = (results / store.scans.get(damaged).folder / "objects").iterdir()
    path.write_bytes(path.read_bytes() + b"\x42\x00\x15\x00OB\x00\x00\x05")  # cut off within a length
    port, folder = storescp("+xi")
    courier(port).round()
    assert entry_of(store, damaged).state is OutboxState.PARKED
    assert entry_of(store, whole).state is OutboxState.DONE
    assert {str(dcmread(item).SOPInstanceUID) for item in folder.iterdir()} == uids
