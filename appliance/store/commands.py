"""What the fleet has asked the box to do: each command once, and each answer until the broker has it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from appliance.store.database import Store

#: So many commands are remembered. Those that may still be valid are fewer: see :mod:`appliance.health.commands`.
COMMANDS_KEPT = 1000


class Outcome(StrEnum):
    """What became of a command."""

    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command that has no answer yet.

    Attributes
    ----------
    command_id
        Given by the fleet.
    command
        Its name.
    accepted_at
        Unix time.
    """

    command_id: str
    command: str
    accepted_at: float


@dataclass(frozen=True, slots=True)
class ReplyRow:
    """One answer.

    Attributes
    ----------
    id
        Grows with time.
    command_id, command
        What it answers.
    outcome, code
        How it stands, and why.
    numbers
        Facts as numbers.
    at
        Unix time.
    """

    id: int
    command_id: str
    command: str
    outcome: Outcome
    code: str | None
    numbers: dict[str, float]
    at: float


class Commands:
    """The ``commands`` and ``command_replies`` tables."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def accept(self, command_id: str, command: str, *, at: float | None = None) -> bool:
        """Remember a command and answer that it was accepted, in one transaction.

        Returns
        -------
        bool
            ``False`` when this id was seen before, whatever became of it: nothing changes then.
        """
        return self._enter(command_id, command, Outcome.ACCEPTED, None, at)

    def refuse(self, command_id: str, command: str, code: str, *, at: float | None = None) -> bool:
        """Remember a command that is refused for good, and answer so; see :meth:`accept`."""
        return self._enter(command_id, command, Outcome.REFUSED, code, at)

    def end(
        self,
        command_id: str,
        outcome: Outcome,
        *,
        code: str | None = None,
        numbers: Mapping[str, float] | None = None,
        at: float | None = None,
    ) -> bool:
        """Record how an accepted command ended and answer so; only the first end counts."""
        moment = time.time() if at is None else at
        with self._store.atomic():
            if not self._store.execute(
                "UPDATE commands SET ended_at = ? WHERE command_id = ? AND ended_at IS NULL", (moment, command_id)
            ):
                return False
            self._reply(command_id, outcome, code, numbers or {}, moment)
        return True

    def unended(self) -> list[CommandRow]:
        """Return the accepted commands that have not ended, oldest first."""
        rows = self._store.rows(
            "SELECT command_id, command, accepted_at FROM commands WHERE ended_at IS NULL ORDER BY id"
        )
        return [CommandRow(**row) for row in rows]

    def replies(self, limit: int = 50, *, without: Collection[int] = ()) -> list[ReplyRow]:
        """Return the oldest answers that the broker does not have yet."""
        rows = self._store.rows(
            """
            SELECT r.id, r.command_id, c.command, r.outcome, r.code, r.numbers, r.at FROM command_replies r
            JOIN commands c USING (command_id) WHERE r.published_at IS NULL ORDER BY r.id LIMIT ?
            """,
            (limit + len(without),),
        )
        found = [
            ReplyRow(**row | {"outcome": Outcome(row["outcome"]), "numbers": json.loads(row["numbers"])})
            for row in rows
        ]
        return [row for row in found if row.id not in without][:limit]

    def published(self, reply_id: int, *, at: float | None = None) -> None:
        """Record that the broker has acknowledged an answer."""
        with self._store.atomic():
            moment = time.time() if at is None else at
            self._store.execute("UPDATE command_replies SET published_at = ? WHERE id = ?", (moment, reply_id))

    def _enter(self, command_id: str, command: str, outcome: Outcome, code: str | None, at: float | None) -> bool:
        moment = time.time() if at is None else at
        with self._store.atomic():
            entered = self._store.execute(
                """
                INSERT INTO commands (command_id, command, accepted_at, ended_at) VALUES (?, ?, ?, ?)
                ON CONFLICT (command_id) DO NOTHING
                """,
                (command_id, command, moment, moment if outcome is Outcome.REFUSED else None),
            )
            if not entered:
                return False
            self._reply(command_id, outcome, code, {}, moment)
            self._store.execute("DELETE FROM commands WHERE id <= (SELECT max(id) FROM commands) - ?", (COMMANDS_KEPT,))
        return True

    def _reply(
        self, command_id: str, outcome: Outcome, code: str | None, numbers: Mapping[str, float], at: float
    ) -> None:
        row = {
            "command_id": command_id,
            "outcome": outcome.value,
            "code": code,
            "numbers": json.dumps(dict(numbers), sort_keys=True),
            "at": at,
        }
        self._store.insert("command_replies", row)
