"""How long an alert takes from the stored result to a program on the box and to a broker, and how a storm drains.

The real ``deliver`` and ``health`` services at their own pace, a real mosquitto on loopback, a shell script as the
program. A result is stored as the work service stores it; time begins when that transaction is committed, and ends when
the script runs or a subscriber has the message.

Run as ``python tests/benchmarks/bench_alerts.py``; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from appliance.config import load
from appliance.services.alert_rules import alert_rules
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.machine import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.store.alert_rules import AlertRules
    from appliance.store.database import Store

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
LONGEST_S = 900.0
REPORT: dict[str, Any] = {
    "appliance": {"version": "1.0", "config_digest": "sha256:0"},
    "scan": {"slices": 1, "revision": 1},
    "screenings": [{"name": "aorta", "status": "finding", "urgency": "urgent"}],
    "timings": {},
}


@dataclass
class Ears:
    """A subscriber, and the script's notes: when each alert arrived, Unix time by its number."""

    notes: Path
    by_mqtt: dict[int, float] = field(default_factory=dict)

    def heard(self, _client: Client, _data: object, message: Any) -> None:
        content = json.loads(message.payload)
        self.by_mqtt.setdefault(content["id"], time.time())

    def by_command(self) -> dict[int, float]:
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return {int(number): float(at) for number, at in (line.split() for line in lines)}


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.02)


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[psutil.Process]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def store_result(store: Store, rules: AlertRules, series: int) -> tuple[int, float]:
    """Store an urgent finding; gives the alert's number and when it was durable."""
    scan_id = store.scans.create(
        study_instance_uid=f"1.2.{series}", series_instance_uid=f"1.2.{series}.1", accession_number="", modality="CT",
        revision=1, instances=0, at=time.time(),
    )  # fmt: skip
    store.scans.advance(scan_id, ScanState.SCREENING, cause="benchmark")
    store.results.save(scan_id, REPORT, folder=f"{scan_id}-r1", alerts=rules)
    return store.alerts.newest(), time.time()


def configure(folder: Path, port: int) -> Path:
    script = folder / "lamp"
    script.write_text(f'#!/bin/sh\necho "$APPLIANCE_ALERT_ID $(date +%s.%N)" >> {folder}/notes\n')
    script.chmod(0o755)
    file = folder / "box.toml"
    file.write_text(
        f'[box]\nstate_directory = "{folder}/state"\n[receive]\ndisk_reserve_mib = 0\n[retention]\nsoft_free_mib = 0\n'
        f'[alerts]\ncommand = ["{script}"]\nescalate_after_min = 0\n'
        f'[health.mqtt]\nhost = "127.0.0.1"\nport = {port}\nallow_plaintext = true\n'
    )
    return file


def measure(folder: Path, single: int, storm: int) -> list[tuple[str, str]]:
    port = free_port()
    file = configure(folder, port)
    settings = load(file)
    rules, ears = alert_rules(settings), Ears(folder / "notes")
    user = "user root\n" if os.geteuid() == 0 else ""
    (folder / "mosquitto.conf").write_text(f"{user}listener {port} 127.0.0.1\nallow_anonymous true\n")
    with ExitStack() as stack:
        stack.enter_context(running([str(MOSQUITTO), "-c", str(folder / "mosquitto.conf")]))
        wait_for("mosquitto", lambda: listens(port))
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        client.on_connect = lambda client, *_: client.subscribe("appliances/+/alerts", qos=1)
        client.on_message = ears.heard
        client.connect("127.0.0.1", port)
        client.loop_start()
        stack.callback(client.loop_stop)
        store = stack.enter_context(open_database(settings.box.database))
        services = [
            stack.enter_context(running([sys.executable, "-m", "appliance", name, "--config", str(file)]))
            for name in ("deliver", "health")
        ]
        store_result(store, rules, 0)
        wait_for("the first alert", lambda: 1 in ears.by_mqtt and 1 in ears.by_command())
        stored = []
        for series in range(1, single + 1):
            # A scan comes when it comes, not right after the services have looked.
            time.sleep(random.uniform(0.0, 6.0))
            number, at = store_result(store, rules, series)
            stored.append((number, at))
            wait_for("one alert", lambda number=number: number in ears.by_mqtt and number in ears.by_command())  # type: ignore[misc]
        told = ears.by_command()
        rows = [
            (f"stored result to the program, one at a time ({single})", times(told[n] - at for n, at in stored)),
            (f"stored result to the subscriber, likewise ({single})", times(ears.by_mqtt[n] - at for n, at in stored)),
        ]
        before = [process.memory_info().rss for process in services]
        began = time.time()
        first, _ = store_result(store, rules, single + 1)
        for series in range(single + 2, single + storm + 1):
            store_result(store, rules, series)
        rows.append((f"{storm} results stored one after the other", f"{time.time() - began:.1f} s"))
        wait_for("the storm", lambda: set(store.outbox.counts()) == {OutboxState.DONE})
        told = ears.by_command()
        rows += [
            ("from the first of them to the last run of the program", f"{max(told.values()) - began:.1f} s"),
            ("from the first of them to the last message", f"{max(ears.by_mqtt.values()) - began:.1f} s"),
            (
                "alerts that were told, program and broker",
                f"{sum(n >= first for n in told)}, {len(ears.by_mqtt) - single - 1}",
            ),
        ]
        for name, process, least in zip(("deliver", "health"), services, before, strict=True):
            growth = (process.memory_info().rss - least) / 2**20
            rows.append((f"growth of {name} in the storm", f"{growth:.0f} MiB"))
    return rows


def times(seconds: Iterator[float]) -> str:
    values = sorted(seconds)
    return f"median {statistics.median(values):.1f} s, longest {values[-1]:.1f} s"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--single", type=int, default=20, help="alerts one at a time")
    parser.add_argument("--storm", type=int, default=1000, help="alerts at once")
    options = parser.parse_args()
    if MOSQUITTO is None:
        sys.exit("mosquitto is not installed")
    with tempfile.TemporaryDirectory(prefix="bench-alerts-") as name:
        rows = measure(Path(name), options.single, options.storm)
    print("### Alerts\n")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | |\n|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
