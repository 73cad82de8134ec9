"""Seconds and memory of the shipped network for one tile, per engine and precision, beside PyTorch eager.

Each contender runs in a process of its own, twice, in turns, so that neither memory nor a busy moment of the machine
is laid at another's door. Resampling a 300 × 512 × 512 volume to the network's grid and back is measured too, because
at 3 mm it costs as much as the network. How much of the machine INT8 networks use, ``bench_peak.py`` tells.

Run as ``python tests/benchmarks/bench_pack.py [--json FILE]``; prints Markdown tables.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

RECIPE = Path(__file__).parents[2] / "models" / "recipes" / "trunk"
THREADS = 2
ROUNDS = 2
RUNS = 5
PYTORCH = ("pytorch eager", "f32")


def machine() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {psutil.cpu_count()} cores"
    return platform.machine()


def contenders() -> list[tuple[str, str]]:
    from appliance.packs.registry import available

    (pack,) = available()
    ours = [(network.engine, precision) for network in pack.manifest.networks for precision in network.precisions]
    order = {"f32": 0, "bf16": 1, "int8": 2}
    ours.sort(key=lambda item: (item[0] == "openvino", order[item[1]]))
    return ([PYTORCH] if importlib.util.find_spec("torch") and RECIPE.is_dir() else []) + ours


def tile(patch: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 400, patch).astype(np.int16)


def torch_runner(patch):
    sys.path.insert(0, str(RECIPE))
    import torch
    from network import Trunk

    torch.set_num_threads(THREADS)
    network = Trunk().eval()
    hu = torch.from_numpy(tile(patch).astype(np.float32))[None, None]

    def run():
        with torch.inference_mode():
            return network(hu)

    return run, "f32"


def engine_runner(pack, engine: str, precision: str):
    from appliance.inference.engines import open_engine

    opened = open_engine(pack, engine=engine, precision=precision, threads=THREADS)
    hu = tile(pack.manifest.input.patch)
    return (lambda: opened.run(hu)), opened.precision


def measure(engine: str, precision: str) -> dict[str, object]:
    """Measure one contender in this process."""
    from appliance.packs.registry import available

    (pack,) = available()
    begun = time.perf_counter()
    if (engine, precision) == PYTORCH:
        run, used = torch_runner(pack.manifest.input.patch)
    else:
        run, used = engine_runner(pack, engine, precision)
    run()
    ready = time.perf_counter() - begun
    seconds = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_mib = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {"seconds": seconds, "ready_s": ready, "peak_mib": peak_mib, "used": used}


def opening() -> list[tuple[str, float, float]]:
    """Seconds until each network of OpenVINO is open: compiled, and read back from the disk."""
    from appliance.inference.engines import open_engine
    from appliance.packs.registry import available

    (pack,) = available()
    rows = []
    for precision in pack.automatic("openvino"):
        taken: dict[bool, list[float]] = {False: [], True: []}
        with tempfile.TemporaryDirectory() as name:
            for number in range(2 * ROUNDS + 4):
                kept = bool(number % 2)
                begun = time.perf_counter()
                cache = Path(name) if kept else None
                open_engine(pack, engine="openvino", precision=precision, threads=THREADS, cache=cache)
                if number > 1:  # the first of each warm up and fill the folder
                    taken[kept].append(time.perf_counter() - begun)
        rows.append((precision, min(taken[False]), min(taken[True])))
    return rows


def in_child(engine: str, precision: str) -> dict[str, object]:
    command = [sys.executable, __file__, "--one", engine, precision]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def resampling() -> list[tuple[str, float]]:
    from appliance.anatomy.native import native_mask
    from appliance.anatomy.organ_map import OrganMap, PackUse
    from appliance.inference.resample import to_canonical
    from appliance.scan import Volume

    matrix = np.array([[0, 0, 0.7, -180], [0, 0.7, 0, -180], [1.25, 0, 0, -190], [0, 0, 0, 1]])
    hu = np.random.default_rng(1).integers(-1000, 400, (300, 512, 512)).astype(np.int16)
    volume = Volume(hu, matrix)
    labels, rows = None, []
    for _ in range(3):
        begun = time.perf_counter()
        coarse, grid = to_canonical(volume, (3.0, 3.0, 3.0))
        rows.append(time.perf_counter() - begun)
    labels = np.zeros(coarse.shape, np.uint8)
    z, y, x = np.indices(labels.shape)
    for value, middle in ((3, 30), (2, 90)):
        labels[((x - middle) / 24) ** 2 + ((y - 60) / 38) ** 2 + ((z - 62) / 50) ** 2 < 1] = value
    use = PackUse("trunk", "0", "", "int8", "CPU", "openvino")
    organs = OrganMap(labels, grid.affine, {"lung_left": 2, "lung_right": 3}, use)
    back = []
    for _ in range(3):
        begun = time.perf_counter()
        native_mask(organs, volume, "lung_left", "lung_right")
        back.append(time.perf_counter() - begun)
    return [("300 × 512 × 512 to 3 mm", min(rows)), ("both lungs back to the scan's voxels", min(back))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "PRECISION"))
    parser.add_argument("--json", type=Path, help="also write the figures for the pack's manifest")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    found: dict[tuple[str, str], list[dict[str, object]]] = {}
    for _ in range(ROUNDS):
        for contender in contenders():
            found.setdefault(contender, []).append(in_child(*contender))
    best = {contender: min(second for run in runs for second in run["seconds"]) for contender, runs in found.items()}
    reference = next(iter(best.values()))
    date = datetime.now(UTC).date().isoformat()
    print(f"\n## One tile of the trunk pack ({machine()}, {THREADS} threads, {date})\n")
    print("| engine | precision used | best s | median s | times as fast as the first | ready after s | peak RSS MiB |")
    print("|---|---|---|---|---|---|---|")
    for contender, runs in found.items():
        seconds = [second for run in runs for second in run["seconds"]]
        print(
            f"| {contender[0]} | {runs[0]['used']} | {best[contender]:.3f} | {statistics.median(seconds):.3f} "
            f"| {reference / best[contender]:.1f} | {min(run['ready_s'] for run in runs):.1f} "
            f"| {max(run['peak_mib'] for run in runs):.0f} |"
        )
    if PYTORCH in best:
        quickest = min((contender for contender in best if contender[0] == "openvino"), key=lambda one: best[one])
        ratio = best[PYTORCH] / best[quickest]
        print(f"\nThe shipped BatchNorm network in {quickest[1]} is {ratio:.1f} times as fast as PyTorch eager in f32.")
    print("\n| OpenVINO | compiled, best s | read back from the disk, best s |\n|---|---|---|")
    for precision, compiled, read in opening():
        print(f"| {precision} | {compiled:.2f} | {read:.2f} |")
    print("\n| resampling | best s |\n|---|---|")
    for name, seconds in resampling():
        print(f"| {name} | {seconds:.2f} |")
    if options.json:
        entries = [
            {
                "engine": engine,
                "precision": precision,
                "seconds_per_tile": round(best[engine, precision], 3),
                "machine": machine(),
                "date": date,
            }
            for engine, precision in found
            if (engine, precision) != PYTORCH
        ]
        options.json.write_text(json.dumps(entries, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
