"""Alerts: raised with the result that causes them, told to every channel through the outbox, acknowledged by a person.

An alert and what its channels must be told of it are written in one transaction, so that it is durable before anybody
hears of it and nothing is told twice as two different alerts.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from appliance.errors import StoreError
from appliance.store.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from appliance.store.database import Store

#: From the least to the most pressing; the words of :class:`appliance.screenings.contract.Urgency`.
URGENCIES = ("routine", "soon", "urgent")
_RANK = "CASE urgency WHEN 'urgent' THEN 3 WHEN 'soon' THEN 2 ELSE 1 END"


class AlertState(StrEnum):
    """Where an alert stands."""

    OPEN = "open"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"


class AlertStep(StrEnum):
    """What a channel is told of an alert."""

    RAISED = "raised"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"


class ChannelKind(StrEnum):
    """Who is told of alerts; the kind of its outbox entries."""

    MQTT = "mqtt"
    COMMAND = "command"
    HL7 = "hl7"


class CommandOutcome(StrEnum):
    """How a run of the command ended."""

    EXITED = "exited"
    KILLED = "killed"
    TIMED_OUT = "timed_out"
    NOT_STARTED = "not_started"


# An HL7 receiver files messages and has no lamp to put out.
_TOLD = {
    ChannelKind.MQTT: frozenset(AlertStep),
    ChannelKind.COMMAND: frozenset(AlertStep),
    ChannelKind.HL7: frozenset({AlertStep.RAISED, AlertStep.ESCALATED}),
}


@dataclass(frozen=True, slots=True)
class AlertChannel:
    """One receiver of alerts.

    Attributes
    ----------
    kind
        How it is told.
    destination
        Its name, empty where there is only one of the kind.
    """

    kind: ChannelKind
    destination: str = ""


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Which findings raise an alert, and who is told of it.

    Attributes
    ----------
    least_urgency
        The least urgency that raises one; ``None`` raises none.
    screenings
        The same for single screenings, by name.
    channels
        Who is told.
    """

    least_urgency: str | None = URGENCIES[-1]
    screenings: Mapping[str, str | None] = field(default_factory=dict)
    channels: tuple[AlertChannel, ...] = ()

    def raises(self, screening: str, urgency: str) -> bool:
        """Return whether a finding of a screening raises an alert."""
        least = self.screenings.get(screening, self.least_urgency)
        return least is not None and URGENCIES.index(urgency) >= URGENCIES.index(least)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes
    ----------
    id
        Grows with time and is never used again.
    scan_id
        Opaque number of the scan.
    screening
        Name of the screening that found something.
    urgency
        ``routine``, ``soon`` or ``urgent``.
    raised_at
        Unix time.
    state
        Where it stands.
    escalated_at, acknowledged_at
        Unix time, where it was.
    acknowledged_by
        The name that a person gave; it stays on the box.
    """

    id: int
    scan_id: int
    screening: str
    urgency: str
    raised_at: float
    state: AlertState
    escalated_at: float | None
    acknowledged_at: float | None
    acknowledged_by: str | None


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


class Alerts:
    """The ``alerts`` table, and the outbox as the alerts need it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def raise_for(
        self,
        scan_id: int,
        screenings: Sequence[tuple[str, str]],
        *,
        channels: Sequence[AlertChannel] = (),
        at: float | None = None,
    ) -> list[int]:
        """Raise an alert for each screening, in one transaction with what its channels must be told.

        Call it after the scan's findings were stored. Repeating it changes nothing. What an earlier revision of the
        series has raised already is not raised again, acknowledged or not, unless its urgency rose or something was
        found that was not there: another code, or another site.

        Parameters
        ----------
        scan_id
            The scan.
        screenings
            Names of screenings, each with its urgency.
        channels
            Who is told.
        at
            Unix time; now by default.

        Returns
        -------
        list of int
            Ids of the alerts that are new.
        """
        now = time.time() if at is None else at
        raised = []
        with self._store.atomic():
            for screening, urgency in screenings:
                if self._known(scan_id, screening, urgency):
                    continue
                alert_id = self._store.insert(
                    "alerts",
                    {
                        "scan_id": scan_id,
                        "screening": screening,
                        "urgency": urgency,
                        "raised_at": now,
                        "state": AlertState.OPEN.value,
                    },
                )
                for channel in channels:
                    self._tell(channel, alert_id, urgency, AlertStep.RAISED, now)
                raised.append(alert_id)
        return raised

    def get(self, alert_id: int) -> Alert:
        """Return one alert.

        Raises
        ------
        StoreError
            There is none with this id.
        """
        alerts = self._select("WHERE id = ?", (alert_id,))
        if not alerts:
            raise StoreError(f"There is no alert {alert_id}.")
        return alerts[0]

    def unacknowledged(self, limit: int = 100) -> list[Alert]:
        """Return what nobody has acknowledged, the most urgent first and of these the oldest first."""
        return self._select(f"WHERE state != 'acknowledged' ORDER BY {_RANK} DESC, id LIMIT ?", (limit,))

    def recent(self, limit: int = 100) -> list[Alert]:
        """Return the newest alerts in any state, the newest first."""
        return self._select("ORDER BY id DESC LIMIT ?", (limit,))

    def counts(self) -> dict[AlertState, int]:
        """Return how many alerts are in each state."""
        rows = self._store.rows("SELECT state, count(*) AS number FROM alerts GROUP BY state")
        return dict.fromkeys(AlertState, 0) | {AlertState(row["state"]): row["number"] for row in rows}

    def acknowledge(self, alert_id: int, by: str, *, at: float | None = None) -> bool:
        """Record that a person has seen an alert; everybody who was told of it is told that too, without the name.

        Parameters
        ----------
        alert_id
            Which alert.
        by
            Who; the first name stays.
        at
            Unix time; now by default.

        Returns
        -------
        bool
            ``False`` when it was acknowledged already.

        Raises
        ------
        StoreError
            There is no such alert, or no name.
        """
        now = time.time() if at is None else at
        name = by.strip()
        if not name:
            raise StoreError(f"Alert {alert_id} is acknowledged by somebody: a name is needed.")
        with self._store.atomic():
            alert = self.get(alert_id)
            if alert.state is AlertState.ACKNOWLEDGED:
                return False
            self._store.execute(
                "UPDATE alerts SET state = 'acknowledged', acknowledged_at = ?, acknowledged_by = ? WHERE id = ?",
                (now, name, alert_id),
            )
            self._tell_everybody(alert, AlertStep.ACKNOWLEDGED, now)
        return True

    def let_wait(self, seconds: float) -> bool:
        """Add to the time that open alerts have waited, measured on a clock that nobody sets.

        Returns
        -------
        bool
            Whether any alert is open.
        """
        if not self._store.rows("SELECT 1 FROM alerts WHERE state = 'open' LIMIT 1"):
            return False
        with self._store.atomic():
            self._store.execute("UPDATE alerts SET waited_s = waited_s + ? WHERE state = 'open'", (max(0.0, seconds),))
        return True

    def escalate_overdue(
        self, raised_before: float = math.inf, *, waited_s: float = 0.0, at: float | None = None
    ) -> list[Alert]:
        """Escalate the open alerts that nobody has acknowledged for too long; each escalates once.

        Parameters
        ----------
        raised_before
            Unix time; only those that were raised before it. It is as wrong as the box's clock may be.
        waited_s
            Only those that have waited so long according to :meth:`let_wait`, whatever the clock says.
        at
            Unix time; now by default.

        Returns
        -------
        list of Alert
            Those that are escalated now, the most urgent and oldest first.
        """
        now = time.time() if at is None else at
        with self._store.atomic():
            overdue = self._select(
                f"WHERE state = 'open' AND raised_at < ? AND waited_s >= ? ORDER BY {_RANK} DESC, id",
                (raised_before, waited_s),
            )
            for alert in overdue:
                self._store.execute(
                    "UPDATE alerts SET state = 'escalated', escalated_at = ? WHERE id = ?", (now, alert.id)
                )
                self._tell_everybody(alert, AlertStep.ESCALATED, now)
                self._store.events.record(EventKind.ALERT_ESCALATED, scan_id=alert.scan_id, at=now)
            return [self.get(alert.id) for alert in overdue]

    def record_command(self, run: CommandRun) -> None:
        """Keep how a run of the command ended."""
        with self._store.atomic():
            self._store.insert("alert_commands", asdict(run))

    def commands(self, alert_id: int) -> list[CommandRun]:
        """Return the runs of the command for an alert, the oldest first."""
        rows = self._store.rows("SELECT * FROM alert_commands WHERE alert_id = ? ORDER BY id", (alert_id,))
        return [
            CommandRun(
                alert_id=row["alert_id"],
                step=AlertStep(row["step"]),
                ran_at=row["ran_at"],
                seconds=row["seconds"],
                outcome=CommandOutcome(row["outcome"]),
                exit_status=row["exit_status"],
            )
            for row in rows
        ]

    def _known(self, scan_id: int, screening: str, urgency: str) -> bool:
        """Return whether this scan, or an earlier revision with the same finding, has raised it already."""
        earlier = self._select(
            """
            JOIN scans s ON s.id = alerts.scan_id JOIN scans this ON this.id = ?
            WHERE screening = ? AND (s.id = this.id OR (s.study_instance_uid = this.study_instance_uid
                AND s.series_instance_uid = this.series_instance_uid AND s.revision < this.revision))
            """,
            (scan_id, screening),
        )
        if any(alert.scan_id == scan_id for alert in earlier):
            return True
        as_urgent = [alert for alert in earlier if URGENCIES.index(alert.urgency) >= URGENCIES.index(urgency)]
        found_before = set().union(*(self._found(alert.scan_id, screening) for alert in as_urgent))
        return bool(as_urgent) and self._found(scan_id, screening) <= found_before

    def _found(self, scan_id: int, screening: str) -> set[tuple[str, str]]:
        rows = self._store.rows(
            "SELECT DISTINCT code, site FROM findings WHERE scan_id = ? AND screening = ?", (scan_id, screening)
        )
        return {(row["code"], row["site"]) for row in rows}

    def _tell_everybody(self, alert: Alert, step: AlertStep, now: float) -> None:
        """Tell the channels that were told when it was raised, whatever is configured by now."""
        rows = self._store.rows(
            "SELECT kind, destination FROM outbox WHERE key GLOB ? ORDER BY id",
            (f"{_key(alert.id, AlertStep.RAISED)}/*",),
        )
        for row in rows:
            channel = AlertChannel(ChannelKind(row["kind"]), row["destination"])
            self._tell(channel, alert.id, alert.urgency, step, now)

    def _tell(self, channel: AlertChannel, alert_id: int, urgency: str, step: AlertStep, now: float) -> None:
        if step in _TOLD[channel.kind]:
            # No scan: what a channel is told of an alert does not keep the scan's results from being delivered.
            self._store.outbox.put(
                f"{_key(alert_id, step)}/{channel.kind}/{channel.destination}",
                channel.kind.value,
                {"alert": alert_id, "step": step.value},
                destination=channel.destination,
                priority=1 + URGENCIES.index(urgency),
                at=now,
            )

    def _select(self, clause: str, parameters: tuple[object, ...]) -> list[Alert]:
        return [_alert(row) for row in self._store.rows(f"SELECT alerts.* FROM alerts {clause}", parameters)]


def _key(alert_id: int, step: AlertStep) -> str:
    return f"alert/{alert_id}/{step.value}"


def _alert(row: dict[str, Any]) -> Alert:
    return Alert(
        id=row["id"],
        scan_id=row["scan_id"],
        screening=row["screening"],
        urgency=row["urgency"],
        raised_at=row["raised_at"],
        state=AlertState(row["state"]),
        escalated_at=row["escalated_at"],
        acknowledged_at=row["acknowledged_at"],
        acknowledged_by=row["acknowledged_by"],
    )
