"""What tests with real processes ask of the machine: a port that is free, and patience."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def free_port() -> int:
    """Return a port of loopback, from below those that the kernel gives away, as it may be taken only seconds later."""
    while True:
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def wait_until(condition: Callable[[], Any], what: str, at_most_s: float = 120.0) -> Any:
    """Return the condition's value as soon as it is true, patient enough for a busy machine."""
    deadline = time.monotonic() + at_most_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for: {what}")
        time.sleep(0.02)
    return found
