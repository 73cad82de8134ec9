"""Runs the deliver service in child after child, kills each at random, and lets the last one finish.

``killed_deliver.py CONFIG KILLS SEED scans|alerts``: prints how many scans each child left delivering, or how many
alerts and messages it left to tell.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from appliance.config import load
from appliance.logs import configure
from appliance.services.deliver import run
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState

settings = load(Path(sys.argv[1]))
kills, seed, counted = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
#: How long a child works at least before it is killed: an alert's program takes longer to start than an association.
EARLIEST_S = {"scans": 0.0, "alerts": 0.1}[counted]
configure("critical", "text")


def start() -> int:
    pid = os.fork()
    if pid == 0:
        run(settings, threading.Event())
        os._exit(0)
    return pid


def left() -> int:
    with open_database(settings.box.database, read_only=True) as store:
        if counted == "scans":
            return len(store.scans.in_state(ScanState.DELIVERING))
        alerts = sum(alert.state.value == "open" for alert in store.alerts.recent(1000))
        return store.outbox.counts().get(OutboxState.WAITING, 0) + alerts


chance = random.Random(seed)
counts = []
for _ in range(kills):
    child = start()
    time.sleep(EARLIEST_S + chance.uniform(0.0, 0.6))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    counts.append(left())
child = start()
deadline = time.monotonic() + 240
while left() and time.monotonic() < deadline:
    time.sleep(0.1)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(*counts, left())
