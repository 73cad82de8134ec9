"""The bundle that the fleet may ask for: enough to see what ails a box, nothing that says whom it serves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from appliance import __version__
from appliance.health import journal
from appliance.health.command_model import Diagnostics, Setting
from appliance.health.model import Event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from appliance.config import Settings
    from appliance.health.model import Health
    from appliance.store.database import Store
    from appliance.store.events import Event as StoredEvent

LONGEST_BYTES = 100 * 1024
"""Below what the brokers of the large clouds accept in one message (128 KiB)."""

_EVENTS = 100
_LOG_LINES = 200


def build(command_id: str, settings: Settings, store: Store, health: Health) -> Diagnostics:
    """Put the bundle together; of events and log lines the oldest go until it is small enough.

    Parameters
    ----------
    command_id
        Of the command that asked.
    settings
        The whole configuration.
    store
        Opened, also read-only.
    health
        The latest.
    """
    lines = journal.last_lines(_LOG_LINES)
    bundle = Diagnostics(
        id=command_id,
        at=datetime.now(UTC),
        health=health,
        settings=tuple(masked(settings.model_dump(mode="json"))),
        rows=store.row_counts(),
        events=tuple(map(event_message, store.events.last(_EVENTS))),
        log_readable=lines is not None,
        log=tuple(lines or ()),
    )
    while len(bundle.to_payload()) > LONGEST_BYTES and (bundle.log or bundle.events):
        bundle = bundle.model_copy(
            update={"log": bundle.log[len(bundle.log) // 4 + 1 :], "events": bundle.events[len(bundle.events) // 4 :]}
        )
    return bundle


def event_message(event: StoredEvent) -> Event:
    """Return an event as it is published."""
    return Event(
        id=event.id,
        event=event.kind,
        at=datetime.fromtimestamp(event.at, UTC),
        scan=event.scan_id,
        reason=event.reason,
        numbers=event.numbers,
        appliance_version=__version__,
    )


def masked(tree: Mapping[str, Any], prefix: str = "") -> Iterator[Setting]:
    """Walk the settings: numbers and switches with their values, lists as their length, everything else by its key."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from masked(value, f"{key}.")
        elif isinstance(value, list):
            yield Setting(key=key, value=None, count=len(value))
        elif isinstance(value, bool | int | float):
            yield Setting(key=key, value=value, count=None)
        else:
            yield Setting(key=key, value=None, count=None)
