"""Runs the deliver service in child after child, kills each at random, and lets the last one tell everything.

``killed_deliver.py CONFIG KILLS SEED``: prints how much was left to tell after each child.
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
from appliance.store.outbox import OutboxState

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
        return store.outbox.counts().get(OutboxState.WAITING, 0) + sum(
            alert.state.value == "open" for alert in store.alerts.recent(1000)
        )


chance = random.Random(seed)
counts = []
for _ in range(kills):
    child = start()
    time.sleep(chance.uniform(0.1, 0.7))
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
