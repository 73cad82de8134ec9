"""Stores the results of scans one after the other, in child after child that is killed at random.

``killed_saver.py DATABASE KILLS SEED``: the scans are in the database and wait to be screened.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from appliance.store.alert_rules import AlertChannel, AlertRules, ChannelKind
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from tests.store.samples import report

path = Path(sys.argv[1])
kills, seed = int(sys.argv[2]), int(sys.argv[3])
RULES = AlertRules("routine", channels=(AlertChannel(ChannelKind.MQTT), AlertChannel(ChannelKind.COMMAND)))


def save() -> None:
    with open_database(path, check=False) as store:
        for scan in reversed(store.scans.in_state(ScanState.SCREENING)):
            store.results.save(scan.id, report(), folder=scan.folder, alerts=RULES)


chance = random.Random(seed)
for _ in range(kills):
    child = os.fork()
    if child == 0:
        save()
        os._exit(0)
    time.sleep(chance.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
