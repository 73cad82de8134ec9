"""Telling systemd how a service is (sd_notify(3)); says nothing and costs nothing when systemd did not start it."""

from __future__ import annotations

import os
import socket

_ADDRESS_VARIABLE = "NOTIFY_SOCKET"
_WATCHDOG_VARIABLE = "WATCHDOG_USEC"
_WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"


def notify(state: str) -> bool:
    """Send a state such as ``READY=1``, ``WATCHDOG=1`` or ``STATUS=…`` to the service manager.

    Parameters
    ----------
    state
        One or more assignments, separated by new lines.

    Returns
    -------
    bool
        Whether there was a service manager to tell.
    """
    address = os.environ.get(_ADDRESS_VARIABLE, "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.sendto(state.encode(), address)
    except OSError:
        # A service must not fail because its manager does not listen.
        return False
    return True


def watchdog_interval_s() -> float | None:
    """Return how often ``WATCHDOG=1`` must be sent, or ``None`` when nobody watches this process."""
    if os.environ.get(_WATCHDOG_PID_VARIABLE, str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(os.environ.get(_WATCHDOG_VARIABLE, ""))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None
