"""What the fleet must be told, kept until it was told or is too old to matter.

Enumerations and numbers only, so that nothing else can leak.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.errors import StoreError
from appliance.reasons import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from appliance.store.database import Store

_NUMBER_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class EventKind(StrEnum):
    """What happened."""

    STARTED = "started"
    DEGRADED = "degraded"
    RECOVERED = "recovered"
    WATCHDOG = "watchdog"
    CLOCK_STEPPED = "clock_stepped"
    DATABASE_RECOVERED = "database_recovered"
    PACK_ACTIVATED = "pack_activated"
    PACK_FAILED = "pack_failed"
    UNREADABLE_INSTANCE = "unreadable_instance"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    LATE_INSTANCES = "late_instances"
    ATTEMPT_LOST = "attempt_lost"
    REFUSED = "refused"
    FAILED = "failed"
    PARKED = "parked"
    OBJECTS_MISSING = "objects_missing"
    ALERT_ESCALATED = "alert_escalated"
    ALERT_COMMAND_FAILED = "alert_command_failed"


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes
    ----------
    id
        Grows with time.
    kind
        What happened.
    at
        Unix time.
    scan_id
        Opaque number of the scan, where there is one.
    reason
        From the closed vocabulary.
    numbers
        Facts as numbers.
    """

    id: int
    kind: EventKind
    at: float
    scan_id: int | None
    reason: ReasonCode | None
    numbers: dict[str, float]


class Events:
    """The ``events`` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record(
        self,
        kind: EventKind,
        *,
        scan_id: int | None = None,
        reason: ReasonCode | None = None,
        numbers: Mapping[str, float] | None = None,
        at: float | None = None,
    ) -> int:
        """Keep an event until it is published.

        Raises
        ------
        StoreError
            A number is not a finite number, or its name is not a plain lower-case word.
        """
        checked = {name: _number(name, value) for name, value in (numbers or {}).items()}
        with self._store.atomic():
            row = {
                "kind": EventKind(kind).value,
                "at": time.time() if at is None else at,
                "scan_id": scan_id,
                "reason_code": ReasonCode(reason).value if reason is not None else None,
                "numbers": json.dumps(checked, sort_keys=True),
            }
            return self._store.insert("events", row)

    def waiting(self, limit: int = 100, *, without: Collection[int] = ()) -> list[Event]:
        """Return the oldest events that were not published yet.

        Parameters
        ----------
        limit
            How many at most.
        without
            Ids of events that it is pointless to try at present; they do not stand in the way of newer ones.
        """
        oldest = self._select("WHERE published_at IS NULL ORDER BY id LIMIT ?", limit + len(without))
        return [event for event in oldest if event.id not in without][:limit]

    def last(self, limit: int = 100) -> list[Event]:
        """Return the newest events, oldest first, whether they were published or not."""
        return self._select("ORDER BY id DESC LIMIT ?", limit)[::-1]

    def published(self, event_id: int, *, at: float | None = None) -> None:
        """Record that the broker has acknowledged an event."""
        with self._store.atomic():
            self._store.execute(
                "UPDATE events SET published_at = ? WHERE id = ?",
                (time.time() if at is None else at, event_id),
            )

    def forget(self, *, published_before: float, happened_before: float, keep: int) -> int:
        """Delete events whose time is over, and return how many.

        Parameters
        ----------
        published_before
            Unix time; for events that the fleet was told.
        happened_before
            Unix time; for all, so that a box without a broker does not gather them for ever.
        keep
            How many of the newest stay at most.
        """
        with self._store.atomic():
            return self._store.execute(
                """
                DELETE FROM events WHERE published_at < ? OR at < ?
                    OR id <= (SELECT max(id) FROM events) - ?
                """,
                (published_before, happened_before, keep),
            )

    def _select(self, clause: str, limit: int) -> list[Event]:
        rows = self._store.rows(f"SELECT * FROM events {clause}", (limit,))
        return [
            Event(
                id=row["id"],
                kind=EventKind(row["kind"]),
                at=row["at"],
                scan_id=row["scan_id"],
                reason=ReasonCode(row["reason_code"]) if row["reason_code"] else None,
                numbers=json.loads(row["numbers"]),
            )
            for row in rows
        ]


def _number(name: str, value: float) -> float:
    if not _NUMBER_NAME.fullmatch(name) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StoreError(f"An event carries finite numbers with plain names only, not {name!r}.")
    return value
