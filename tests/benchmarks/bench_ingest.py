"""How fast instances are received, beside dcmtk's storescp and Orthanc, in one run and with one sender.

The sender is dcmtk's storescu with TCP_NODELAY=1, one process per association: a process of its own, so that it does
not share an interpreter with the receiver under test, and compiled, so that it is not what is measured. Images are
made here (512 × 512 noise, 0.53 MB), each with its own UIDs. Only our receiver syncs each file before it answers.

Run as ``python tests/benchmarks/bench_ingest.py``; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from appliance.dicom.spool import Opened, Room, Spool
from tests.machine import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODELAY = {"TCP_NODELAY": "1"}
PLAIN: dict[str, str] = {}
OURS = "this appliance (file and folder synced before each answer)"
DISK = "disk alone"
STORESCP = "dcmtk storescp, TCP_NODELAY=1"


@dataclass(frozen=True)
class Contender:
    """A receiver to measure."""

    name: str
    start: Callable[[Path], object]  # context manager that yields a port
    sender_environment: dict[str, str]
    slow: bool = False


def make_images(folder: Path, count: int) -> int:
    """Write ``count`` images and return the size of one."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(7).integers(0, 4096, (512, 512), dtype=np.uint16).tobytes()
    study, series = generate_uid(), generate_uid()
    size = 0
    for number in range(count):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID = CTImageStorage
        image.SOPInstanceUID = generate_uid()
        image.Modality = "CT"
        image.PatientName, image.PatientID = "Benchmark^Ingest", "BENCH"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.InstanceNumber = study, series, number + 1
        image.Rows = image.Columns = 512
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 0
        image.PixelData = noise
        path = folder / f"{number:05d}.dcm"
        image.save_as(path, enforce_file_format=True)
        size = path.stat().st_size
    return size


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


@contextmanager
def process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )
    try:
        yield running
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(30)


@contextmanager
def appliance(folder: Path) -> Iterator[int]:
    settings = folder / "appliance.toml"
    settings.write_text(
        f"[box]\nstate_directory = {json.dumps(str(folder))}\n"
        '[receive]\naddress = "127.0.0.1"\nport = 0\ndisk_reserve_mib = 0\n'
        'peers = [{ ae_title = "STORESCU", address = "127.0.0.1" }]\n'
    )
    with process([sys.executable, "-m", "appliance", "receive", "--config", str(settings)], PLAIN):
        heartbeat = folder / "run" / "receive.json"
        deadline = time.monotonic() + 30
        while not heartbeat.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield int(json.loads(heartbeat.read_text())["port"])


@contextmanager
def appliance_in_memory(_: Path) -> Iterator[int]:
    """Run the appliance with its spool where a sync costs nothing, to tell its own cost from the disk's."""
    with tempfile.TemporaryDirectory(prefix="bench-ingest-", dir="/dev/shm") as name, appliance(Path(name)) as port:
        yield port


def disk_alone(folder: Path, size: int, count: int = 100) -> float:
    """Return how many files a second this disk takes, written and synced one after another as the spool does."""
    data = os.urandom(size)
    with Spool(folder) as spool:
        room = spool.open_folder(Room.ASSOCIATIONS, "alone", Opened("A", "B", "127.0.0.1", "", 0))
        started = time.perf_counter()
        for _ in range(count):
            room.store(data)
        return count / (time.perf_counter() - started)


def storescp(environment: dict[str, str], *options: str) -> Callable[[Path], object]:
    @contextmanager
    def start(folder: Path) -> Iterator[int]:
        port = free_port()
        command = ["storescp", "--fork", "-aet", "APPLIANCE", "-od", str(folder), *options, str(port)]
        with process(command, environment):
            wait_for_port(port)
            yield port

    return start


@contextmanager
def orthanc(folder: Path) -> Iterator[int]:
    port = free_port()
    settings = folder / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "Name": "bench",
                "StorageDirectory": str(folder / "db"),
                "IndexDirectory": str(folder / "db"),
                "HttpServerEnabled": False,
                "DicomServerEnabled": True,
                "DicomAet": "APPLIANCE",
                "DicomPort": port,
                "Plugins": [],
            }
        )
    )
    with process([shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(settings)], PLAIN):
        wait_for_port(port)
        yield port


def send(folders: list[Path], port: int, environment: dict[str, str]) -> float:
    """Send each folder on an association of its own and return the seconds until all are done."""
    started = time.perf_counter()
    senders = [
        subprocess.Popen(
            ["storescu", "-aec", "APPLIANCE", "+sd", "127.0.0.1", str(port), str(folder)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder in folders
    ]
    said = [sender.communicate(timeout=600)[0] for sender in senders]
    seconds = time.perf_counter() - started
    if any(sender.returncode for sender in senders):
        raise SystemExit(f"a sender failed: {said}")
    return seconds


def contenders() -> list[Contender]:
    every = [
        Contender(OURS, appliance, NODELAY),
        Contender("this appliance, spool in memory (a sync costs nothing)", appliance_in_memory, NODELAY),
        Contender(STORESCP, storescp(NODELAY), NODELAY),
        Contender("dcmtk storescp, TCP_NODELAY=1 and --max-pdu 131072", storescp(NODELAY, "-pdu", "131072"), NODELAY),
        Contender("dcmtk storescp as shipped", storescp(PLAIN), NODELAY, slow=True),
        Contender("Orthanc as shipped", orthanc, NODELAY, slow=True),
        Contender("this appliance, sender as shipped (no TCP_NODELAY)", appliance, PLAIN),
        Contender("dcmtk storescp, TCP_NODELAY=1, sender as shipped", storescp(NODELAY), PLAIN, slow=True),
    ]
    return [each for each in every if each.start is not orthanc or shutil.which("Orthanc")]


def measure(images: int, rounds: int) -> tuple[dict[tuple[str, int], float], int]:
    """Return images per second by contender and number of associations (median over rounds), and an image's size."""
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-ingest-") as name:
        work = Path(name)
        for number in range(4):
            size = make_images(work / f"fast{number}", images)
            make_images(work / f"slow{number}", max(10, images // 8))
        for turn in range(rounds):
            rates.setdefault((DISK, 1), []).append(disk_alone(work / f"disk{turn}", size))
            for contender in contenders():
                kind = "slow" if contender.slow else "fast"
                for associations in (1, 4):
                    folder = work / f"{turn}-{associations}"
                    folder.mkdir()
                    sources = [work / f"{kind}{number}" for number in range(associations)]
                    with contender.start(folder) as port:
                        seconds = send(sources, port, contender.sender_environment)
                    shutil.rmtree(folder)
                    sent = sum(len(list(source.iterdir())) for source in sources)
                    rates.setdefault((contender.name, associations), []).append(sent / seconds)
                    print(f"{contender.name}, {associations}: {sent / seconds:.0f}/s", file=sys.stderr)
    return {key: statistics.median(values) for key, values in rates.items()}, size


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200, help="images per association; slow receivers get an eighth")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not shutil.which("storescu"):
        raise SystemExit("dcmtk is not installed: apt-get install dcmtk")
    rates, size = measure(options.images, options.rounds)
    print("### DICOM ingest\n")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"{size / 1e6:.2f} MB images over loopback, sender storescu on the same cores, "
        f"median of {options.rounds} rounds.\n"
    )
    print("| receiver | images/s, 1 association | MB/s | of storescp | images/s, 4 associations | MB/s | of storescp |")
    print("|---|---|---|---|---|---|---|")
    disk = rates.pop((DISK, 1))
    for name in dict.fromkeys(name for name, _ in rates):
        cells = [name]
        for associations in (1, 4):
            rate = rates[name, associations]
            cells += [f"{rate:.0f}", f"{rate * size / 1e6:.0f}", f"{rate / rates[STORESCP, associations]:.2f}"]
        print("| " + " | ".join(cells) + " |")
    print(
        f"\nThe disk alone takes {disk:.0f} such files a second, each synced as the spool does; storescp syncs none.\n"
    )


if __name__ == "__main__":
    main()
