"""Scans end when their deliveries have."""

import time

import pytest

from appliance.delivery.outbox_worker import Settled, let_go, settle
from appliance.reasons import ReasonCode
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState


def screened(store, number: int = 1) -> int:
    scan_id = store.scans.create(
        study_instance_uid="1.2", series_instance_uid=f"1.2.{number}", accession_number="", modality="CT",
        revision=1, instances=0, at=time.time(),
    )  # fmt: skip
    store.scans.advance(scan_id, ScanState.SCREENED, cause="test")
    return scan_id


def test_a_scan_without_destinations_is_done(store):
    scan_id = screened(store)
    store.scans.advance(scan_id, ScanState.DELIVERING, cause="a worker that died before it went on")
    assert settle(store) == Settled(done=1)
    assert store.scans.get(scan_id).state is ScanState.DONE


def park(store, scan_id: int) -> None:
    for entry in store.outbox.of_scan(scan_id):
        store.outbox.park(entry.key, "Add AE title BOX to the PACS.", waits_for="calling_ae_title", settings="sha256:0")
    settle(store)


def test_a_scan_waits_while_something_of_it_does(store):
    scan_id = screened(store)
    store.scans.hand_over(scan_id, ["pacs"])
    assert settle(store) == Settled()
    assert store.scans.get(scan_id).state is ScanState.DELIVERING


def test_a_scan_whose_delivery_is_parked_is_parked_with_its_sentence(store):
    scan_id = screened(store)
    store.scans.hand_over(scan_id, ["pacs"])
    park(store, scan_id)
    scan = store.scans.get(scan_id)
    assert (scan.state, scan.reason.code) == (ScanState.PARKED, ReasonCode.DELIVERY_PARKED)
    assert scan.reason.text == "Add AE title BOX to the PACS."


def test_a_parked_delivery_goes_on_when_a_person_asks_for_it(store):
    scan_id = screened(store)
    store.scans.hand_over(scan_id, ["pacs"])
    park(store, scan_id)
    store.scans.retry(scan_id)
    (entry,) = store.outbox.due()
    assert (entry.destination, entry.state, entry.parked_for) == ("pacs", OutboxState.WAITING, None)


def test_repeating_changes_nothing(store):
    scan_id = screened(store)
    store.scans.hand_over(scan_id, ["pacs"])
    park(store, scan_id)
    assert settle(store) == Settled()


@pytest.mark.parametrize("others", [[], ["east"]])
def test_a_parked_scan_ends_when_its_destination_is_no_longer_configured(store, others):
    scan_id = screened(store)
    store.scans.hand_over(scan_id, ["pacs"])
    park(store, scan_id)
    let_go(store, others)
    assert settle(store) == Settled(done=1)
    assert store.scans.get(scan_id).state is ScanState.DONE
    assert store.scans.history(scan_id)[-1].cause == "no longer configured"
    (entry,) = store.outbox.of_scan(scan_id)
    assert (entry.state, entry.reason) == (OutboxState.DONE, "no longer configured")


def test_a_scan_stays_parked_while_another_of_its_destinations_is_there(store):
    scan_id = screened(store)
    store.scans.hand_over(scan_id, ["pacs", "east"])
    park(store, scan_id)
    let_go(store, ["east"])
    assert settle(store) == Settled()
    assert store.scans.get(scan_id).state is ScanState.PARKED
    store.scans.retry(scan_id)
    assert [entry.destination for entry in store.outbox.due()] == ["east"]


def test_what_another_destination_has_confirmed_is_delivered(store):
    scan_id = screened(store)
    store.scans.hand_over(scan_id, ["pacs", "east"])
    store.outbox.done(store.outbox.of_scan(scan_id)[0].key)
    let_go(store, [])
    assert settle(store) == Settled(done=1)
    assert store.scans.history(scan_id)[-1].cause == "delivered"


def test_other_states_are_left_alone(store):
    scan_id = screened(store)
    assert settle(store) == Settled()
    assert store.scans.get(scan_id).state is ScanState.SCREENED
