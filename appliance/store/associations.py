"""Associations as the spool holds them: open, closed with a reason, fully indexed, pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.store.database import Store


@dataclass(frozen=True, slots=True)
class AssociationRow:
    """One association.

    Attributes
    ----------
    name
        Its folder in the spool.
    closed_reason
        How it ended, ``None`` while it is open.
    indexed
        Whether all of its instances are in the database.
    """

    name: str
    closed_reason: str | None
    indexed: bool


class Associations:
    """The ``associations`` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def see(self, name: str, *, at: float, calling_ae_title: str | None = None) -> None:
        """Record that an association exists, and who called where that is known; repeating it changes nothing."""
        with self._store.atomic():
            self._store.execute(
                """
                INSERT INTO associations (name, first_seen_at, calling_ae_title) VALUES (?, ?, ?)
                ON CONFLICT (name) DO NOTHING
                """,
                (name, at, calling_ae_title),
            )

    def close(self, name: str, reason: str, *, at: float) -> None:
        """Record how an association ended; the first reason stays."""
        with self._store.atomic():
            self._store.execute(
                """
                UPDATE associations SET closed_reason = ?, closed_at = ?
                WHERE name = ? AND closed_reason IS NULL
                """,
                (reason, at, name),
            )

    def mark_indexed(self, name: str) -> None:
        """Record that the folder of a closed association holds nothing that the database does not know."""
        with self._store.atomic():
            self._store.execute(
                "UPDATE associations SET indexed = 1 WHERE name = ? AND closed_reason IS NOT NULL", (name,)
            )

    def mark_pruned(self, name: str, *, at: float) -> None:
        """Record that the folder of an association was deleted on purpose."""
        with self._store.atomic():
            self._store.execute("UPDATE associations SET pruned_at = ? WHERE name = ?", (at, name))

    def forget(self, *, pruned_before: float, limit: int = 50) -> int:
        """Delete the rows of associations whose folders were deleted before a time, with their instances.

        After that the box no longer knows these instances: sent again, they make a new revision.

        Returns
        -------
        int
            How many associations were forgotten; at most ``limit``, so that the write lock is not held for long.
        """
        with self._store.atomic():
            rows = self._store.rows(
                "SELECT name FROM associations WHERE pruned_at < ? ORDER BY pruned_at LIMIT ?", (pruned_before, limit)
            )
            for row in rows:
                self._store.execute("DELETE FROM instances WHERE association = ?", (row["name"],))
                self._store.execute("DELETE FROM associations WHERE name = ?", (row["name"],))
        return len(rows)

    def all(self) -> list[AssociationRow]:
        """Return the associations whose folders still exist as far as the database knows."""
        rows = self._store.rows(
            "SELECT name, closed_reason, indexed FROM associations WHERE pruned_at IS NULL ORDER BY name"
        )
        return [AssociationRow(row["name"], row["closed_reason"], bool(row["indexed"])) for row in rows]

    def prunable(self, *, finished_before: float, failed_before: float) -> list[str]:
        """Return the associations, oldest first, none of whose scans still waits for anything.

        Parameters
        ----------
        finished_before
            Unix time; every scan that uses an instance of the association finished before it.
        failed_before
            The same for scans that have failed, whose images somebody may still want to look into.
        """
        rows = self._store.rows(
            """
            SELECT a.name FROM associations a
            WHERE a.indexed = 1 AND a.pruned_at IS NULL AND a.closed_at < :before AND NOT EXISTS (
                SELECT 1 FROM instances i
                JOIN scans first ON first.id = i.scan_id
                JOIN scans s ON s.study_instance_uid = first.study_instance_uid
                    AND s.series_instance_uid = first.series_instance_uid AND s.revision >= first.revision
                WHERE i.association = a.name AND i.disposition = 'used'
                    AND (s.finished_at IS NULL
                        OR s.finished_at >= CASE s.state WHEN 'failed' THEN :failed ELSE :before END))
            ORDER BY a.first_seen_at, a.name
            """,
            {"before": finished_before, "failed": failed_before},
        )
        return [row["name"] for row in rows]
