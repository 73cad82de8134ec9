"""From the last image to stored findings: seconds and peak memory for 300 slices of 512 × 512, and what takes them.

Starts a whole appliance, sends it the test patient (or DICOM given as arguments) through its port, and prints Markdown
tables. Then the same stages run once more in this process, where processor time can be told from waiting for others.
``python tests/benchmarks/bench_pipeline.py [PATH…]``
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.config import Settings

REPOSITORY = Path(__file__).parents[2]
SLICES = 300
#: From L4 to above the lungs, so that every screening has all that it asks for.
SPACING_MM, LOWEST_MM = 1.56, -205.0


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def material(folder: Path) -> list[Path]:
    """A test patient with something for every screening: 300 slices at 512 × 512."""
    from appliance.phantom import Calcification, PhantomOptions, WedgeFracture, write_series

    options = PhantomOptions(
        slice_thickness_mm=SPACING_MM,
        slice_spacing_mm=SPACING_MM,
        coverage_low_mm=LOWEST_MM,
        coverage_high_mm=LOWEST_MM + SPACING_MM * (SLICES - 1) + 0.5,
        calcifications=(Calcification(),),
        emphysema_fraction=0.08,
        effusion_left_ml=300.0,
        kidney_stone_diameter_mm=8.0,
        wedge_fracture=WedgeFracture(),
    )
    write_series(options, folder)
    return sorted(folder.glob("*.dcm"))


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
    from appliance.logs import configure

    configure("error", "text")
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
        print_stages(len(files), stages(files))


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
    refused = [result.problem for result in report.results if result.problem]
    assert report.ok, report.problem or refused[0]
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


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: seconds on the clock, seconds of processor, and what it ended in."""

    name: str
    wall_s: float
    cpu_s: float
    result: str = ""


def stages(files: list[Path]) -> list[Stage]:
    """Screen in this process, stage by stage, with a network that has been loaded; what is shared is the first's."""
    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.mapper import map_with
    from appliance.anatomy.plausibility import implausible
    from appliance.config import Settings
    from appliance.dicom.image.volume import build_scan
    from appliance.inference.engines import open_engine
    from appliance.packs.pack import load as load_pack
    from appliance.screenings.guards import judge
    from appliance.screenings.planner import plan, run_entry

    found: list[Stage] = []

    def clocked(name: str, run: Callable[[], Any]) -> Any:
        wall, cpu = time.monotonic(), time.process_time()
        answer = run()
        found.append(Stage(name, time.monotonic() - wall, time.process_time() - cpu))
        return answer

    pack = load_pack(REPOSITORY / "models" / "trunk")
    engine = open_engine(pack, threads=2)
    scan = clocked("decode", lambda: build_scan(files))
    map_with(scan.volume, pack, engine)  # the first run of a network allocates
    organs = clocked("organ map", lambda: map_with(scan.volume, pack, engine))
    doubts = clocked("plausibility of the map", lambda: implausible(organs))
    image = clocked("contrast, air, metal", lambda: judge(scan, organs, doubts))
    anatomy = Anatomy(scan.volume, organs, doubts)
    for entry in plan(scan, organs.structures, Settings().screenings).entries:
        outcome = clocked(entry.screening.name, lambda entry=entry: run_entry(entry, scan, anatomy, image))
        ended = outcome.reason.code.value if outcome.reason else outcome.status.value
        found[-1] = replace(found[-1], result=ended)
    return found


def print_stages(slices: int, found: list[Stage]) -> None:
    print("\n### Where the time goes\n")
    print(
        f"{slices} slices in one process with the network loaded, {cpu_name()}, {psutil.cpu_count()} cores, load "
        f"{psutil.getloadavg()[0]:.1f}, {datetime.now(UTC):%Y-%m-%d}. What several screenings share (spine, rib cage, "
        "vessels, masks) is in the first that asks.\n"
    )
    print("| stage | seconds | of processor | ended in |\n|---|---|---|---|")
    for stage in found:
        print(f"| {stage.name.replace('_', ' ')} | {stage.wall_s:.2f} | {stage.cpu_s:.2f} | {stage.result} |")
    print(f"| all | {sum(s.wall_s for s in found):.2f} | {sum(s.cpu_s for s in found):.2f} | |")


if __name__ == "__main__":
    main()
