"""Takes the outbox's entries to one destination.

A peer that is away is asked again after longer and longer waits, and only one entry asks for all. What is refused for
good is parked with the setting to change, and goes on when that was changed on either side: after a change of the
destination's settings here, or when a trial, made now and then with one parked entry, goes through.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from appliance.delivery.verdict import Verdict
from appliance.dicom.network.link import Obstacle

if TYPE_CHECKING:
    import threading

    from appliance.delivery.backoff import Backoff
    from appliance.delivery.errand import Errand, Outcome
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry

log = structlog.get_logger()

_WHOLE_PEER = frozenset({
    Obstacle.CALLING_AE_TITLE, Obstacle.CALLED_AE_TITLE, Obstacle.REFUSED, Obstacle.AUTHENTICATION, Obstacle.URL,
})  # fmt: skip
_ENTRIES_AT_ONCE = 20
_TRIAL_INTERVAL_S = 3600.0

# One entry that a peer cannot digest must not hold up the others; several in a row mean that the peer is ill.
_FAILING_MEANS_AWAY = 3


class Courier:
    """Serves one destination.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    errand
        What is taken where.
    backoff
        Waiting times between tries.
    stop
        Once it is set nothing more is begun, and no answer is waited for.
    """

    def __init__(self, store: Store, errand: Errand, backoff: Backoff, stop: threading.Event) -> None:
        self._store = store
        self._errand = errand
        self._backoff = backoff
        self._stop = stop
        self._digest = errand.digest()
        self._failures = 0
        self._failing: set[str] = set()
        self._quiet_until = 0.0
        self._trial_at = 0.0
        self._refused = False

    def begin(self) -> None:
        """Take up what was parked under other settings of this destination; call it once, when the service starts.

        Raises
        ------
        StoreError
            The database cannot be used.
        """
        for entry in self._store.outbox.parked(self._errand.kind, self._errand.name):
            if entry.parked_with != self._digest:
                self._store.deliveries.resume(entry, cause="the destination's settings were changed")

    def round(self) -> bool:
        """Try what is due.

        It may be interrupted at any line and called again: at most the object in hand is sent a second time, as the
        same SOP instance.

        Returns
        -------
        bool
            Whether more may be due already, so that the next round need not wait.

        Raises
        ------
        StoreError
            The database cannot be used.
        """
        if time.monotonic() < self._quiet_until:
            return False
        due = self._store.outbox.due(
            self._errand.kind,
            destination=self._errand.name,
            longest_wait_s=self._backoff.longest_s,
            limit=_ENTRIES_AT_ONCE,
        )
        for entry in due:
            outcome = self._errand.attempt(entry)
            if self._stop.is_set():
                return False
            self._record(entry, outcome)
            if time.monotonic() < self._quiet_until:
                return False
        if time.monotonic() >= self._trial_at:
            self._trial_at = time.monotonic() + _TRIAL_INTERVAL_S
            self._try_parked()
        return len(due) == _ENTRIES_AT_ONCE

    def _record(self, entry: OutboxEntry, outcome: Outcome) -> None:
        if outcome.until is not None:
            self._store.outbox.put_off(entry.key, until=outcome.until, reason=outcome.sentence)
            if outcome.asked:
                self._note_answer(outcome)
            return
        if outcome.verdict is Verdict.AGAIN:
            self._put_off(entry, outcome)
            return
        if outcome.verdict is Verdict.THERE:
            self._store.outbox.done(entry.key)
            log.info("delivered", destination=self._errand.name, scan=entry.scan_id)
        else:
            self._store.outbox.park(entry.key, outcome.sentence, waits_for=outcome.obstacle, settings=self._digest)
            log.warning("delivery_parked", destination=self._errand.name, scan=entry.scan_id, obstacle=outcome.obstacle)
        if outcome.asked:
            self._note_answer(outcome)

    def _put_off(self, entry: OutboxEntry, outcome: Outcome) -> None:
        if outcome.asked:
            self._failing.add(entry.key)
        away = outcome.away or (outcome.asked and len(self._failing) >= _FAILING_MEANS_AWAY)
        wait_s = self._backoff.wait_s(1 + (self._failures if away else entry.attempts))
        wait_s = max(wait_s, min(outcome.wait_s, self._backoff.longest_s))
        self._store.outbox.failed(entry.key, retry_at=time.time() + wait_s, reason=outcome.sentence)
        log.warning(
            "delivery_put_off",
            destination=self._errand.name,
            scan=entry.scan_id,
            obstacle=outcome.obstacle,
            attempts=entry.attempts + 1,
            wait_s=round(wait_s),
        )
        if away:
            self._failures += 1
            self._quiet_until = time.monotonic() + wait_s

    def _note_answer(self, outcome: Outcome) -> None:
        self._failing.clear()
        if self._failures:
            # It answers again: what was put off while it was away need not wait longer.
            self._store.outbox.hasten(self._errand.kind, self._errand.name)
            self._failures = 0
        if outcome.obstacle in _WHOLE_PEER:
            self._refused = True
        elif outcome.verdict is Verdict.THERE and self._refused:
            self._refused = False
            self._trial_at = 0.0

    def _try_parked(self) -> None:
        """Send one parked entry of each cause; where it goes through, all parked for that cause go on."""
        causes: dict[str | None, list[OutboxEntry]] = {}
        for entry in self._store.outbox.parked(self._errand.kind, self._errand.name):
            causes.setdefault(entry.parked_for, []).append(entry)
        for entries in causes.values():
            outcome = self._errand.attempt(entries[0])
            if self._stop.is_set() or outcome.away:
                return
            if outcome.verdict is Verdict.THERE:
                self._resume(entries)

    def _resume(self, entries: list[OutboxEntry]) -> None:
        """Let entries go on, the first of which has just gone through."""
        with self._store.atomic():
            for entry in entries:
                self._store.deliveries.resume(entry, cause="the destination was mended")
            self._store.outbox.done(entries[0].key)
