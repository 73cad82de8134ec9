"""Who holds a scan, and what becomes of it when its holder is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.reasons import Reason, ReasonCode
from appliance.store.events import EventKind
from appliance.store.leases import Owner
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store

LOST = Reason(ReasonCode.MEMORY_LIMIT, "The child process was ended at 3072 MiB.")


def test_a_claimed_scan_is_not_claimed_twice(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan()
    claimed = store.leases.claim(Owner.current(), seconds=60.0)
    assert claimed is not None
    assert (claimed.id, claimed.attempts) == (scan_id, 1)
    assert store.leases.claim(Owner.current(), seconds=60.0) is None


def test_only_complete_scans_are_claimed(store: Store, add_scan: Callable[..., int]) -> None:
    for state in (ScanState.RECEIVING, ScanState.SCREENED, ScanState.DONE):
        add_scan(state)
    assert store.leases.claim(Owner.current(), seconds=60.0) is None


def test_a_scan_that_was_lost_waits_behind_the_others(store: Store, add_scan: Callable[..., int]) -> None:
    poison, good = add_scan(), add_scan()
    store.leases.claim(Owner.current(), seconds=60.0)
    store.leases.lose(poison, LOST, attempts=3)
    claimed = store.leases.claim(Owner.current(), seconds=60.0)
    assert claimed is not None
    assert claimed.id == good


def test_the_last_lost_attempt_is_a_failure_with_its_cause(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan()
    states = []
    for _ in range(3):
        store.leases.claim(Owner.current(), seconds=60.0)
        states.append(store.leases.lose(scan_id, LOST, attempts=3))
    assert states == [ScanState.COMPLETE, ScanState.COMPLETE, ScanState.FAILED]
    scan = store.scans.get(scan_id)
    assert scan.reason_code is ReasonCode.ATTEMPTS_EXHAUSTED
    assert "3072 MiB" in (scan.reason_text or "")
    assert [e.kind for e in store.events.waiting()] == [EventKind.ATTEMPT_LOST] * 3 + [EventKind.FAILED]


def test_a_scan_without_a_lease_cannot_be_lost(store: Store, add_scan: Callable[..., int]) -> None:
    assert store.leases.lose(add_scan(ScanState.DONE), LOST, attempts=1) is ScanState.DONE


def test_renewing_keeps_the_lease_and_only_its_owner_can(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id, me = add_scan(), Owner.current()
    store.leases.claim(me, seconds=10.0, now=0.0)
    assert store.leases.renew(scan_id, me, seconds=10.0, now=5.0)
    assert store.scans.get(scan_id).lease_deadline == 15.0
    assert not store.leases.renew(scan_id, replace(me, pid=me.pid + 1), seconds=10.0, now=6.0)


def test_a_living_owner_in_time_keeps_its_scan(store: Store, add_scan: Callable[..., int]) -> None:
    add_scan()
    store.leases.claim(Owner.current(), seconds=10.0, now=0.0)
    assert store.leases.take_back(attempts=3, now=9.0) == []


def test_a_living_owner_over_time_loses_its_scan(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.COMPLETE)
    store.leases.claim(Owner.current(), seconds=10.0, now=0.0)
    store.scans.advance(scan_id, ScanState.SCREENING, cause="test")
    assert store.leases.take_back(attempts=3, now=11.0) == [scan_id]
    scan = store.scans.get(scan_id)
    assert (scan.state, scan.lease_owner, scan.attempts) == (ScanState.COMPLETE, None, 1)


def test_the_clock_never_takes_a_scan_from_the_worker_that_asks(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan()
    store.leases.claim(Owner.current(), seconds=10.0, now=0.0)
    assert store.leases.take_back(attempts=3, keep=scan_id, now=1e12) == []


def test_a_dead_owner_loses_its_scan_at_once(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan()
    script = "from appliance.store.leases import Owner; print(Owner.current())"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    store.leases.claim(Owner.parse(ended.strip()), seconds=1e6)
    assert store.leases.take_back(attempts=3) == [scan_id]


def test_an_owner_of_another_boot_is_dead() -> None:
    me = Owner.current()
    assert me.alive()
    assert me.pid == os.getpid()
    assert not replace(me, boot_id="another").alive()
    assert not replace(me, start_ticks=me.start_ticks + 1).alive()
    assert Owner.parse(str(me)) == me


def test_a_release_does_not_count_as_an_attempt(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan()
    store.leases.claim(Owner.current(), seconds=10.0)
    store.scans.move(scan_id, ScanState.PLANNED, cause="child")
    store.leases.release(scan_id, cause="the service stops")
    scan = store.scans.get(scan_id)
    assert (scan.state, scan.attempts, scan.lease_owner) == (ScanState.COMPLETE, 0, None)
