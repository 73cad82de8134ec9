"""The ``deliver`` service: takes results where they are configured to go, and finishes their scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from appliance.delivery.outbox_worker import CANNOT_SEND, Settled, let_go, settle
from appliance.services import systemd
from appliance.services.lifecycle import Heartbeat
from appliance.store.database import open_database

if TYPE_CHECKING:
    import threading

    from appliance.config import Settings

_log = structlog.get_logger()


def run(settings: Settings, stop: threading.Event) -> None:
    """Look at the outbox every ``deliver.poll_s`` until ``stop`` is set.

    Parameters
    ----------
    settings
        The whole configuration.
    stop
        Ends the service after the step in hand.

    Raises
    ------
    StoreError
        The database cannot be used; the service manager starts the service again.
    """
    heartbeat = Heartbeat(settings.box.state_directory, "deliver")
    destinations = [destination.name for destination in settings.deliver.destinations]
    if destinations:
        _log.warning("destinations_not_served", destinations=destinations, why=CANNOT_SEND)
    with open_database(settings.box.database) as store:
        total = Settled()
        systemd.notify("READY=1")
        let_go(store, destinations)
        try:
            while True:
                total += settle(store)
                _beat(heartbeat, total)
                systemd.notify("WATCHDOG=1")
                if stop.wait(settings.deliver.poll_s):
                    break
        finally:
            systemd.notify("STOPPING=1")
            heartbeat.end()


def _beat(heartbeat: Heartbeat, total: Settled) -> None:
    try:
        heartbeat.beat(done=total.done, parked=total.parked)
    except OSError as error:
        _log.error("heartbeat_not_written", error=error.strerror)
