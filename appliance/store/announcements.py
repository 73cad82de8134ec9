"""What each channel must still be told of each alert: entries of the outbox, one for each step of an alert's life.

Every step of one alert has the same number, so that whoever is told twice after a crash knows that it is one alert.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.store.alert_rules import AlertChannel, ChannelKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from appliance.store.alerts import Alert
    from appliance.store.database import Store


class AlertStep(StrEnum):
    """What a channel is told of an alert."""

    RAISED = "raised"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"


# An HL7 receiver files messages and has no lamp to put out.
_TOLD = {
    ChannelKind.MQTT: frozenset(AlertStep),
    ChannelKind.COMMAND: frozenset(AlertStep),
    ChannelKind.HL7: frozenset({AlertStep.RAISED, AlertStep.ESCALATED}),
}


class CommandOutcome(StrEnum):
    """How a run of the command ended."""

    EXITED = "exited"
    KILLED = "killed"
    TIMED_OUT = "timed_out"
    NOT_STARTED = "not_started"


@dataclass(frozen=True, slots=True)
class CommandRun:
    """One run of the command that was told of an alert.

    Attributes
    ----------
    alert_id, step
        What it was told.
    ran_at, seconds
        Unix time of its start, and how long it ran.
    outcome
        How it ended.
    exit_status
        Where it ended by itself.
    """

    alert_id: int
    step: AlertStep
    ran_at: float
    seconds: float
    outcome: CommandOutcome
    exit_status: int | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """One thing that one channel must be told.

    Attributes
    ----------
    number, key
        The outbox entry's.
    step
        What happened.
    alert
        The alert as it stands now.
    attempts
        How often telling it has failed.
    """

    number: int
    key: str
    step: AlertStep
    alert: Alert
    attempts: int


class Announcements:
    """The outbox as the alerts need it, and the ``alert_commands`` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, channel: AlertChannel, alert_id: int, *, priority: int, at: float) -> None:
        """Tell a channel that an alert is raised; in the transaction that raises it."""
        self._tell(channel, alert_id, AlertStep.RAISED, priority, at)

    def go_on(self, alert_id: int, step: AlertStep, *, priority: int, at: float) -> None:
        """Tell whoever was told when the alert was raised, whatever is configured by now."""
        rows = self._store.rows(
            "SELECT kind, destination FROM outbox WHERE key GLOB ? ORDER BY id",
            (f"{_stem(alert_id)}{AlertStep.RAISED.value}/*",),
        )
        for row in rows:
            self._tell(AlertChannel(ChannelKind(row["kind"]), row["destination"]), alert_id, step, priority, at)

    def due(
        self,
        channel: AlertChannel,
        *,
        limit: int = 100,
        longest_wait_s: float = 1e12,
        without: Collection[int] = (),
        now: float | None = None,
    ) -> list[Announcement]:
        """Return what a channel may be told now, the most urgent first, and of one urgency in the order it happened.

        Parameters
        ----------
        channel
            Who.
        limit
            Most that are returned.
        longest_wait_s
            What would wait longer than this is due as well: nobody planned that, so the clock was set back.
        without
            Numbers of entries that it is pointless to try at present; they do not stand in the way of others.
        now
            Unix time; now by default.
        """
        moment = time.time() if now is None else now
        rows = self._store.rows(
            """
            SELECT id, key, attempts, json_extract(payload, '$.alert') AS alert, json_extract(payload, '$.step') AS step
            FROM outbox WHERE state = 'waiting' AND kind = ? AND destination = ? AND key GLOB 'alert/*'
            AND (next_try_at <= ? OR next_try_at > ?) ORDER BY priority DESC, id LIMIT ?
            """,
            (channel.kind.value, channel.destination, moment, moment + longest_wait_s, limit + len(without)),
        )
        chosen = [row for row in rows if row["id"] not in without][:limit]
        return [
            Announcement(
                number=row["id"],
                key=row["key"],
                step=AlertStep(row["step"]),
                alert=self._store.alerts.get(row["alert"]),
                attempts=row["attempts"],
            )
            for row in chosen
        ]

    def told(self, numbers: Iterable[int], *, at: float | None = None) -> None:
        """Record that whoever had to be told has confirmed these; repeating it changes nothing."""
        now = time.time() if at is None else at
        with self._store.atomic():
            for number in numbers:
                self._store.execute(
                    "UPDATE outbox SET state = 'done', finished_at = ? WHERE id = ? AND state = 'waiting'",
                    (now, number),
                )

    def record(self, run: CommandRun) -> None:
        """Keep how a run of the command ended."""
        with self._store.atomic():
            self._store.insert("alert_commands", asdict(run))

    def commands(self, alert_id: int) -> list[CommandRun]:
        """Return the runs of the command for an alert, the oldest first."""
        return self._runs("WHERE alert_id = ? ORDER BY id", (alert_id,))

    def last_command(self) -> CommandRun | None:
        """Return the last run of the command for any alert."""
        return next(iter(self._runs("ORDER BY id DESC LIMIT 1", ())), None)

    def forget(self, alert_id: int) -> None:
        """Delete everything that belongs to an alert; in the transaction that deletes it."""
        self._store.execute("DELETE FROM outbox WHERE key GLOB ?", (f"{_stem(alert_id)}*",))
        self._store.execute("DELETE FROM alert_commands WHERE alert_id = ?", (alert_id,))

    def _runs(self, clause: str, parameters: tuple[object, ...]) -> list[CommandRun]:
        return [
            CommandRun(
                alert_id=row["alert_id"],
                step=AlertStep(row["step"]),
                ran_at=row["ran_at"],
                seconds=row["seconds"],
                outcome=CommandOutcome(row["outcome"]),
                exit_status=row["exit_status"],
            )
            for row in self._store.rows(f"SELECT * FROM alert_commands {clause}", parameters)
        ]

    def _tell(self, channel: AlertChannel, alert_id: int, step: AlertStep, priority: int, at: float) -> None:
        if step in _TOLD[channel.kind]:
            # No scan: what a channel is told of an alert does not keep the scan's results from being delivered.
            self._store.outbox.put(
                f"{_stem(alert_id)}{step.value}/{channel.kind.value}/{channel.destination}",
                channel.kind.value,
                {"alert": alert_id, "step": step.value},
                destination=channel.destination,
                priority=priority,
                at=at,
            )


def _stem(alert_id: int) -> str:
    return f"alert/{alert_id}/"
