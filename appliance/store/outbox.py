"""What must still be sent somewhere, with its attempts; a thing is put in once, however often it is put."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from appliance.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from appliance.store.database import Store


class OutboxState(StrEnum):
    """Where an entry stands."""

    WAITING = "waiting"
    DONE = "done"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One thing to send.

    Attributes
    ----------
    key
        Unique; says what is sent and where to.
    kind
        Which sender takes it, such as ``"pacs"``.
    destination
        Name of the destination, empty where the kind has only one.
    scan_id
        The scan it belongs to, where there is one.
    payload
        What the sender needs to find what it sends; a reference, not the thing.
    state, attempts, reason
        How it went so far; the reason is a sentence. One that is done has a reason when it was never confirmed.
    created_at, next_try_at
        Unix time.
    parked_for
        What a parked one waits for, in the sender's word; entries with the same word go on together.
    parked_with
        Digest of the settings that it was parked under.
    """

    key: str
    kind: str
    destination: str
    scan_id: int | None
    payload: dict[str, Any]
    state: OutboxState
    attempts: int
    reason: str | None
    created_at: float
    next_try_at: float
    parked_for: str | None
    parked_with: str | None


class Outbox:
    """The ``outbox`` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(
        self,
        key: str,
        kind: str,
        payload: Mapping[str, Any],
        *,
        destination: str = "",
        scan_id: int | None = None,
        priority: int = 0,
        at: float | None = None,
    ) -> bool:
        """Put something in; a key that is already there changes nothing.

        Parameters
        ----------
        key
            Unique; says what is sent and where to.
        kind, payload, destination, scan_id
            See :class:`OutboxEntry`.
        priority
            Of what is due the highest goes first; results have 0, alerts more.
        at
            Unix time; now by default.

        Returns
        -------
        bool
            Whether it was new.
        """
        now = time.time() if at is None else at
        with self._store.atomic():
            added = self._store.execute(
                """
                INSERT INTO outbox (key, kind, destination, scan_id, payload, priority, state, created_at, next_try_at)
                VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?, ?) ON CONFLICT (key) DO NOTHING
                """,
                (key, kind, destination, scan_id, json.dumps(dict(payload), sort_keys=True), priority, now, now),
            )
        return added > 0

    def due(
        self,
        kind: str | None = None,
        *,
        destination: str | None = None,
        now: float | None = None,
        longest_wait_s: float = 1e12,
        limit: int = 100,
    ) -> list[OutboxEntry]:
        """Return what may be tried now, by priority, and of one priority the longest due first.

        Parameters
        ----------
        kind, destination
            Only what is for these; everything by default.
        now
            Unix time; now by default.
        longest_wait_s
            What would wait longer than this is due as well: nobody planned that, so the clock was set back.
        limit
            Most entries returned.
        """
        moment = time.time() if now is None else now
        return self._select(
            """
            WHERE state = 'waiting' AND (next_try_at <= ? OR next_try_at > ?)
            AND (? IS NULL OR kind = ?) AND (? IS NULL OR destination = ?)
            ORDER BY priority DESC, next_try_at, id LIMIT ?
            """,
            (moment, moment + longest_wait_s, kind, kind, destination, destination, limit),
        )

    def hasten(self, kind: str, destination: str, *, at: float | None = None) -> None:
        """Make everything due that waits for a destination, because it answers again."""
        now = time.time() if at is None else at
        with self._store.atomic():
            self._store.execute(
                """
                UPDATE outbox SET next_try_at = ?
                WHERE state = 'waiting' AND kind = ? AND destination = ? AND next_try_at > ?
                """,
                (now, kind, destination, now),
            )

    def parked(self, kind: str, destination: str) -> list[OutboxEntry]:
        """Return what is parked for a destination, the oldest first."""
        return self._select("WHERE state = 'parked' AND kind = ? AND destination = ? ORDER BY id", (kind, destination))

    def of_scan(self, scan_id: int) -> list[OutboxEntry]:
        """Return everything that was put in for a scan."""
        return self._select("WHERE scan_id = ? ORDER BY id", (scan_id,))

    def get(self, key: str) -> OutboxEntry:
        """Return one entry.

        Raises
        ------
        StoreError
            There is none with this key.
        """
        entries = self._select("WHERE key = ?", (key,))
        if not entries:
            raise StoreError(f"The outbox holds nothing with the key {key}.")
        return entries[0]

    def done(self, key: str, *, at: float | None = None) -> None:
        """Record that the receiver has confirmed it; repeating it changes nothing."""
        self._update(key, "state = 'done', reason = NULL, finished_at = ?", (time.time() if at is None else at,))

    def give_up(self, key: str, reason: str, *, at: float | None = None) -> None:
        """Be done with an entry that nobody has confirmed and nobody will; repeating it changes nothing."""
        self._update(key, "state = 'done', reason = ?, finished_at = ?", (reason, time.time() if at is None else at))

    def failed(self, key: str, *, retry_at: float, reason: str) -> None:
        """Record a failed attempt and when to try again."""
        self._update(key, "attempts = attempts + 1, reason = ?, next_try_at = ?", (reason, retry_at))

    def put_off(self, key: str, *, until: float, reason: str) -> None:
        """Look again later although nothing has failed: the receiver takes its time."""
        self._update(key, "reason = ?, next_try_at = ?", (reason, until))

    def park(
        self,
        key: str,
        reason: str,
        *,
        waits_for: str | None = None,
        settings: str | None = None,
        at: float | None = None,
    ) -> None:
        """Stop trying until something was changed; the reason says what.

        Parameters
        ----------
        key
            Which entry.
        reason
            A sentence.
        waits_for
            The same in one word of the sender's.
        settings
            Digest of the settings that it was tried with.
        at
            Unix time; now by default.
        """
        self._update(
            key,
            "state = 'parked', attempts = attempts + 1, reason = ?, parked_for = ?, parked_with = ?, finished_at = ?",
            (reason, waits_for, settings, time.time() if at is None else at),
        )

    def withdraw(self, kind: str, destinations: Collection[str], reason: str, *, at: float | None = None) -> set[int]:
        """Be done with what waits or is parked for a destination that is none of these.

        Parameters
        ----------
        kind
            Which sender's entries.
        destinations
            The names that there still are.
        reason
            Why, kept with the entry.
        at
            Unix time; now by default.

        Returns
        -------
        set of int
            The scans that these entries belong to.
        """
        now = time.time() if at is None else at
        gone = [
            entry
            for entry in self._select("WHERE state != 'done' AND kind = ?", (kind,))
            if entry.destination not in destinations
        ]
        if gone:
            with self._store.atomic():
                for entry in gone:
                    self._store.execute(
                        "UPDATE outbox SET state = 'done', reason = ?, finished_at = ? WHERE key = ?",
                        (reason, now, entry.key),
                    )
        return {entry.scan_id for entry in gone if entry.scan_id is not None}

    def unpark(self, key: str, *, at: float | None = None) -> None:
        """Try a parked entry again."""
        now = time.time() if at is None else at
        with self._store.atomic():
            self._store.execute(
                """
                UPDATE outbox SET state = 'waiting', attempts = 0, finished_at = NULL, parked_for = NULL,
                parked_with = NULL, next_try_at = ?
                WHERE key = ? AND state = 'parked'
                """,
                (now, key),
            )

    def counts(self) -> dict[OutboxState, int]:
        """Return how many entries are in each state."""
        rows = self._store.rows("SELECT state, count(*) AS number FROM outbox GROUP BY state")
        return {OutboxState(row["state"]): row["number"] for row in rows}

    def oldest_waiting_at(self) -> float | None:
        """Return when the oldest entry that still waits was put in, Unix time."""
        rows = self._store.rows("SELECT min(created_at) AS at FROM outbox WHERE state = 'waiting'")
        oldest: float | None = rows[0]["at"]
        return oldest

    def _update(self, key: str, change: str, values: tuple[object, ...]) -> None:
        with self._store.atomic():
            changed = self._store.execute(
                f"UPDATE outbox SET {change} WHERE key = ? AND state = 'waiting'",
                (*values, key),
            )
            if not changed:
                self.get(key)  # done or parked already: nothing to change; unknown: an error

    def _select(self, clause: str, parameters: tuple[object, ...]) -> list[OutboxEntry]:
        rows = self._store.rows(f"SELECT * FROM outbox {clause}", parameters)
        return [
            OutboxEntry(
                key=row["key"],
                kind=row["kind"],
                destination=row["destination"],
                scan_id=row["scan_id"],
                payload=json.loads(row["payload"]),
                state=OutboxState(row["state"]),
                attempts=row["attempts"],
                reason=row["reason"],
                created_at=row["created_at"],
                next_try_at=row["next_try_at"],
                parked_for=row["parked_for"],
                parked_with=row["parked_with"],
            )
            for row in rows
        ]
