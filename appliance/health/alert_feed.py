"""Tells the fleet of alerts over MQTT: each stays in the outbox until the broker has it, the most urgent goes first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.health.model import Alert
from appliance.store.alert_rules import AlertChannel, ChannelKind
from appliance.store.announcements import AlertStep
from appliance.store.database import open_database

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.health.publisher import Publisher
    from appliance.store.announcements import Announcement

CHANNEL = AlertChannel(ChannelKind.MQTT)
LEAF = "alerts"
# So many are handed to the client at a time, so that a storm after days without a broker needs no memory to speak of.
_AT_ONCE = 200
_LONGEST_WAIT_S = 60.0


def message(announcement: Announcement) -> Alert:
    """Return what is published of a step: never who acknowledged it, and nothing else that a person wrote."""
    alert = announcement.alert
    times = {
        AlertStep.RAISED: alert.raised_at,
        AlertStep.ESCALATED: alert.escalated_at,
        AlertStep.ACKNOWLEDGED: alert.acknowledged_at,
    }
    at = times[announcement.step]
    return Alert(
        id=alert.id,
        step=announcement.step,
        at=datetime.fromtimestamp(alert.raised_at if at is None else at, UTC),
        raised_at=datetime.fromtimestamp(alert.raised_at, UTC),
        screening=alert.screening,
        urgency=alert.urgency,
        scan=alert.scan_id,
        appliance_version=__version__,
    )


class AlertFeed:
    """What is told and what the broker has acknowledged of it.

    Parameters
    ----------
    publisher
        The connection; this feed is used by the thread that publishes events.
    database
        The SQLite file, opened for moments only.
    """

    def __init__(self, publisher: Publisher, database: Path) -> None:
        self._publisher = publisher
        self._database = database

    def round(self) -> bool:
        """Note what was acknowledged, hand over what waits, and return whether anything is under way.

        Raises
        ------
        StoreError
            The database cannot be used; what was acknowledged meanwhile is told once more.
        """
        told = self._publisher.take_acknowledged(LEAF)
        if told:
            with open_database(self._database, check=False) as store:
                store.announcements.told(sorted(told))
        if not self._publisher.connected:
            return False
        refused = self._publisher.refused_of(LEAF)
        with open_database(self._database, read_only=True) as store:
            due = store.announcements.due(CHANNEL, limit=_AT_ONCE, longest_wait_s=_LONGEST_WAIT_S, without=refused)
        for announcement in due:
            self._publisher.publish_entry(LEAF, announcement.number, message(announcement).to_payload())
        return bool(due)
