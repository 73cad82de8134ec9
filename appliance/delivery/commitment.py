"""Storage commitment of a delivery: asked when everything is stored, waited for, sent again, parked with a sentence.

A delivery is finished only when the PACS has reported that it keeps every object. The report may come on the
association that asked, or to the box's own DICOM port; either way it is a durable file first, and the deliver service's
main loop applies it (:mod:`appliance.delivery.commitment_inbox`).
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Final

import structlog

from appliance.delivery.errand import Outcome
from appliance.delivery.verdict import DOUBTFUL_TRIES, Verdict
from appliance.dicom.commitment_spool import ReferencedInstance
from appliance.dicom.network.commitment import CommitmentNode, ask
from appliance.dicom.network.commitment_data import FAILURE_WORDS
from appliance.dicom.network.link import Obstacle
from appliance.errors import ConfigurationError
from appliance.store.commitments import CommitmentState

if TYPE_CHECKING:
    import threading

    from appliance.delivery.node import PacsNode
    from appliance.delivery.objects import ResultObject
    from appliance.dicom.commitment_spool import CommitmentSpool
    from appliance.dicom.network.commitment import CommitmentAnswer
    from appliance.store.commitments import CommitmentRow
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry

log = structlog.get_logger()

MOST_TRIES = 3
"""Requests that may stay without a report; reports of failure, after each of which what failed is sent again."""

UNANSWERED: Final = "commitment_unanswered"
FAILED: Final = "commitment_failed"
NOT_OFFERED: Final = "commitment_not_offered"
REFUSED: Final = "commitment_refused"
CAUSES: Final = frozenset({UNANSWERED, FAILED, NOT_OFFERED, REFUSED})
"""What a delivery that is parked for storage commitment waits for."""

_LOOK_AGAIN_S = 60.0
_LINGER_S = 3.0
_WAITING = "The PACS has every object; its report of storage commitment is waited for."


class Committer:
    """Asks one destination for storage commitment.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    node
        The destination.
    spool
        Where reports are kept that come on the association that asked.
    stop
        Once it is set, nothing is waited for.
    linger_s
        How long that association is kept open for one.
    """

    def __init__(
        self,
        store: Store,
        node: PacsNode,
        spool: CommitmentSpool,
        stop: threading.Event,
        *,
        linger_s: float = _LINGER_S,
    ) -> None:
        self._store = store
        self._node = node
        self._spool = spool
        self._stop = stop
        self._linger_s = linger_s

    def outcome(self, entry: OutboxEntry, objects: list[ResultObject]) -> Outcome:
        """Go on with a delivery of which the PACS has acknowledged every object.

        Parameters
        ----------
        entry
            The delivery.
        objects
            Everything that the destination is to have of it.

        Returns
        -------
        Outcome
            Finished, to be looked at later (with ``until``), to be tried again, or for a person.
        """
        committed = self._store.commitments.committed(entry.key)
        open_objects = [item for item in objects if item.sop_instance_uid not in committed]
        if not open_objects:
            return Outcome(Verdict.THERE, asked=False)
        rows = self._store.commitments.of_entry(entry.key)
        now = time.time()
        for row in rows:
            if row.state is CommitmentState.ASKED:
                # A deadline farther off than any this box sets means that the clock was set back.
                if now < row.deadline <= now + self._node.commitment_timeout_s:
                    return self._wait(row.deadline, now)
                self._store.commitments.expire(row.transaction_uid)
        for_a_person = self._given_up(self._store.commitments.of_entry(entry.key))
        if for_a_person is None:
            return self._ask(entry, open_objects)
        # Whoever takes it up again begins with all tries.
        self._store.commitments.stop_counting(entry.key)
        return for_a_person

    def _wait(self, deadline: float, now: float) -> Outcome:
        return Outcome(Verdict.AGAIN, None, _WAITING, asked=False, until=min(deadline, now + _LOOK_AGAIN_S))

    def _given_up(self, rows: list[CommitmentRow]) -> Outcome | None:
        counted = [row for row in rows if row.counts]
        failed = [row for row in counted if row.state is CommitmentState.FAILED]
        if len(failed) >= MOST_TRIES:
            return Outcome(Verdict.PERSON, FAILED, self._failed_sentence(failed[-1]), asked=False)
        if sum(row.state is CommitmentState.EXPIRED for row in counted) >= MOST_TRIES:
            return Outcome(Verdict.PERSON, UNANSWERED, self._unanswered_sentence(), asked=False)
        return None

    def _ask(self, entry: OutboxEntry, objects: list[ResultObject]) -> Outcome:
        node = self._node
        transaction = f"2.25.{uuid.uuid4().int}"
        now = time.time()
        deadline = now + node.commitment_timeout_s
        uids = [item.sop_instance_uid for item in objects]
        self._store.commitments.ask(transaction, entry.key, uids, deadline=deadline, at=now)
        try:
            answer = ask(
                transaction,
                tuple(ReferencedInstance(item.sop_class_uid, item.sop_instance_uid) for item in objects),
                CommitmentNode(node.address, node.port, node.ae_title, node.calling_ae, node.tls, node.timeout_s),
                spool=self._spool,
                linger_s=self._linger_s,
                stop=self._stop,
            )
        except ConfigurationError as error:
            self._store.commitments.withdraw(transaction)
            return Outcome(Verdict.AGAIN, "tls", str(error), away=True)
        if answer.problem is None:
            log.info("commitment_asked", destination=node.name, scan=entry.scan_id, objects=len(objects))
            return Outcome(Verdict.AGAIN, None, _WAITING, until=min(deadline, now + _LOOK_AGAIN_S))
        if answer.status is not None or answer.obstacle is not Obstacle.NETWORK:
            # Not taken for certain. Without an answer it may have been, and a report may still come.
            self._store.commitments.withdraw(transaction)
        else:
            self._store.commitments.stop_waiting(transaction)
        return self._refusal(entry, answer)

    def _refusal(self, entry: OutboxEntry, answer: CommitmentAnswer) -> Outcome:
        node = self._node
        problem = answer.problem or ""
        if answer.obstacle is Obstacle.SOP_CLASS:
            sentence = (
                f'The PACS "{node.name}" has the objects and does not offer storage commitment '
                f"(1.2.840.10008.1.20.1): switch it on there for {node.calling_ae}, or set commitment = false in "
                f'deliver.destinations "{node.name}".'
            )
            return Outcome(Verdict.PERSON, NOT_OFFERED, sentence)
        if answer.obstacle is Obstacle.STATUS and (answer.permanent or entry.attempts + 1 >= DOUBTFUL_TRIES):
            sentence = (
                f"{problem} It has the objects and does not take the request for storage commitment: ask its "
                f'administrator what it logged, or set commitment = false in deliver.destinations "{node.name}".'
            )
            return Outcome(Verdict.PERSON, REFUSED, sentence)
        if answer.permanent:
            return Outcome(Verdict.PERSON, answer.obstacle, f"{problem} It has the objects already.")
        return Outcome(Verdict.AGAIN, answer.obstacle, problem, away=answer.obstacle is not Obstacle.STATUS)

    def _failed_sentence(self, row: CommitmentRow) -> str:
        reasons = ", ".join(
            f"0x{code:04X} {FAILURE_WORDS.get(code, 'a reason of its own')}"
            for code in sorted(set(row.failures.values()))
        )
        return (
            f'The PACS "{self._node.name}" acknowledged the objects {MOST_TRIES} times and reported each time that it '
            f"does not keep {len(row.failures)} of them ({reasons}): ask its administrator what it logged, then "
            f'`appliance retry`; or set commitment = false in deliver.destinations "{self._node.name}".'
        )

    def _unanswered_sentence(self) -> str:
        node = self._node
        return (
            f'The PACS "{node.name}" has the objects, took {MOST_TRIES} requests for storage commitment and reported '
            f"none within {node.commitment_timeout_s:g} s: enter this box there with AE title {node.calling_ae}, its "
            "address and its DICOM port so that it can report, and the PACS here under receive.peers; or set "
            f'commitment = false in deliver.destinations "{node.name}".'
        )
