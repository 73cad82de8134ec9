"""An imported network beside nnU-Net itself: seconds and peak memory for one real scan, and for resampling alone.

The network has the plan of TotalSegmentator's 3 mm model (32 classes) and was trained by
``tests/importing/test_full_size.py``, whose cache is used; without it ``--train`` trains it first (minutes), else only
resampling is measured. Beside it stands the same plan with BatchNorm and ReLU in place of InstanceNorm and LeakyReLU,
with random weights, because only its speed is looked at. Each contender runs in a process of its own with two threads,
one after the other, ``--rounds`` times in turns; the best counts.

A pack has run its test vector before, as a service has before the first scan. ``+fit`` lets a scan take one of a few
larger tiles (:mod:`appliance.inference.fitting`), compiled within the time that is measured; ``+skip-air`` cuts off the
room around the patient.

Run as ``python tests/benchmarks/bench_import.py [--train] [--rounds N] [--scan NIFTI]``; prints Markdown tables, and
whether the aims are met: six times as fast as nnU-Net with a third of its memory, ten times with BatchNorm, to a label
map of the network's own grid. Processor seconds are printed too: they tell less of what else the machine does.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from appliance.inference.engines import Engine
    from appliance.packs.pack import Pack

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
IMPORTING = ROOT / "tests" / "importing"
SCAN = ROOT.parent / "shared" / "data" / "volumes-2mm" / "lidc_0002_plain.nii.gz"
#: Shapes of a tile that ``+fit`` may take beside the plan's own.
FIT = ((112, 128, 128), (112, 144, 160), (144, 176, 192))
THREADS = 2
AIM_FASTER, AIM_FASTER_BATCHNORM, AIM_MEMORY = 6.0, 10.0, 1 / 3
INT8 = "int8.xml"
SHAPE, SPACING, TARGET = (300, 512, 512), (1.0, 0.7, 0.7), (3.0, 3.0, 3.0)


def synthetic() -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.integers(-1000, 1000, tuple(size // 4 for size in SHAPE)).astype(np.int16)
    return coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)


def resampling(who: str) -> dict[str, float]:
    hu = synthetic()
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if who == "nnU-Net":
        from nnunetv2.preprocessing.resampling.default_resampling import (
            compute_new_shape,
            resample_data_or_seg_to_shape,
        )

        started = time.perf_counter()
        shape = compute_new_shape(hu.shape, SPACING, TARGET)
        resample_data_or_seg_to_shape(hu.astype(np.float32)[None], shape, SPACING, TARGET, force_separate_z=None)
    else:
        from appliance.inference.resample import to_canonical
        from appliance.scan import Volume

        affine = np.diag([*SPACING, 1.0])[:, [0, 1, 2, 3]]
        affine[:3, :3] = affine[:3, :3][::-1]
        started = time.perf_counter()
        to_canonical(Volume(hu, affine), TARGET, method=who, clip_hu=(-1000.0, 1500.0))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "added_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024}


def used_s() -> float:
    """Processor seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def opened(pack: Pack, precision: str, *, fit: bool) -> Engine:
    """Compile a pack's network, and run its test vector as a service does when it starts."""
    from appliance.inference.engines import OpenVinoEngine, open_engine
    from appliance.inference.fitting import FittingEngine
    from appliance.inference.tiling import count_tiles
    from appliance.packs.selftest import vector_agreement

    own = pack.manifest.input.patch

    def compiled(patch: tuple[int, int, int]) -> Engine:
        if precision == "int8":
            return OpenVinoEngine(pack.path / INT8, patch, "int8", THREADS, None)
        return open_engine(pack, engine="openvino", precision=precision, threads=THREADS, patch=patch)

    engine = compiled(own)
    started = time.perf_counter()
    vector_agreement(pack, engine, expected_in="f32")
    if not fit:
        return engine
    # As many voxels, as much time: `packs bench` would measure each.
    each = (time.perf_counter() - started) / np.prod(own)
    seconds = {patch: float(each * np.prod(patch)) for patch in (own, *FIT)}
    return FittingEngine(engine, compiled, seconds, partial(count_tiles, overlap=pack.manifest.input.overlap))


def pack_alone(folder: str, way: str, labels: str, scan: str) -> dict[str, float]:
    """Label the scan; ``way`` is a precision, with ``+skip-air``, ``+fit``, or both."""
    import scipy.ndimage  # noqa: F401  # nnU-Net has imported it too before it is timed

    from appliance.anatomy import mapper
    from appliance.packs.pack import load
    from tests.importing.proving import agreement, along_axes, as_volume

    precision, *options = way.split("+")
    pack = load(Path(folder), verify=False)
    seen = pack.manifest.input.model_copy(update={"skip_air": "skip-air" in options})
    pack = dataclasses.replace(pack, manifest=pack.manifest.model_copy(update={"input": seen}))
    begun = time.perf_counter()
    engine = opened(pack, precision, fit="fit" in options)
    ready = time.perf_counter()
    volume = as_volume(Path(scan))
    spent = {"resample": 0.0, "network": 0.0}
    resample, run = mapper.resample_for, engine.run

    def timed(part, function):
        def call(*arguments):
            started = time.perf_counter()
            answer = function(*arguments)
            spent[part] += time.perf_counter() - started
            return answer

        return call

    mapper.resample_for, engine.run = timed("resample", resample), timed("network", run)
    started, used = time.perf_counter(), used_s()
    found, _ = mapper.network_labels(volume, pack, engine)
    seconds, used = time.perf_counter() - started, used_s() - used
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with np.load(labels) as theirs:
        same = agreement(along_axes(pack, found), theirs["network"])
    return {
        "seconds": seconds,
        "cpu_s": used,
        "peak_mb": peak_mb,
        "same": same,
        "open": ready - begun,
        **spent,
        "rest": seconds - sum(spent.values()),
    }


def apart(*arguments: str) -> dict[str, float]:
    """Run one contender in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--only", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def results_of(*, train: bool) -> Path | None:
    """nnU-Net's results folder, or nothing."""
    from tests.importing.proving import fast_is_trained, train_fast

    return train_fast() if SCAN.is_file() and (train or fast_is_trained()) else None


def with_batch_norm(results: str, out: str) -> dict[str, float]:
    """Write a results folder of the same plan with BatchNorm, ReLU and random weights."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans = json.loads((Path(results) / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"] |= {
        "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d",
        "nonlin": "torch.nn.ReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    dataset = (Path(results) / "dataset.json").read_text()
    torch.manual_seed(1)
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(json.loads(dataset)["labels"]),
        deep_supervision=True,
    )
    fold = Path(out) / "fold_all"
    fold.mkdir(parents=True)
    content = torch.load(Path(results) / "fold_all" / "checkpoint_final.pth", weights_only=False)
    content["network_weights"] = network.state_dict()
    content["init_args"]["plans"] = plans
    content.pop("optimizer_state", None)
    torch.save(content, fold / "checkpoint_final.pth")
    (Path(out) / "plans.json").write_text(json.dumps(plans))
    (Path(out) / "dataset.json").write_text(dataset)
    return {}


def nnunet_alone(results: str, labels: str, scan: str) -> dict[str, float]:
    """Resample, infer, and bring labels to the scan's grid; the peak after inference, and in the end."""
    command = [sys.executable, "-W", "ignore", str(IMPORTING / "compare_nnunet.py"), results, scan, labels]
    subprocess.run(command, capture_output=True, check=True, env=os.environ | {"OMP_NUM_THREADS": str(THREADS)})
    with np.load(labels) as theirs:
        resampled, inferred, native = theirs["seconds"].tolist()
        return {
            "resample": resampled,
            "network": inferred,
            "seconds": resampled + inferred,
            "cpu_s": float(theirs["own_grid_cpu_s"]),
            "peak_mb": float(theirs["own_grid_rss_mb"]),
            "native_s": native,
            "native_peak_mb": float(theirs["peak_rss_mb"]),
        }


def best_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The quickest round; memory is the largest of all."""
    return min(rounds, key=lambda one: one["seconds"]) | {"peak_mb": max(one["peak_mb"] for one in rounds)}


def end_to_end(results: Path, scan: Path, ways: list[str], title: str, aim: float, rounds: int) -> None:
    """Measure one network both ways, in turns, and print."""
    with tempfile.TemporaryDirectory() as made:
        pack = Path(made) / "pack"
        apart("import", str(results), str(pack), *(["int8"] if any(way.startswith("int8") for way in ways) else []))
        theirs, ours = [], {way: [] for way in ways}
        labels = str(Path(made) / "labels.npz")
        for _ in range(rounds):
            theirs.append(apart("nnunet", str(results), labels, str(scan)))
            for way, taken in ours.items():
                taken.append(apart("pack", str(pack), way, labels, str(scan)))
    peer, found = best_of(theirs), {used: best_of(taken) for used, taken in ours.items()}
    print(f"\n{title}: {scan.name}, to labels on the network's own grid, best of {rounds}\n")
    titles = ("resample s", "network s", "sums, labels s", "all s", "processor s", "peak MB", "times faster", "memory")
    print(f"| who | {' | '.join(titles)} | equal labels |\n|{'---|' * (len(titles) + 2)}")
    row = "| {} | {:.1f} | {:.1f} | {} | {:.1f} | {:.1f} | {:.0f} | {} | {} | {} |"
    parts = (peer["resample"], peer["network"], "with the network", peer["seconds"], peer["cpu_s"], peer["peak_mb"])
    print(row.format("nnU-Net", *parts, 1, 1, 1))
    for way, one in found.items():
        faster, share = peer["seconds"] / one["seconds"], one["peak_mb"] / peer["peak_mb"]
        parts = (one["resample"], one["network"], f"{one['rest']:.1f}", one["seconds"], one["cpu_s"], one["peak_mb"])
        print(row.format(f"pack, {way}", *parts, f"{faster:.1f}", f"{share:.2f}", f"{one['same']:.4f}"))
    ready = ", ".join(f"{way} {one['open']:.1f} s" for way, one in found.items())
    print(f"\nBefore the first scan a pack's network is compiled and tested: {ready}. To bring labels to the scan's")
    print(f"own voxels, nnU-Net takes {peer['native_s']:.1f} s more and peaks at {peer['native_peak_mb']:.0f} MB.")
    for way, one in found.items():
        faster, share = peer["seconds"] / one["seconds"], one["peak_mb"] / peer["peak_mb"]
        print(
            f"{way}: aim of {aim:g} times as fast {'met' if faster >= aim else 'missed'} ({faster:.1f}), "
            f"aim of a third of the memory {'met' if share <= AIM_MEMORY else 'missed'} ({share:.2f})."
        )


def import_alone(results: str, pack: str, *also: str) -> dict[str, float]:
    """Make the pack; with ``int8``, also its quantised network, calibrated with one tile and judged by nobody."""
    from appliance.packs.importing.nnunet import import_nnunet
    from appliance.packs.importing.write import Declaration, phantom_tile
    from tests.importing.stand_ins import stand_ins

    said = Declaration("bench", "0.1.0", "not stated", "restricted", "Measuring.")
    made = import_nnunet(
        Path(results),
        Path(pack),
        said,
        structures=stand_ins(Path(results)),
        precisions=("f32", "bf16"),
        drop_unknown=True,
    )
    if also:
        from appliance.packs.quantising.network import FloatNetwork

        wanted = made.manifest.input
        network = FloatNetwork(made.network("openvino", "f32"), wanted.patch)
        network.save(network.quantise([phantom_tile(wanted.patch, wanted)]), made.path / INT8)
    return {}


CONTENDERS = {
    "resampling": resampling,
    "pack": pack_alone,
    "import": import_alone,
    "nnunet": nnunet_alone,
    "batchnorm": with_batch_norm,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ways", default="f32,bf16,bf16+fit,int8,int8+fit")
    parser.add_argument("--ways-batchnorm", default="bf16,int8,int8+fit")
    parser.add_argument("--scan", type=Path, default=SCAN)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        what, *rest = options.only
        print(json.dumps(CONTENDERS[what](*rest)))
        return
    if importlib.util.find_spec("nnunetv2") is None:
        print("nnunetv2 is not installed, so there is nothing to compare an import with.")
        return
    from appliance.packs.quantising.trial import machine

    print(f"\n### Imported networks beside nnU-Net ({machine()}, {datetime.now(UTC).date()})\n")
    print(f"{THREADS} threads each; load before: {os.getloadavg()[0]:.1f}.\n")
    print(f"Resampling {' × '.join(map(str, SHAPE))} voxels to {TARGET[0]:g} mm\n")
    print("| who | seconds | MB beside the scan |\n|---|---|---|")
    for who, name in (("nnU-Net", "nnU-Net's"), ("nnunet", "ours, nnU-Net's way"), ("area", "ours, anti-aliased")):
        figures = min((apart("resampling", who) for _ in range(options.rounds)), key=lambda one: one["seconds"])
        print(f"| {name} | {figures['seconds']:.2f} | {figures['added_mb']:.0f} |")
    results = results_of(train=options.train)
    if results is None:
        print("The full-sized network is not trained yet; --train trains it, where the real scans are.")
        return
    title, ways = "InstanceNorm, LeakyReLU (trained)", options.ways.split(",")
    end_to_end(results, options.scan, ways, title, AIM_FASTER, options.rounds)
    with tempfile.TemporaryDirectory() as made:
        other = Path(made) / "batchnorm"
        apart("batchnorm", str(results), str(other))
        title, ways = "BatchNorm, ReLU (random weights)", options.ways_batchnorm.split(",")
        end_to_end(other, options.scan, ways, title, AIM_FASTER_BATCHNORM, options.rounds)


if __name__ == "__main__":
    main()
