"""Storage commitment that this box asks of a PACS: what was asked, what was reported, which objects are committed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from appliance.dicom.commitment_spool import CommitmentReport
    from appliance.store.database import Store

# Failure Reason (PS3.3 C.14.1.1) of what a report was asked about and does not mention: processing failure.
_NOT_MENTIONED = 0x0110


class CommitmentState(StrEnum):
    """Where a request of ours stands."""

    ASKED = "asked"
    COMMITTED = "committed"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class CommitmentRow:
    """One request of ours.

    Attributes
    ----------
    transaction_uid
        Made for it.
    outbox_key
        The delivery that it belongs to.
    state
        Where it stands.
    objects
        SOP Instance UIDs that it asked for.
    failures
        Failure reason by SOP Instance UID, as reported.
    counts
        Whether it counts towards the number of tries; not after a person or a change took the delivery up again.
    asked_at, deadline
        When it was asked, and until when it is waited for, Unix time.
    """

    transaction_uid: str
    outbox_key: str
    state: CommitmentState
    objects: tuple[str, ...]
    failures: dict[str, int]
    counts: bool
    asked_at: float
    deadline: float


class Commitments:
    """The ``commitments`` and ``committed_objects`` tables."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ask(
        self, transaction_uid: str, outbox_key: str, objects: Collection[str], *, deadline: float, at: float
    ) -> None:
        """Record a request before it is sent, so that its report is known whatever happens in between.

        Parameters
        ----------
        transaction_uid, outbox_key, objects
            See :class:`CommitmentRow`.
        deadline, at
            Until when it is waited for, and when it is asked, Unix time.
        """
        with self._store.atomic():
            self._store.insert(
                "commitments",
                {
                    "transaction_uid": transaction_uid,
                    "outbox_key": outbox_key,
                    "state": CommitmentState.ASKED.value,
                    "objects": json.dumps(sorted(objects)),
                    "asked_at": at,
                    "deadline": deadline,
                },
            )

    def withdraw(self, transaction_uid: str) -> None:
        """Forget a request that the PACS did not take."""
        with self._store.atomic():
            self._store.execute("DELETE FROM commitments WHERE transaction_uid = ?", (transaction_uid,))

    def expire(self, transaction_uid: str, *, at: float | None = None) -> None:
        """Record that a request is waited for no longer; its report counts also when it comes later."""
        with self._store.atomic():
            self._store.execute(
                """
                UPDATE commitments SET state = 'expired', finished_at = ?
                WHERE transaction_uid = ? AND state = 'asked'
                """,
                (time.time() if at is None else at, transaction_uid),
            )

    def stop_waiting(self, transaction_uid: str, *, at: float | None = None) -> None:
        """Record that nobody knows whether a request arrived: it is not waited for; a report counts if one comes."""
        with self._store.atomic():
            self._store.execute(
                """
                UPDATE commitments SET state = 'expired', counts = 0, finished_at = ?
                WHERE transaction_uid = ? AND state = 'asked'
                """,
                (time.time() if at is None else at, transaction_uid),
            )

    def apply(self, report: CommitmentReport, *, at: float | None = None) -> CommitmentRow | None:
        """Record a report: what is committed, and that what is not must be sent again.

        Only the first report of a transaction counts.

        Parameters
        ----------
        report
            As received.
        at
            Unix time; now by default.

        Returns
        -------
        CommitmentRow or None
            The request as it is now; ``None`` when this box never asked it, or has its report already.
        """
        now = time.time() if at is None else at
        with self._store.atomic():
            found = self._select("WHERE transaction_uid = ?", (report.transaction_uid,))
            if not found or found[0].state in {CommitmentState.COMMITTED, CommitmentState.FAILED}:
                return None
            row = found[0]
            failed = {item.sop_instance_uid: item.failure or _NOT_MENTIONED for item in report.failed}
            committed = {item.sop_instance_uid for item in report.committed} - failed.keys()
            failures = {uid: failed.get(uid, _NOT_MENTIONED) for uid in row.objects if uid not in committed}
            state = CommitmentState.FAILED if failures else CommitmentState.COMMITTED
            self._store.execute(
                "UPDATE commitments SET state = ?, failures = ?, finished_at = ? WHERE transaction_uid = ?",
                (state.value, json.dumps(failures), now, row.transaction_uid),
            )
            for uid in row.objects:
                if uid in failures:
                    self._store.execute(
                        "DELETE FROM confirmed_objects WHERE outbox_key = ? AND sop_instance_uid = ?",
                        (row.outbox_key, uid),
                    )
                else:
                    self._store.execute(
                        "INSERT INTO committed_objects VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                        (row.outbox_key, uid, now),
                    )
            return self._select("WHERE transaction_uid = ?", (report.transaction_uid,))[0]

    def committed(self, outbox_key: str) -> set[str]:
        """Return the SOP Instance UIDs of a delivery that are committed."""
        rows = self._store.rows("SELECT sop_instance_uid FROM committed_objects WHERE outbox_key = ?", (outbox_key,))
        return {row["sop_instance_uid"] for row in rows}

    def of_entry(self, outbox_key: str) -> list[CommitmentRow]:
        """Return every request for a delivery, oldest first."""
        return self._select("WHERE outbox_key = ? ORDER BY asked_at", (outbox_key,))

    def stop_counting(self, outbox_key: str) -> None:
        """Begin anew with the number of tries of a delivery."""
        with self._store.atomic():
            self._store.execute("UPDATE commitments SET counts = 0 WHERE outbox_key = ?", (outbox_key,))

    def _select(self, clause: str, parameters: tuple[object, ...]) -> list[CommitmentRow]:
        rows = self._store.rows(f"SELECT * FROM commitments {clause}", parameters)
        return [_row(row) for row in rows]


def _row(row: dict[str, Any]) -> CommitmentRow:
    return CommitmentRow(
        transaction_uid=row["transaction_uid"],
        outbox_key=row["outbox_key"],
        state=CommitmentState(row["state"]),
        objects=tuple(json.loads(row["objects"])),
        failures=json.loads(row["failures"]),
        counts=bool(row["counts"]),
        asked_at=row["asked_at"],
        deadline=row["deadline"],
    )
