"""How soon a stored result is with a real archive, how many go over in a second, and what a month of dead peers costs.

The archive is Orthanc with its DICOMweb plugin, the deliver service a process of its own with the shipped settings; the
objects are those of the built-in test patient, each scan's with UIDs of its own. The HL7 receiver accepts at once. The
dead month is not slept: couriers run on a clock that is set on by hand, against ports that refuse the connection.

Run as ``python tests/benchmarks/bench_delivery.py [--scans N] [--per-day N] [--days N] [--json]``; prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.config import Settings
from appliance.store.alert_rules import AlertChannel, AlertRules, ChannelKind
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from tests.machine import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.store.database import Store

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
SINGLE = 5
WAYS = {"c-store": "C-STORE to Orthanc", "stow": "STOW-RS to Orthanc", "hl7": "HL7 to a receiver that accepts at once"}


def make_result(folder: Path) -> None:
    """Screen the test patient into a folder, as the child process would."""
    from appliance.logs import configure
    from appliance.phantom import PhantomOptions, write_series
    from appliance.screen import screen_series

    configure("error", "text")
    options = PhantomOptions(slice_thickness_mm=3.0, slice_spacing_mm=3.0, emphysema_fraction=0.15, liver_hu=30.0)
    write_series(options, folder / "scan")
    (folder / "result").mkdir()
    settings = Settings.model_validate({"box": {"state_directory": str(folder / "screening")}})
    screen_series(sorted((folder / "scan").glob("*.dcm")), settings=settings, out_directory=folder / "result")


@contextmanager
def orthanc(folder: Path) -> Iterator[tuple[int, int]]:
    dicom, http = free_port(), free_port()
    folder.mkdir()
    told = {
        "DicomAet": "PACS", "DicomPort": dicom, "HttpPort": http, "StorageDirectory": str(folder),
        "IndexDirectory": str(folder), "AuthenticationEnabled": False, "RemoteAccessAllowed": False,
        "Plugins": [str(DICOMWEB)] if DICOMWEB.exists() else [],
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(told))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{http}/system", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield dicom, http
    finally:
        process.terminate()
        process.wait()


class _Accepting(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        heard = b""
        while not heard.endswith(b"\x1c\r"):
            piece = self.request.recv(1 << 16)
            if not piece:
                return
            heard += piece
        control_id = heard.split(b"\r")[0].split(b"|")[9]
        self.request.sendall(b"\x0bMSH|^~\\&|H|H|A|B|2026||ACK|1|P|2.5.1\rMSA|AA|" + control_id + b"\r\x1c\r")


@contextmanager
def receiver() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Accepting) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def destination(way: str, ports: dict[str, int]) -> str:
    if way == "c-store":
        return (
            '[[deliver.destinations]]\nname = "pacs"\nae_title = "PACS"\naddress = "127.0.0.1"\n'
            f"port = {ports['dicom']}\n"
        )
    if way == "stow":
        url = f"http://127.0.0.1:{ports['http']}/dicom-web"
        return f'[[deliver.dicomweb]]\nname = "pacs"\nurl = "{url}"\nallow_http = true\n'
    return f'[[deliver.hl7]]\nname = "his"\naddress = "127.0.0.1"\nport = {ports["hl7"]}\n'


class Box:
    """A state directory with scans that are screened."""

    def __init__(self, state: Path, made: Path) -> None:
        self.state = state
        self._made = made
        self._report = json.loads((made / "report.json").read_text(encoding="utf-8"))
        self._count = 0

    def scan(self, store: Store, *, alerts: AlertRules | None = None, objects: str = "own", at: float = 0.0) -> int:
        """Make a screened scan with objects of its ``own``, with ``linked`` ones, or ``without``."""
        self._count += 1
        moment = at or time.time()
        scan_id = store.scans.create(
            study_instance_uid=f"2.25.{self._count}", series_instance_uid=f"2.25.{self._count}.1",
            accession_number=f"A{self._count}", modality="CT", revision=1, instances=0, at=moment,
        )  # fmt: skip
        folder = self.state / "results" / store.scans.get(scan_id).folder
        if objects == "own":
            self._write_objects(folder / "objects")
        elif objects == "linked":
            (folder / "objects").mkdir(parents=True)
            for path in (self._made / "objects").glob("*.dcm"):
                (folder / "objects" / path.name).hardlink_to(path)
        store.scans.advance(scan_id, ScanState.SCREENING, cause="benchmark", at=moment)
        store.results.save(scan_id, self._report, folder=folder.name, alerts=alerts, at=moment)
        return scan_id

    def _write_objects(self, folder: Path) -> None:
        import pydicom
        from pydicom.uid import generate_uid

        folder.mkdir(parents=True)
        for path in sorted((self._made / "objects").glob("*.dcm")):
            ds = pydicom.dcmread(path)
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            ds.save_as(folder / path.name)


def until(store: Store, done: list[int]) -> None:
    while any(store.scans.get(scan_id).state is not ScanState.DONE for scan_id in done):
        time.sleep(0.005)


def deliver(way: str, scans: int, folder: Path, made: Path, ports: dict[str, int]) -> dict[str, float]:
    """Seconds of single scans, and how many go over in a second when many wait."""
    state = folder / way
    config = folder / f"{way}.toml"
    config.write_text(f'[box]\nstate_directory = "{state}"\nlog_level = "error"\n{destination(way, ports)}')
    box, pacs, hl7 = Box(state, made), *((["pacs"], []) if way != "hl7" else ([], ["his"]))
    state.mkdir()
    with open_database(state / "appliance.db") as store:
        process = subprocess.Popen([sys.executable, "-m", "appliance", "deliver", "--config", str(config)])
        try:
            first = box.scan(store)
            store.scans.hand_over(first, pacs, hl7=hl7)
            until(store, [first])  # the service is up and its libraries are loaded
            single = []
            for _ in range(SINGLE):
                scan_id = box.scan(store)
                began = time.monotonic()
                store.scans.hand_over(scan_id, pacs, hl7=hl7)
                until(store, [scan_id])
                single.append(time.monotonic() - began)
            many = [box.scan(store) for _ in range(scans)]
            began = time.monotonic()
            for scan_id in many:
                store.scans.hand_over(scan_id, pacs, hl7=hl7)
            until(store, many)
            took = time.monotonic() - began
        finally:
            process.terminate()
            process.wait()
    return {"median_s": statistics.median(single), "longest_s": max(single), "per_second": scans / took}


def alert_row(folder: Path, made: Path) -> float:
    """Milliseconds from a report in memory to its result, its alert and what a channel is told, all committed."""
    state = folder / "alert"
    state.mkdir()
    rules = AlertRules(least_urgency="routine", channels=(AlertChannel(ChannelKind.HL7, "his"),))
    took = []
    box = Box(state, made)
    with open_database(state / "appliance.db") as store, open_database(state / "appliance.db", read_only=True) as other:
        for _ in range(20):
            before = sum(other.alerts.counts().values())
            began = time.monotonic()
            box.scan(store, alerts=rules, objects="without")
            took.append(1000.0 * (time.monotonic() - began))
            assert sum(other.alerts.counts().values()) > before
    return statistics.median(took)


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class _Clock:
    """Stands in for the ``time`` module."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def dead_month(folder: Path, made: Path, per_day: int, days: int, *, peers: bool) -> dict[str, float]:
    """A month in which nobody can be reached: what it costs in memory, on the disk and in tries."""
    import appliance.delivery.courier as courier_module
    import appliance.store.outbox as outbox_module
    from appliance.delivery.backoff import Backoff
    from appliance.delivery.c_store import CStoreCarrier
    from appliance.delivery.courier import Courier
    from appliance.delivery.hl7 import Notice
    from appliance.delivery.node import DicomwebNode, Hl7Node, PacsNode
    from appliance.delivery.shipment import Shipment
    from appliance.delivery.stow import StowCarrier
    from appliance.dicom.web.stow import Access
    from appliance.hl7.routing import Routing
    from appliance.logs import configure

    configure("critical", "text")
    clock = _Clock()
    courier_module.time = outbox_module.time = clock  # type: ignore[assignment]
    state = folder / f"month-{peers}"
    state.mkdir()
    box, port = Box(state, made), free_port()
    rules = AlertRules(least_urgency="routine", channels=(AlertChannel(ChannelKind.HL7, "his"),)) if peers else None
    with open_database(state / "appliance.db") as store:
        results, stop = state / "results", threading.Event()
        nodes = [
            Shipment(store, results, CStoreCarrier(PacsNode("pacs", "PACS", "127.0.0.1", port, "BOX")), stop),
            Shipment(store, results, StowCarrier(DicomwebNode("web", Access(f"http://127.0.0.1:{port}"))), stop),
            Notice(store, results, state, Hl7Node("his", "127.0.0.1", port, Routing("A", "B")), stop),
        ]
        couriers = [Courier(store, node, Backoff(15.0, 900.0), stop) for node in nodes] if peers else []
        at_first = 0.0
        for day in range(days):
            for _ in range(per_day):
                scan_id = box.scan(store, alerts=rules, objects="linked", at=clock.now)
                store.scans.hand_over(
                    scan_id, ["pacs", "web"] if peers else [], hl7=["his"] if peers else [], at=clock.now
                )
                for _ in range(max(1, 96 // per_day)):
                    clock.now += 86400.0 / per_day / max(1, 96 // per_day)
                    for courier in couriers:
                        courier.round()
            if day == 0:
                at_first = resident_mib()
        tries = sum(
            entry.attempts for kind in ("pacs", "hl7") for entry in store.outbox.due(kind, now=1e12, limit=10**6)
        )
        waiting = sum(count for name, count in store.outbox.counts().items() if name == "waiting")
    size = sum(path.stat().st_size for path in state.glob("appliance.db*")) / (1 << 20)
    return {"db_mib": size, "grown_mib": resident_mib() - at_first, "tries": tries, "waiting": waiting}


def measure(scans: int, per_day: int, days: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--make", name], check=True)
        made = folder / "result"
        sizes = [path.stat().st_size for path in (made / "objects").glob("*.dcm")]
        found: dict[str, Any] = {"objects": len(sizes), "objects_mib": sum(sizes) / (1 << 20)}
        with orthanc(folder / "orthanc") as (dicom, http), receiver() as hl7:
            ports = {"dicom": dicom, "http": http, "hl7": hl7}
            found["ways"] = {way: deliver(way, scans, folder, made, ports) for way in WAYS}
        found["alert_ms"] = alert_row(folder, made)
        for key, word in (("dead", "1"), ("none", "0")):
            command = [sys.executable, __file__, "--month", word, "--per-day", str(per_day), "--days", str(days)]
            done = subprocess.run([*command, "--folder", name], check=True, stdout=subprocess.PIPE, text=True)
            found[key] = json.loads(done.stdout.splitlines()[-1])
    return found


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def print_tables(found: dict[str, Any], scans: int, per_day: int, days: int) -> None:
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    print(
        f"\n### From stored findings to their receivers\n\n{machine}; {found['objects']} objects a scan, "
        f"{found['objects_mib']:.1f} MiB; deliver.poll_s = 2.0, so that a single one waits 1 s on average.\n"
    )
    print(
        f"| way | one scan, median of {SINGLE}, s | longest, s | results a second, {scans} at once |\n|---|---|---|---|"
    )
    for way, row in found["ways"].items():
        print(f"| {WAYS[way]} | {row['median_s']:.2f} | {row['longest_s']:.2f} | {row['per_second']:.1f} |")
    print(f"\nReport to committed alert, with what a channel is told: {found['alert_ms']:.0f} ms (median of 20).")
    print(
        f"\n### A month with all peers dead\n\n{machine}; {per_day} scans a day for {days} days to three destinations "
        "that refuse the connection, alerts included, on an injected clock.\n"
    )
    print(
        "| | database, MiB | process grown since the first day, MiB | entries waiting | tries |\n|---|---|---|---|---|"
    )
    for key, label in (("dead", "three dead destinations"), ("none", "no destination")):
        row = found[key]
        print(f"| {label} | {row['db_mib']:.1f} | {row['grown_mib']:.1f} | {row['waiting']} | {row['tries']} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scans", type=int, default=30)
    parser.add_argument("--per-day", type=int, default=40)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--month", choices=("0", "1"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_result(options.make)
    elif options.month:
        made = options.folder / "result"
        peers = options.month == "1"
        print(json.dumps(dead_month(options.folder, made, options.per_day, options.days, peers=peers)))
    else:
        found = measure(options.scans, options.per_day, options.days)
        if options.json:
            print(json.dumps(found))
        else:
            print_tables(found, options.scans, options.per_day, options.days)


if __name__ == "__main__":
    main()
