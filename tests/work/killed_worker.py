"""Services to be killed; there in a moment when forked from a process that has loaded this."""

from __future__ import annotations

import signal
import threading

from appliance.config import Settings
from appliance.services import receive as receive_service
from appliance.services import work as work_service

SENDER = "SCANNER"


def work(state_directory: str) -> None:
    """Run the real work service, with a stub screening, until SIGTERM."""
    work_service.run(_settings(state_directory), _stop(), screen_with="tests.work.killed_screen:screen")


def receive(state_directory: str) -> None:
    """Run the real receive service until SIGTERM."""
    receive_service.run(_settings(state_directory), _stop())


def _settings(state_directory: str) -> Settings:
    return Settings.model_validate(
        {
            "box": {"state_directory": state_directory},
            "receive": {
                "address": "127.0.0.1",
                "port": 0,
                "disk_reserve_mib": 0,
                "peers": [{"ae_title": SENDER, "address": "127.0.0.1"}],
            },
            "assemble": {"quiet_s": 0.05},
            "work": {"attempts": 10},
        }
    )


def _stop() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop
