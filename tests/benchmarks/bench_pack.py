"""Seconds and memory of the shipped network for one tile, per engine and precision, beside PyTorch eager.

Each contender runs in a process of its own, twice, in turns, so that neither memory nor a busy moment of the machine
is laid at another's door. Resampling a 300 × 512 × 512 volume to the network's grid and back is measured too, because
at 3 mm it costs as much as the network. How much of the machine the INT8 network uses is told by its operations a
second beside those of large INT8 convolutions, measured in turns in one process.

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


def operations(network) -> int:
    """Multiplications and additions of a network's convolutions."""
    total = 0
    for op in network.get_ordered_ops():
        kind = op.get_type_name()
        if kind not in {"Convolution", "ConvolutionBackpropData"}:
            continue
        weights = list(op.input(1).get_shape())  # out, in, … ; a transposed convolution's are in, out, …
        places = list(op.output(0).get_shape() if kind == "Convolution" else op.input(0).get_shape())[2:]
        total += 2 * int(np.prod(weights)) * int(np.prod(places))
    return total


def large_convolutions(openvino, channels: int, size: tuple[int, ...], depth: int = 4):
    """Quantised convolutions one after the other, of a size that a processor likes best."""
    ops = openvino.opset13

    def quantised(values, low: float, high: float, levels: int):
        ends = [ops.constant(np.float32(end)) for end in (low, high)]
        return ops.fake_quantize(values, *ends, *ends, levels)

    rng = np.random.default_rng(0)
    kernel, dimensions = [3] * len(size), len(size)
    current = start = ops.parameter([1, channels, *size], np.float32)
    for _ in range(depth):
        weights = rng.normal(0, 0.02, (channels, channels, *kernel)).astype(np.float32)
        most = float(np.abs(weights).max())
        convolved = ops.convolution(
            quantised(current, 0.0, 2.55, 256),
            quantised(ops.constant(weights), -most, most, 255),
            [1] * dimensions,
            [1] * dimensions,
            [1] * dimensions,
            [1] * dimensions,
        )
        current = ops.relu(convolved)
    return openvino.Model([current], [start])


#: Channels and places of the convolutions whose best is taken for the machine's peak.
LARGE = ((128, (32, 32, 32)), (256, (16, 32, 32)), (256, (32, 32, 32)), (512, (16, 16, 16)), (256, (64, 64)))
PEAK_ROUNDS = 8


def measure_peak() -> dict[str, float]:
    """Operations a second of the INT8 network and of large INT8 convolutions, in turns in this process."""
    from appliance.inference.engines import import_openvino, open_engine
    from appliance.packs.registry import available

    (pack,) = available()
    openvino = import_openvino()
    core = openvino.Core()
    network = core.read_model(pack.network("openvino", "int8"))
    network.reshape([1, 1, *pack.manifest.input.patch])
    engine, hu = (
        open_engine(pack, engine="openvino", precision="int8", threads=THREADS),
        tile(pack.manifest.input.patch),
    )
    runs = {"network": (operations(network), lambda: engine.run(hu))}
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": THREADS,
    }
    for channels, size in LARGE:
        model = large_convolutions(openvino, channels, size)
        request = core.compile_model(model, "CPU", options).create_infer_request()
        request.set_input_tensor(openvino.Tensor(np.random.default_rng(1).random((1, channels, *size), np.float32)))
        runs[f"{channels} channels, {' × '.join(map(str, size))}"] = (operations(model), request.infer)
    best = dict.fromkeys(runs, np.inf)
    for number in range(PEAK_ROUNDS + 1):
        for name, (_, run) in runs.items():
            begun = time.perf_counter()
            run()
            if number:
                best[name] = min(best[name], time.perf_counter() - begun)
    return {name: runs[name][0] / best[name] / 1e9 for name in runs} | {"gop": runs["network"][0] / 1e9}


def print_peak() -> None:
    """Print how much of the machine's own INT8 peak the network reaches."""
    done = subprocess.run([sys.executable, __file__, "--peak"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    gop, network = found.pop("gop"), found.pop("network")
    peak = max(found, key=lambda name: found[name])
    print(f"\n| INT8, {THREADS} threads | GOP/s | of the peak |\n|---|---|---|")
    print(f"| trunk network, {gop:.0f} GOP a tile | {network:.0f} | {network / found[peak]:.2f} |")
    for name, speed in found.items():
        words = f"convolutions of {name}{' (the peak)' if name == peak else ''}"
        print(f"| {words} | {speed:.0f} | {speed / found[peak]:.2f} |")


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
    parser.add_argument("--peak", action="store_true", help="only the operations a second, as JSON")
    parser.add_argument("--json", type=Path, help="also write the figures for the pack's manifest")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    if options.peak:
        print(json.dumps(measure_peak()))
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
    if ("openvino", "int8") in best:
        if PYTORCH in best:
            ratio = best[PYTORCH] / best["openvino", "int8"]
            print(f"\nThe shipped BatchNorm network in INT8 is {ratio:.1f} times as fast as PyTorch eager in f32.")
        print_peak()
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
