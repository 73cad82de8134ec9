"""Takes the outbox's entries to one PACS: one association for each scan, each object confirmed durably as it arrives.

A peer that is away is asked again after longer and longer waits, and only one scan asks for all. What is refused for
good is parked with the setting to change, and goes on when that was changed on either side: after a change of the
destination's settings here, or when a trial, made now and then with one parked scan, goes through.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from appliance.delivery.objects import FOLDER, ObjectsUnreadableError, read_objects
from appliance.delivery.verdict import DOUBTFUL_TRIES, Judgement, Verdict, judge
from appliance.dicom.network.link import Obstacle
from appliance.dicom.network.sender import send
from appliance.errors import ConfigurationError
from appliance.store.deliveries import KIND

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from appliance.delivery.backoff import Backoff
    from appliance.delivery.node import PacsNode
    from appliance.delivery.objects import ResultObject
    from appliance.dicom.network.sender import FileResult
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry

log = structlog.get_logger()

NOTHING_TO_SEND = "nothing_to_send"
_ASSOCIATION = frozenset({Obstacle.CALLING_AE_TITLE, Obstacle.CALLED_AE_TITLE, Obstacle.REFUSED})
_ENTRIES_AT_ONCE = 20
_TRIAL_INTERVAL_S = 3600.0

# One scan that a peer cannot digest must not hold up the others; several in a row mean that the peer is ill.
_FAILING_MEANS_AWAY = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one entry.

    Attributes
    ----------
    verdict
        :attr:`Verdict.THERE` when nothing of it is left to send.
    obstacle
        What stands in the way, in one word.
    sentence
        The same for whoever must act.
    away
        Whether the peer as a whole was not to be had, so that nothing else need try now.
    asked
        Whether the peer was asked at all; what ends on this box says nothing of the peer.
    """

    verdict: Verdict
    obstacle: str | None = None
    sentence: str = ""
    away: bool = False
    asked: bool = True


class Courier:
    """Serves one destination.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    results
        The folder of the results folders.
    node
        The destination.
    backoff
        Waiting times between tries.
    stop
        Once it is set nothing more is begun, and no answer is waited for.
    """

    def __init__(self, store: Store, results: Path, node: PacsNode, backoff: Backoff, stop: threading.Event) -> None:
        self._store = store
        self._results = results
        self._node = node
        self._backoff = backoff
        self._stop = stop
        self._digest = node.digest()
        self._failures = 0
        self._failing: set[str] = set()
        self._quiet_until = 0.0
        self._trial_at = 0.0
        self._refused = False
        self.objects_sent = 0

    def begin(self) -> None:
        """Take up what was parked under other settings of this destination; call it once, when the service starts.

        Raises
        ------
        StoreError
            The database cannot be used.
        """
        for entry in self._store.outbox.parked(KIND, self._node.name):
            if entry.parked_with != self._digest:
                self._store.deliveries.resume(entry, cause="the destination's settings were changed")

    def round(self) -> None:
        """Try what is due.

        It may be interrupted at any line and called again: at most the object in hand is sent a second time, as the
        same SOP instance.

        Raises
        ------
        StoreError
            The database cannot be used.
        """
        if time.monotonic() < self._quiet_until:
            return
        due = self._store.outbox.due(
            KIND, destination=self._node.name, longest_wait_s=self._backoff.longest_s, limit=_ENTRIES_AT_ONCE
        )
        for entry in due:
            outcome = self._attempt(entry)
            if self._stop.is_set():
                return
            self._record(entry, outcome)
            if time.monotonic() < self._quiet_until:
                return
        if time.monotonic() >= self._trial_at:
            self._trial_at = time.monotonic() + _TRIAL_INTERVAL_S
            self._try_parked()

    def _record(self, entry: OutboxEntry, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.AGAIN:
            self._put_off(entry, outcome)
            return
        if outcome.verdict is Verdict.THERE:
            self._store.outbox.done(entry.key)
            log.info("delivered", destination=self._node.name, scan=entry.scan_id)
        else:
            self._store.outbox.park(entry.key, outcome.sentence, waits_for=outcome.obstacle, settings=self._digest)
            log.warning("delivery_parked", destination=self._node.name, scan=entry.scan_id, obstacle=outcome.obstacle)
        if outcome.asked:
            self._note_answer(outcome)

    def _put_off(self, entry: OutboxEntry, outcome: Outcome) -> None:
        if outcome.asked:
            self._failing.add(entry.key)
        away = outcome.away or (outcome.asked and len(self._failing) >= _FAILING_MEANS_AWAY)
        wait_s = self._backoff.wait_s(1 + (self._failures if away else entry.attempts))
        self._store.outbox.failed(entry.key, retry_at=time.time() + wait_s, reason=outcome.sentence)
        log.warning(
            "delivery_put_off",
            destination=self._node.name,
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
            self._store.outbox.hasten(KIND, self._node.name)
            self._failures = 0
        if outcome.obstacle in _ASSOCIATION:
            self._refused = True
        elif outcome.verdict is Verdict.THERE and self._refused:
            self._refused = False
            self._trial_at = 0.0

    def _try_parked(self) -> None:
        """Send one parked entry of each cause; where it goes through, all parked for that cause go on."""
        causes: dict[str | None, list[OutboxEntry]] = {}
        for entry in self._store.outbox.parked(KIND, self._node.name):
            causes.setdefault(entry.parked_for, []).append(entry)
        for entries in causes.values():
            outcome = self._attempt(entries[0])
            if self._stop.is_set() or outcome.away:
                return
            if outcome.verdict is Verdict.THERE:
                for entry in entries:
                    self._store.deliveries.resume(entry, cause="the destination was mended")

    def _attempt(self, entry: OutboxEntry) -> Outcome:
        """Send what the destination does not have yet; of the entry itself nothing is changed."""
        folder = str(entry.payload["folder"])
        try:
            objects = read_objects(self._results / folder)
        except ObjectsUnreadableError as error:
            return Outcome(Verdict.PERSON, Obstacle.FILE, str(error), asked=False)
        except OSError as error:
            sentence = f"The scan's objects cannot be read: {error.strerror}."
            return Outcome(Verdict.AGAIN, Obstacle.FILE, sentence, asked=False)
        if not objects:
            sentence = (
                f"There are no DICOM objects in results/{folder}/{FOLDER}: they could not be made (the log of the work "
                "service says why), results.objects is empty, or an earlier release screened this scan. "
                "Read the result with `appliance results`."
            )
            return Outcome(Verdict.PERSON, NOTHING_TO_SEND, sentence, asked=False)
        confirmed = self._store.deliveries.confirmed(entry.key)
        missing = [item for item in objects if self._wants(item) and item.sop_instance_uid not in confirmed]
        if not missing:
            return Outcome(Verdict.THERE, asked=False)
        return self._send(entry, missing)

    def _wants(self, item: ResultObject) -> bool:
        return item.kind is None or item.kind in self._node.kinds

    def _send(self, entry: OutboxEntry, objects: list[ResultObject]) -> Outcome:
        node = self._node
        by_path = {item.path: item for item in objects}

        def confirm(result: FileResult) -> None:
            item = by_path[result.path]
            if judge(item, result, node).verdict is Verdict.THERE:
                self._store.deliveries.confirm(entry.key, item.sop_instance_uid, result.status or 0)
                self.objects_sent += 1

        try:
            report = send(
                by_path,
                host=node.address,
                port=node.port,
                called_ae=node.ae_title,
                calling_ae=node.calling_ae,
                tls=node.tls,
                timeout_s=node.timeout_s,
                on_result=confirm,
                stop=self._stop,
            )
        except ConfigurationError as error:
            # Not parked: a certificate that is renewed in its place mends it, and nobody would tell us.
            return Outcome(Verdict.AGAIN, "tls", str(error), away=True)
        judgements = [
            judge(by_path[result.path], result, node, permanent=report.permanent) for result in report.results
        ]
        away = report.problem is not None and not report.permanent
        return _sum_up(judgements, tries=entry.attempts + 1, away=away)


def _sum_up(judgements: list[Judgement], *, tries: int, away: bool) -> Outcome:
    """Join the objects' judgements: what may still pass is tried again before anything is parked."""
    last_try = tries >= DOUBTFUL_TRIES
    by_verdict: dict[Verdict, list[Judgement]] = {}
    for judgement in judgements:
        verdict = judgement.verdict
        if verdict is Verdict.DOUBTFUL:
            verdict = Verdict.PERSON if last_try else Verdict.AGAIN
        by_verdict.setdefault(verdict, []).append(judgement)
    again, person = by_verdict.get(Verdict.AGAIN, []), by_verdict.get(Verdict.PERSON, [])
    sentences = dict.fromkeys(item.sentence for item in (*person, *again) if item.sentence)
    text = " ".join(sentences)
    if again:
        return Outcome(Verdict.AGAIN, again[0].obstacle, text, away=away)
    if person:
        return Outcome(Verdict.PERSON, person[0].obstacle, text)
    return Outcome(Verdict.THERE)
