"""Alerts: raised with the result that causes them, escalated when nobody comes, acknowledged by a person.

An alert and what its channels must be told of it are written in one transaction, so that it is durable before anybody
hears of it and nothing is told twice as two different alerts.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from appliance.errors import StoreError
from appliance.store.alert_rules import URGENCIES
from appliance.store.announcements import AlertStep
from appliance.store.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.store.alert_rules import AlertChannel
    from appliance.store.database import Store

_RANK = "CASE urgency WHEN 'urgent' THEN 3 WHEN 'soon' THEN 2 ELSE 1 END"


class AlertState(StrEnum):
    """Where an alert stands."""

    OPEN = "open"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"


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


class Alerts:
    """The ``alerts`` table."""

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
                    self._store.announcements.begin(channel, alert_id, priority=_priority(urgency), at=now)
                raised.append(alert_id)
        return raised

    def get(self, alert_id: int) -> Alert:
        """Return one alert.

        Raises
        ------
        StoreError
            There is none with this id.
        """
        alert = self.find(alert_id)
        if alert is None:
            raise StoreError(f"There is no alert {alert_id}.")
        return alert

    def find(self, alert_id: int) -> Alert | None:
        """Return one alert, ``None`` when there is none with this id."""
        return next(iter(self._select("WHERE id = ?", (alert_id,))), None)

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
            self._store.announcements.go_on(alert_id, AlertStep.ACKNOWLEDGED, priority=_priority(alert.urgency), at=now)
        return True

    def newest(self) -> int:
        """Return the highest id, 0 without any alert."""
        return int(self._store.rows("SELECT coalesce(max(id), 0) AS id FROM alerts")[0]["id"])

    def let_wait(self, seconds: float, *, up_to: int) -> bool:
        """Add to the time that open alerts have waited, measured on a clock that nobody sets.

        Parameters
        ----------
        seconds
            How long.
        up_to
            Id of the newest alert that has waited so long.

        Returns
        -------
        bool
            Whether any of them is open.
        """
        if not self._store.rows("SELECT 1 FROM alerts WHERE state = 'open' AND id <= ? LIMIT 1", (up_to,)):
            return False
        with self._store.atomic():
            changed = self._store.execute(
                "UPDATE alerts SET waited_s = waited_s + ? WHERE state = 'open' AND id <= ?", (seconds, up_to)
            )
        return changed > 0

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
                self._store.announcements.go_on(
                    alert.id, AlertStep.ESCALATED, priority=_priority(alert.urgency), at=now
                )
                self._store.events.record(EventKind.ALERT_ESCALATED, scan_id=alert.scan_id, at=now)
            return [self.get(alert.id) for alert in overdue]

    def forget(self, *, acknowledged_before: float, keep: int, limit: int = 1000) -> int:
        """Delete alerts whose time is over with all that belongs to them, and return how many.

        Parameters
        ----------
        acknowledged_before
            Unix time. What nobody has acknowledged has no such end: the clock may be wrong.
        keep
            How many of the newest stay at most, acknowledged or not.
        limit
            How many are deleted at most, so that the database is not locked for long.
        """
        with self._store.atomic():
            over = self._select(
                "WHERE acknowledged_at < ? OR id <= (SELECT max(id) FROM alerts) - ? ORDER BY id LIMIT ?",
                (acknowledged_before, keep, limit),
            )
            for alert in over:
                self._store.announcements.forget(alert.id)
                self._store.execute("DELETE FROM alerts WHERE id = ?", (alert.id,))
        return len(over)

    def _known(self, scan_id: int, screening: str, urgency: str) -> bool:
        """Return whether this scan, or an earlier revision with the same finding, has raised it already."""
        earlier = self._select(
            """
            JOIN scans s ON s.id = alerts.scan_id JOIN scans this ON this.id = ?
            WHERE screening = ? AND s.study_instance_uid = this.study_instance_uid
                AND s.series_instance_uid = this.series_instance_uid AND s.revision <= this.revision
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

    def _select(self, clause: str, parameters: tuple[object, ...]) -> list[Alert]:
        return [_alert(row) for row in self._store.rows(f"SELECT alerts.* FROM alerts {clause}", parameters)]


def _priority(urgency: str) -> int:
    """Return the outbox's priority of an alert; results have 0."""
    return 1 + URGENCIES.index(urgency)


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
