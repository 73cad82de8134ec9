"""Which findings raise an alert, and who is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: From the least to the most pressing; the words of :class:`appliance.screenings.contract.Urgency`.
URGENCIES = ("routine", "soon", "urgent")


class ChannelKind(StrEnum):
    """Who is told of alerts; the kind of its outbox entries."""

    MQTT = "mqtt"
    COMMAND = "command"
    HL7 = "hl7"


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
