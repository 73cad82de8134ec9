"""Runs the deliver service in child after child, kills each at random, and lets the last one finish.

``killed_deliver.py CONFIG KILLS SEED``: prints how many scans each child left delivering.
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

settings = load(Path(sys.argv[1]))
kills, seed = int(sys.argv[2]), int(sys.argv[3])
configure("critical", "text")


def start() -> int:
    pid = os.fork()
    if pid == 0:
        run(settings, threading.Event())
        os._exit(0)
    return pid


def left() -> int:
    with open_database(settings.box.database, read_only=True) as store:
        return len(store.scans.in_state(ScanState.DELIVERING))


chance = random.Random(seed)
counts = []
for _ in range(kills):
    child = start()
    time.sleep(chance.uniform(0.0, 0.6))
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
