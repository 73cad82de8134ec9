"""A worker to be killed; importable in a moment by a process that is forked from one that has loaded it."""

from __future__ import annotations

import signal
import threading

from appliance.config import Settings
from appliance.services.work import run


def work(state_directory: str) -> None:
    """Run the real service until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = Settings.model_validate(
        {"box": {"state_directory": state_directory}, "assemble": {"quiet_s": 0.05}, "work": {"attempts": 10}}
    )
    run(settings, stop, screen_with="tests.work.killed_screen:screen")
