"""The rules of alerts as the configuration gives them; what is told to whom is settled when an alert is raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.store.alert_rules import AlertChannel, AlertRules, ChannelKind

if TYPE_CHECKING:
    from appliance.config import Settings


def alert_rules(settings: Settings) -> AlertRules:
    """Return which findings raise an alert and every configured channel that is told of it."""
    alerts = settings.alerts
    screenings: dict[str, str] = alerts.screenings.model_dump()
    return AlertRules(
        least_urgency=_level(alerts.urgency),
        screenings={name: _level(level) for name, level in screenings.items() if level != "default"},
        channels=channels(settings),
    )


def channels(settings: Settings) -> tuple[AlertChannel, ...]:
    """Return every configured channel; each is served by the service that takes its outbox entries."""
    found = [AlertChannel(ChannelKind.COMMAND)] if settings.alerts.command else []
    found += [AlertChannel(ChannelKind.MQTT)] if settings.health.mqtt is not None else []
    found += [AlertChannel(ChannelKind.HL7, name) for name in settings.deliver.hl7_names("alerts")]
    return tuple(found)


def _level(level: str) -> str | None:
    return None if level == "never" else level
