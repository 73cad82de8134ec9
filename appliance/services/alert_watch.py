"""Escalates alerts that nobody has acknowledged and runs the site's program, in a thread of the ``deliver`` service.

It shares nothing with the threads that talk to a PACS but the database, so that a peer that hangs keeps no lamp dark.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from appliance.delivery.alert_command import AlertCommand, Program
from appliance.delivery.backoff import Backoff
from appliance.errors import StoreError
from appliance.store.alert_rules import ChannelKind
from appliance.store.database import DatabaseDamagedError, open_database
from appliance.store.scans import NO_LONGER_CONFIGURED

if TYPE_CHECKING:
    from appliance.config import Settings
    from appliance.store.database import Store

_log = structlog.get_logger()

_LOOK_S = 0.5
# How often the waiting of open alerts is written down; so much of it is lost at most when the process is killed.
_COUNT_S = 5.0
_RETRY = Backoff(5.0, 60.0)
_LONGEST_PAUSE_S = 30.0


class Escalation:
    """Counts how long alerts have waited and escalates those that waited too long.

    Waiting is the time that this service ran while the alert was open, on the monotonic clock: a clock that is set, by
    a person, a time server or a dead battery, neither escalates everything at once nor keeps anything from it. While
    the box is off nobody could have seen the alert, and nothing is counted.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    after_s
        How long is too long; ``None`` escalates nothing.
    count_s
        How often the waiting is written down.
    """

    def __init__(self, store: Store, after_s: float | None, count_s: float = _COUNT_S) -> None:
        self._store = store
        self._after_s = after_s
        self._count_s = count_s
        self._counted_until = time.monotonic()
        self._newest = store.alerts.newest()

    def round(self) -> int:
        """Escalate what is overdue, and return how many alerts that were.

        Raises
        ------
        StoreError
            The database cannot be used; what was not counted is counted the next time.
        """
        now = time.monotonic()
        waited_s = now - self._counted_until
        if self._after_s is None or waited_s < min(self._count_s, self._after_s / 2.0):
            return 0
        # What was raised since the last count has not waited all that time; its waiting begins now.
        any_waits = self._store.alerts.let_wait(waited_s, up_to=self._newest)
        self._counted_until, self._newest = now, self._store.alerts.newest()
        if not any_waits:
            return 0
        escalated = self._store.alerts.escalate_overdue(waited_s=self._after_s)
        for alert in escalated:
            _log.warning("alert_escalated", alert=alert.id, screening=alert.screening, urgency=alert.urgency)
        return len(escalated)


class AlertWatch(threading.Thread):
    """The loop; a damaged database ends the service, any other trouble with it is waited for.

    Parameters
    ----------
    settings
        The whole configuration.
    stop
        Ends the thread.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        super().__init__(name="deliver-alerts", daemon=True)
        self._settings = settings
        self._stop_asked = stop
        self.error: Exception | None = None

    def run(self) -> None:
        """Look at the alerts twice a second."""
        try:
            with open_database(self._settings.box.database, check=False) as store:
                self._loop(store)
        except Exception as error:  # noqa: BLE001  # not swallowed
            # Told by the main thread, which ends the service: its manager starts it again.
            self.error = error
            self._stop_asked.set()

    def _loop(self, store: Store) -> None:
        alerts = self._settings.alerts
        escalation = Escalation(store, alerts.escalate_after_min * 60.0 or None)
        command = None
        if alerts.command:
            program = Program(alerts.command, alerts.command_timeout_s, alerts.command_tries)
            command = AlertCommand(store, program, _RETRY, self._stop_asked)
        else:
            store.outbox.withdraw(ChannelKind.COMMAND.value, (), NO_LONGER_CONFIGURED)
        pause_s = _LOOK_S
        while not self._stop_asked.is_set():
            try:
                escalation.round()
                busy = command is not None and command.step()
                pause_s = _LOOK_S
            except DatabaseDamagedError:
                raise  # only a restart mends it
            except StoreError as error:
                # A full disk does not stay full; an alert must not wait for the service manager's patience.
                busy, pause_s = False, min(_LONGEST_PAUSE_S, 2.0 * pause_s)
                _log.error("alerts_interrupted", why=str(error), again_in_s=pause_s)
            if not busy:
                self._stop_asked.wait(pause_s)
