"""The ``receive`` service: keeps the DICOM port open, and writes instances into the spool and nothing else."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog

from appliance.dicom.network.receiver import Receiver
from appliance.services import systemd
from appliance.services.lifecycle import Heartbeat

if TYPE_CHECKING:
    import threading

    from appliance.config import Settings

_log = structlog.get_logger()

HEARTBEAT_INTERVAL_S = 5.0
SELF_CHECK_INTERVAL_S = 60.0
_WATCHDOG_SHARE = 0.4  # of systemd's interval, so that one late check does not end the service


def run(settings: Settings, stop: threading.Event) -> None:
    """Receive until ``stop`` is set.

    The port is asked for a C-ECHO each minute and only its answer feeds systemd's watchdog, so that a port that is
    open but serves nobody is noticed and restarted.

    Parameters
    ----------
    settings
        The whole configuration.
    stop
        Ends the service: an instance in transfer is finished, then its association is aborted.

    Raises
    ------
    ApplianceError
        The port, the spool or the configuration cannot be used.
    """
    takes_reports = any(destination.commitment for destination in settings.deliver.destinations)
    receiver = Receiver(settings.receive, settings.box.spool, takes_reports=takes_reports)
    heartbeat = Heartbeat(settings.box.state_directory, "receive")
    with receiver:
        try:
            _loop(receiver, heartbeat, stop)
        finally:
            systemd.notify("STOPPING=1")
            heartbeat.end()


def _loop(receiver: Receiver, heartbeat: Heartbeat, stop: threading.Event) -> None:
    watchdog_s = systemd.watchdog_interval_s()
    check_interval_s = SELF_CHECK_INTERVAL_S
    if watchdog_s is not None:
        check_interval_s = min(check_interval_s, watchdog_s * _WATCHDOG_SHARE)
    next_check = time.monotonic() + check_interval_s
    answering: bool | None = None
    _beat(receiver, heartbeat, answering)
    systemd.notify(f"READY=1\nSTATUS=Listening on port {receiver.port}")
    while not stop.wait(min(HEARTBEAT_INTERVAL_S, check_interval_s)):
        receiver.housekeeping()
        if time.monotonic() >= next_check:
            answering = receiver.check_self()
            if answering:
                systemd.notify("WATCHDOG=1")
            else:
                _log.error("self_check_failed", port=receiver.port)
            next_check = time.monotonic() + check_interval_s
        _beat(receiver, heartbeat, answering)


def _beat(receiver: Receiver, heartbeat: Heartbeat, answering: bool | None) -> None:
    try:
        heartbeat.beat(port=receiver.port, answering=answering, **asdict(receiver.statistics))
    except OSError as error:
        # Instances can still be refused with a clear status when the disk is full; stopping would help nobody.
        _log.error("heartbeat_not_written", error=error.strerror)
