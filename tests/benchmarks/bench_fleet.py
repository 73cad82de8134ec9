"""A month without a broker: how large the database grows, and how quickly everything kept is told afterwards.

A thousand events a day for thirty days, one transaction a day, with the health service's own sweep after each; then a
real mosquitto here and the service's own rounds, back to back.
Run as ``python tests/benchmarks/bench_fleet.py``; prints a Markdown table.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from appliance.config import MqttSettings, Settings
from appliance.health.broker import Broker as MqttBroker
from appliance.health.publisher import Publisher
from appliance.reasons import ReasonCode
from appliance.services import health
from appliance.store.database import open_database
from appliance.store.events import EventKind
from tests.health.conftest import Broker
from tests.machine import free_port

EVENTS_A_DAY = 1000
DAYS = 30
DAY_S = 86400.0


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings.model_validate({"box": {"state_directory": folder / "state"}})
        open_database(settings.box.database).close()
        rounds = health._Service(settings, None, None)
        before_mib = psutil.Process().memory_info().rss / 2**20
        rows = [absence(settings, rounds, day) for day in range(DAYS)]
        grown_mib = psutil.Process().memory_info().rss / 2**20 - before_mib
        told, seconds = tell(settings, folder)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| day without a broker | events kept | database, MiB |\n|---|---|---|")
    for day in (1, 5, 10, 15, 20, 25, 30):
        print(f"| {day} | {rows[day - 1][0]} | {rows[day - 1][1]:.1f} |")
    print(f"\nResident memory grew by {grown_mib:.0f} MiB. Then {told} events were told in {seconds:.0f} s,")
    print(f"{told / seconds:.0f} a second, each acknowledged by mosquitto and noted in the database.")


def absence(settings: Settings, rounds: health._Service, day: int) -> tuple[int, float]:
    at = time.time() - (DAYS - day) * DAY_S
    with open_database(settings.box.database, check=False) as store, store.atomic():
        for _ in range(EVENTS_A_DAY):
            store.events.record(
                EventKind.REFUSED, scan_id=1, reason=ReasonCode.MISSING_SLICE, numbers={"slices": 41}, at=at
            )
    rounds._sweep()
    with open_database(settings.box.database, read_only=True) as store:
        kept = store.row_counts()["events"]
    files = settings.box.database.parent.glob("appliance.db*")
    return kept, sum(file.stat().st_size for file in files) / 2**20


def tell(settings: Settings, folder: Path) -> tuple[int, float]:
    (folder / "broker").mkdir()
    broker = Broker(folder / "broker", "allow_anonymous true", free_port())
    broker.start()
    address = MqttSettings(host="127.0.0.1", port=broker.port, allow_plaintext=True)
    publisher = Publisher(MqttBroker.from_settings(address, "box-1"), folder / "n", "0.1.0")
    publisher.start()
    rounds = health._Service(settings, publisher, None)
    with open_database(settings.box.database, read_only=True) as store:
        number = store.row_counts()["events"]
        while not publisher.connected:
            time.sleep(0.01)
        began = time.monotonic()
        while store.events.waiting(1):
            rounds._publish_events()
            time.sleep(0.02)
        seconds = time.monotonic() - began
    publisher.close()
    broker.stop()
    return number, seconds


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
