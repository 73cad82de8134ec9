"""From the last image to stored findings: seconds and peak memory for a 300-slice 512 × 512 series.

Starts a whole appliance, sends it the test patient (or DICOM given as arguments) through its port, and prints a
Markdown table. ``python tests/benchmarks/bench_pipeline.py [PATH…]``
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from appliance.config import Settings

REPOSITORY = Path(__file__).parents[2]
SLICES = 300


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def material(folder: Path) -> list[Path]:
    """The test patient: 300 slices of 1.25 mm at 512 × 512."""
    from appliance.phantom import PhantomOptions, write_series

    options = PhantomOptions(slice_thickness_mm=1.25, slice_spacing_mm=1.25)
    write_series(options, folder)
    files = sorted(folder.glob("*.dcm"))
    middle = len(files) // 2
    return files[max(0, middle - SLICES // 2) : middle + SLICES // 2]


def tree_peak_mib(process: psutil.Process, peaks: dict[str, float]) -> None:
    """Note the largest resident size so far of each process of the appliance, by what it does."""
    for child in process.children(recursive=True):
        try:
            words = child.cmdline()
            name = "screener" if any("screener" in word for word in words) else words[3] if len(words) > 3 else "?"
            peaks[name] = max(peaks.get(name, 0.0), child.memory_info().rss / 2**20)
        except (psutil.Error, IndexError):
            continue


def main() -> None:
    from appliance.commands.demo import configuration
    from appliance.config import load

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) > 1:
            from appliance.dicom.image.files import read_inputs

            inputs = read_inputs([Path(argument) for argument in sys.argv[1:]], folder / "input")
            files = [path for series in inputs.series for path in series.paths]
        else:
            files = material(folder / "patient")
        settings_path = folder / "appliance.toml"
        settings_path.write_text(configuration(folder / "state"), encoding="utf-8")
        settings = load(settings_path)
        with (folder / "log").open("wb") as log:
            serve = subprocess.Popen(
                [sys.executable, "-m", "appliance", "serve", "--config", str(settings_path)], stdout=log, stderr=log
            )
            try:
                measured = run_once(serve.pid, files, settings)
            finally:
                serve.terminate()
                serve.wait(30)
    print_table(len(files), measured)


def run_once(pid: int, files: list[Path], settings: Settings) -> dict[str, Any]:
    """Send, wait for the end of the scan's life, and tell how long each part took."""
    from appliance.dicom.network.sender import send
    from appliance.store.database import open_database
    from appliance.store.lifecycle import TERMINAL

    heartbeat = settings.box.state_directory / "run" / "receive.json"
    while not heartbeat.exists():
        time.sleep(0.1)
    port = json.loads(heartbeat.read_text())["port"]
    began = time.monotonic()
    report = send(files, host="127.0.0.1", port=port, called_ae="APPLIANCE", calling_ae="DEMO")
    last_image = time.monotonic()
    assert report.ok, report.problem
    peaks: dict[str, float] = {}
    process = psutil.Process(pid)
    while True:
        tree_peak_mib(process, peaks)
        with open_database(settings.box.database, read_only=True) as store:
            scans = store.scans.last(10)
            if scans and all(scan.state in TERMINAL for scan in scans):
                break
        time.sleep(0.05)
    finished = time.monotonic()
    with open_database(settings.box.database, read_only=True) as store:
        result = store.results.get(scans[0].id)
    assert result is not None, scans[0].reason
    return {
        "send_s": last_image - began,
        "to_findings_s": finished - last_image,
        "quiet_s": settings.assemble.quiet_s,
        **result.report["timings"],
        "peaks": peaks,
    }


def print_table(slices: int, row: dict[str, Any]) -> None:
    print("### From the last image to stored findings\n")
    print(f"{slices} slices, {cpu_name()}, {psutil.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}\n")
    print("| step | seconds |\n|---|---|")
    print(f"| sending (same machine) | {row['send_s']:.1f} |")
    print(f"| last image to stored findings, all told | {row['to_findings_s']:.1f} |")
    print(f"| of which the configured quiet time | {row['quiet_s']:.1f} |")
    for name in ("decode_s", "organ_map_s", "screenings_s", "total_s"):
        print(f"| {name.removesuffix('_s').replace('_', ' ')} | {row[name]:.1f} |")
    print("\n| process | peak resident MiB |\n|---|---|")
    for name, peak in sorted(row["peaks"].items()):
        print(f"| {name} | {peak:.0f} |")
    print(f"| all together, at most | {sum(row['peaks'].values()):.0f} |")


if __name__ == "__main__":
    main()
