"""Turns measurements into one word, healthy, degraded or down, and the problems behind it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from appliance.health.model import Condition, PackTrust, PeerRole, Problem, Queue, SelfTest, ServiceName, ServiceState
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.health.model import Disk, Machine, Pack, Peer, Service
    from appliance.store.database import Store

# Alerts and results carry times; beyond this they cannot be put in order with the scanner's.
CLOCK_TOLERANCE_S = 5.0

_WAITING = (ScanState.COMPLETE, ScanState.PLANNED, ScanState.SCREENING)
_DOWN = {
    Problem.STORE_UNREADABLE,
    Problem.DISK_FULL,
    Problem.RECEIVE_ABSENT,
    Problem.WORK_ABSENT,
}


def queue(store: Store, *, stalled_after_s: float, now: float | None = None) -> Queue:
    """Summarise the database.

    Parameters
    ----------
    store
        Opened, also read-only.
    stalled_after_s
        Scans that wait this long while none finishes mean that the work is stalled.
    now
        Unix time.
    """
    moment = time.time() if now is None else now
    summary = store.scans.summary(last=0, now=moment)
    outbox = store.outbox.counts()
    oldest_at = store.outbox.oldest_waiting_at()
    oldest_s = max((summary.oldest_s[state] for state in _WAITING if state in summary.oldest_s), default=None)
    finished_age_s = None if summary.last_finished_at is None else max(0.0, moment - summary.last_finished_at)
    newest_at = store.newest_at()
    idle_s = oldest_s if finished_age_s is None or oldest_s is None else min(oldest_s, finished_age_s)
    return Queue(
        by_state=summary.counts,
        oldest_waiting_s=oldest_s,
        last_finished_age_s=finished_age_s,
        outbox_waiting=outbox.get(OutboxState.WAITING, 0),
        outbox_parked=outbox.get(OutboxState.PARKED, 0),
        outbox_oldest_s=None if oldest_at is None else max(0.0, moment - oldest_at),
        clock_behind_s=0.0 if newest_at is None else max(0.0, newest_at - moment),
        stalled=idle_s is not None and idle_s > stalled_after_s,
    )


def assess(
    *,
    machine: Machine,
    disk: Disk,
    services: Sequence[Service],
    queue: Queue | None,
    packs: Sequence[Pack] | None,
    peers: Sequence[Peer],
) -> tuple[Condition, tuple[Problem, ...]]:
    """Return the box in one word and why, in the order of the vocabulary."""
    absent = {service.name for service in services if service.state is ServiceState.ABSENT}
    destinations = [peer for peer in peers if peer.role is PeerRole.DESTINATION]  # a lost broker is not the box's fault
    present = {
        Problem.RECEIVE_ABSENT: ServiceName.RECEIVE in absent,
        Problem.WORK_ABSENT: ServiceName.WORK in absent,
        Problem.DELIVER_ABSENT: ServiceName.DELIVER in absent,
        Problem.HEALTH_ABSENT: ServiceName.HEALTH in absent,
        Problem.BOARD_ABSENT: ServiceName.BOARD in absent,
        Problem.SERVICE_SILENT: any(service.state is ServiceState.SILENT for service in services),
        Problem.DISK_LOW: disk.reserve_mib <= disk.free_mib < disk.soft_free_mib,
        Problem.DISK_FULL: disk.free_mib < disk.reserve_mib,
        Problem.WORK_STALLED: queue is not None and queue.stalled,
        Problem.PACK_FAILED: packs is None or any(pack.self_test is SelfTest.FAILED for pack in packs),
        Problem.PACK_UNSIGNED: any(pack.trust is PackTrust.UNSIGNED for pack in packs or ()),
        Problem.PEER_UNREACHABLE: any(not peer.reachable or peer.echo is False for peer in destinations),
        Problem.CLOCK_WRONG: _clock_wrong(machine, queue),
        Problem.STORE_UNREADABLE: queue is None,
    }
    problems = tuple(problem for problem in Problem if present[problem])
    if not problems:
        return Condition.HEALTHY, ()
    return (Condition.DOWN if _DOWN.intersection(problems) else Condition.DEGRADED), problems


def _clock_wrong(machine: Machine, queue: Queue | None) -> bool:
    """Whether the clock is known to be wrong; one that nobody checks is not."""
    if queue is not None and queue.clock_behind_s > CLOCK_TOLERANCE_S:
        return True  # it was right when it was later, or it is right now and was wrong then
    if machine.clock_synchronised:
        return abs(machine.clock_offset_s or 0.0) > CLOCK_TOLERANCE_S
    return max(abs(machine.clock_offset_s or 0.0), abs(machine.clock_stepped_s)) > CLOCK_TOLERANCE_S
