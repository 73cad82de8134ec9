"""``appliance alerts``: what nobody has acknowledged, and acknowledging it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from appliance.errors import ConfigurationError
from appliance.results.table import title_of
from appliance.store.alerts import AlertState
from appliance.store.announcements import CommandOutcome

if TYPE_CHECKING:
    from appliance.config import Settings
    from appliance.store.alerts import Alert
    from appliance.store.announcements import CommandRun
    from appliance.store.database import Store

_MOST = 200


def show(settings: Settings, *, everything: bool, as_json: bool) -> int:
    """Print the alerts that nobody has acknowledged, or the newest.

    Raises
    ------
    StoreError
        There is no database yet, or it cannot be read.
    """
    from appliance.store.database import open_database

    with open_database(settings.box.database, read_only=True) as store:
        found = store.alerts.recent(_MOST) if everything else store.alerts.unacknowledged(_MOST)
        runs = {alert.id: store.announcements.commands(alert.id) for alert in found}
        counts = store.alerts.counts()
    if as_json:
        documents = [_document(alert, runs[alert.id]) for alert in found]
        print(json.dumps(documents, indent=1, ensure_ascii=False))  # noqa: T201
        return 0
    for alert in found:
        print(_line(alert, runs[alert.id]))  # noqa: T201
    total = sum(counts.values()) if everything else counts[AlertState.OPEN] + counts[AlertState.ESCALATED]
    if not found:
        print("No alerts." if everything else "Nothing to acknowledge.")  # noqa: T201
    elif total > len(found):
        print(f"… and {total - len(found)} more.")  # noqa: T201
    return 0


def acknowledge(settings: Settings, number: int, name: str) -> int:
    """Record that a person has seen an alert.

    Raises
    ------
    ConfigurationError
        There is no database, no such alert, or the name is empty.
    StoreError
        The database cannot be used.
    """
    from appliance.store.database import open_database

    if not settings.box.database.exists():
        raise ConfigurationError(f"{settings.box.database}: there is no database; check box.state_directory")
    if not name.strip():
        raise ConfigurationError("--by: an alert is acknowledged by somebody; give a name")
    with open_database(settings.box.database, check=False) as store:
        if store.alerts.find(number) is None:
            raise ConfigurationError(f"{number}: there is no such alert; `appliance alerts list --all` shows them")
        done = store.alerts.acknowledge(number, name)
        alert = store.alerts.get(number)
    if done:
        print(f"Alert {number} is acknowledged by {alert.acknowledged_by}.")  # noqa: T201
    else:
        print(f"Alert {number} was acknowledged before, by {alert.acknowledged_by}, {_when(alert.acknowledged_at)}.")  # noqa: T201
    return 0


def in_words(store: Store) -> tuple[dict[str, Any], str]:
    """Return what ``appliance status`` says of alerts, for programs and for people."""
    counts = store.alerts.counts()
    first = store.alerts.unacknowledged(1)
    waiting = counts[AlertState.OPEN] + counts[AlertState.ESCALATED]
    document = {
        "open": counts[AlertState.OPEN],
        "escalated": counts[AlertState.ESCALATED],
        "most_urgent": first[0].urgency if first else None,
    }
    if not first:
        return document, "none to acknowledge"
    escalated = f", {counts[AlertState.ESCALATED]} escalated" if counts[AlertState.ESCALATED] else ""
    words = f"{waiting} to acknowledge{escalated}; the first: {title_of(first[0].screening)}, {first[0].urgency}"
    return document, f"{words} (`appliance alerts list`)"


def _document(alert: Alert, runs: list[CommandRun]) -> dict[str, Any]:
    commands = [{key: value for key, value in asdict(run).items() if key != "alert_id"} for run in runs]
    return asdict(alert) | {"commands": commands}


def _line(alert: Alert, runs: list[CommandRun]) -> str:
    parts = [f"alert {alert.id}: {_when(alert.raised_at)}, {title_of(alert.screening)}, {alert.urgency}"]
    parts.append(f"scan {alert.scan_id}")
    if alert.escalated_at is not None:
        parts.append(f"escalated {_when(alert.escalated_at)}")
    if alert.state is AlertState.ACKNOWLEDGED:
        parts.append(f"acknowledged {_when(alert.acknowledged_at)} by {alert.acknowledged_by}")
    if runs and runs[-1].exit_status != 0:
        last = runs[-1]
        how = f"exit status {last.exit_status}" if last.outcome is CommandOutcome.EXITED else last.outcome.value
        parts.append(f"the program failed ({how.replace('_', ' ')})")
    return ", ".join(parts)


def _when(at: float | None) -> str:
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
