"""Self-tests of the packs: the health service asks for one, the work service, which may run networks, answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.store.database import Store

_KEPT = 100


@dataclass(frozen=True, slots=True)
class SelfTestRow:
    """One self-test.

    Attributes
    ----------
    id
        Grows with time.
    asked_at, began_at, ended_at
        Unix time; ``None`` for what has not happened.
    passed, failed
        How many packs computed what they should, and how many did not; ``None`` until it has ended.
    """

    id: int
    asked_at: float
    began_at: float | None
    ended_at: float | None
    passed: int | None
    failed: int | None


class SelfTests:
    """The ``self_tests`` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ask(self, *, at: float | None = None) -> int:
        """Ask for a self-test and return its number; of the older ones the newest hundred stay."""
        with self._store.atomic():
            number = self._store.insert("self_tests", {"asked_at": time.time() if at is None else at})
            self._store.execute("DELETE FROM self_tests WHERE id <= ?", (number - _KEPT,))
            return number

    def get(self, number: int) -> SelfTestRow | None:
        """Return one, ``None`` when it is not known any more."""
        rows = self._store.rows("SELECT * FROM self_tests WHERE id = ?", (number,))
        return SelfTestRow(**rows[0]) if rows else None

    def open(self) -> SelfTestRow | None:
        """Return the oldest that has not ended."""
        rows = self._store.rows("SELECT * FROM self_tests WHERE ended_at IS NULL ORDER BY id LIMIT 1")
        return SelfTestRow(**rows[0]) if rows else None

    def begin(self, number: int, *, at: float | None = None) -> None:
        """Record that it runs; one that was cut short begins anew."""
        with self._store.atomic():
            moment = time.time() if at is None else at
            self._store.execute("UPDATE self_tests SET began_at = ? WHERE id = ?", (moment, number))

    def end(self, number: int, *, passed: int, failed: int, at: float | None = None) -> None:
        """Record how it ended."""
        with self._store.atomic():
            self._store.execute(
                "UPDATE self_tests SET ended_at = ?, passed = ?, failed = ? WHERE id = ? AND ended_at IS NULL",
                (time.time() if at is None else at, passed, failed, number),
            )
