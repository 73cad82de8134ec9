"""Deliveries to a PACS: what is there already, what goes on once it is mended, how each destination stands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry

KIND = "pacs"
_KINDS = (KIND, "hl7")  # a name of a destination is there once among both


@dataclass(frozen=True, slots=True)
class DestinationRow:
    """How the deliveries to one destination stand.

    Attributes
    ----------
    name
        Name of the destination.
    waiting, parked
        Scans whose delivery waits for its next try, or for somebody to change something.
    next_try_at
        When the first of those that wait is tried, Unix time.
    reason
        The latest sentence of a try that failed; of those that are parked, where there are any.
    """

    name: str
    waiting: int
    parked: int
    next_try_at: float | None
    reason: str | None


class Deliveries:
    """The ``confirmed_objects`` table, and the outbox as the deliveries to a PACS need it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def confirm(self, key: str, sop_instance_uid: str, status: int, *, at: float | None = None) -> None:
        """Record that the receiver has an object of an outbox entry; repeating it changes nothing.

        Parameters
        ----------
        key
            The outbox entry's.
        sop_instance_uid
            Of the object.
        status
            Of the receiver's answer (PS3.4 Annex B.2.3).
        at
            Unix time; now by default.
        """
        with self._store.atomic():
            self._store.execute(
                "INSERT INTO confirmed_objects VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key, sop_instance_uid, status, time.time() if at is None else at),
            )

    def confirmed(self, key: str) -> dict[str, int]:
        """Return the SOP Instance UIDs that the receiver has of an entry, each with the status of its answer."""
        rows = self._store.rows("SELECT * FROM confirmed_objects WHERE outbox_key = ?", (key,))
        return {row["sop_instance_uid"]: row["status"] for row in rows}

    def resume(self, entry: OutboxEntry, *, cause: str, at: float | None = None) -> None:
        """Take up a parked entry and its scan again.

        Parameters
        ----------
        entry
            One that is parked; any other stays as it is.
        cause
            For the scan's history.
        at
            Unix time; now by default.
        """
        with self._store.atomic():
            self._store.outbox.unpark(entry.key, at=at)
            if entry.scan_id is not None and self._store.scans.get(entry.scan_id).state is ScanState.PARKED:
                self._store.scans.move(entry.scan_id, ScanState.DELIVERING, cause=cause, at=at)

    def unsettled(self, limit: int = 1000) -> list[int]:
        """Return the ids of the delivering scans for which nothing waits any more, the oldest first."""
        rows = self._store.rows(
            """
            SELECT id FROM scans WHERE state = 'delivering' AND NOT EXISTS
            (SELECT 1 FROM outbox WHERE outbox.scan_id = scans.id AND outbox.state = 'waiting') ORDER BY id LIMIT ?
            """,
            (limit,),
        )
        return [int(row["id"]) for row in rows]

    def destinations(self) -> list[DestinationRow]:
        """Return each destination for which something waits or is parked, by name."""
        rows = self._store.rows(
            """
            SELECT destination, sum(state = 'waiting') AS waiting, sum(state = 'parked') AS parked,
                min(CASE WHEN state = 'waiting' THEN next_try_at END) AS next_try_at
            FROM outbox WHERE kind IN (?, ?) AND state <> 'done' GROUP BY destination ORDER BY destination
            """,
            _KINDS,
        )
        return [
            DestinationRow(
                row["destination"],
                row["waiting"],
                row["parked"],
                row["next_try_at"],
                self._latest_reason(row["destination"], "parked" if row["parked"] else "waiting"),
            )
            for row in rows
        ]

    def _latest_reason(self, destination: str, state: str) -> str | None:
        rows = self._store.rows(
            """
            SELECT reason FROM outbox WHERE kind IN (?, ?) AND destination = ? AND state = ? AND reason IS NOT NULL
            ORDER BY id DESC LIMIT 1
            """,
            (*_KINDS, destination, state),
        )
        return str(rows[0]["reason"]) if rows else None
