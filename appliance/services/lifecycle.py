"""How every service is told to stop, and how it leaves a sign of life that ``appliance status`` can read."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from appliance.durable import PART_SUFFIX
from appliance.store.leases import process_start_ticks

if TYPE_CHECKING:
    from pathlib import Path


def stop_event_on_signals() -> threading.Event:
    """Return an event that SIGTERM, SIGINT and SIGHUP set; call it from the main thread.

    A second signal does nothing more: the service manager kills what does not stop in time.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


class Heartbeat:
    """A small file that says that a service lives and what it last did.

    Parameters
    ----------
    state_directory
        The file is ``run/<service>.json`` below it.
    service
        Name of the service.
    """

    def __init__(self, state_directory: Path, service: str) -> None:
        self.path = state_directory / "run" / f"{service}.json"
        self._service = service

    def beat(self, **figures: Any) -> None:
        """Replace the file by one with the present time and these figures.

        It is replaced at once but not synced: after a power cut nobody asks how the service was before.

        Raises
        ------
        OSError
            It cannot be written.
        """
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        content = {
            "service": self._service,
            "pid": os.getpid(),
            "start_ticks": process_start_ticks(os.getpid()),
            "beat_s": time.clock_gettime(time.CLOCK_BOOTTIME),  # the age of a sign of life, whatever sets the clock
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        } | figures
        part = self.path.with_name(self.path.name + PART_SUFFIX)
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(self.path)

    def end(self) -> None:
        """Remove the file: the service has stopped cleanly."""
        self.path.unlink(missing_ok=True)


def read_heartbeat(state_directory: Path, service: str) -> dict[str, Any] | None:
    """Return a service's last sign of life, or ``None``; the caller compares its ``time`` and ``pid``."""
    try:
        content = json.loads((state_directory / "run" / f"{service}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
