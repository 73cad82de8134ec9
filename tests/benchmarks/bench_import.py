"""An imported network beside nnU-Net itself: seconds and peak memory for one real scan, and for resampling alone.

The network has the plan of TotalSegmentator's 3 mm model (32 classes) and was trained by
``tests/importing/test_full_size.py``, whose cache is used; without it ``--train`` trains it first (minutes), else only
resampling is measured. Each contender runs in a process of its own with two threads, one after the other.

Run as ``python tests/benchmarks/bench_import.py [--kind fast] [--train]``; prints Markdown tables, and whether the aims
are met: six times as fast as nnU-Net, with a third of its memory, to a label map of the network's own grid.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
IMPORTING = ROOT / "tests" / "importing"
SCAN = ROOT.parent / "shared" / "data" / "volumes-2mm" / "lidc_0002_plain.nii.gz"
AIM_FASTER, AIM_MEMORY = 6.0, 1 / 3
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


def pack_alone(folder: str, precision: str) -> dict[str, float]:
    import nibabel

    from appliance.anatomy.mapper import network_labels
    from appliance.inference.engines import open_engine
    from appliance.packs.pack import load
    from appliance.scan import Volume

    pack = load(Path(folder))
    engine = open_engine(pack, engine="openvino", precision=precision, threads=2)
    image = nibabel.load(SCAN)
    affine = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)[:, [2, 1, 0, 3]]
    volume = Volume(np.ascontiguousarray(np.asarray(image.dataobj).astype(np.int16).transpose(2, 1, 0)), affine)
    started = time.perf_counter()
    network_labels(volume, pack, engine)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def apart(*arguments: str) -> dict[str, float]:
    """Run one contender in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--only", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def results_of(kind: str, *, train: bool) -> Path | None:
    """nnU-Net's results folder of a kind, or nothing."""
    from tests.importing.proving import DATA, FOLDER, cached, train_once

    if not SCAN.is_file() or not (train or cached(kind, "train_nnunet.py").is_dir()):
        return None
    return train_once(kind, "train_nnunet.py", kind, FOLDER, DATA)


def nnunet_alone(results: Path, out: Path) -> tuple[list[float], float, float]:
    """Seconds to resample, infer and bring labels to the scan's grid; peak in MB after inference, and in the end."""
    script = str(IMPORTING / "compare_nnunet.py")
    command = [sys.executable, "-W", "ignore", script, str(results), str(SCAN), str(out)]
    subprocess.run(command, capture_output=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "2"})
    with np.load(out) as theirs:
        return theirs["seconds"].tolist(), float(theirs["own_grid_rss_mb"]), float(theirs["peak_rss_mb"])


def end_to_end(kind: str, precision: str, *, train: bool) -> None:
    results = results_of(kind, train=train)
    if results is None:
        print(f"No trained network of kind {kind} is cached; --train trains it, where the real scans are.")
        return
    with tempfile.TemporaryDirectory() as made:
        pack = Path(made) / "pack"
        apart("import", str(results), str(pack))  # not in this process: its memory would be everybody's
        ours = {used: apart("pack", str(pack), used) for used in precision.split(",")}
        parts, peak, peak_in_the_end = nnunet_alone(results, Path(made) / "labels.npz")
    print(f"\n{kind}: {SCAN.name}, end to end to a label map\n")
    print("| who | seconds | peak MB | times faster | share of the memory |\n|---|---|---|---|---|")
    labelled = parts[0] + parts[1]
    print(f"| nnU-Net, labels on its own grid | {labelled:.1f} | {peak:.0f} | 1 | 1 |")
    print(f"| nnU-Net, labels on the scan's grid | {sum(parts):.1f} | {peak_in_the_end:.0f} | | |")
    for used, figures in ours.items():
        faster, share = labelled / figures["seconds"], figures["peak_mb"] / peak
        print(f"| pack, {used} | {figures['seconds']:.1f} | {figures['peak_mb']:.0f} | {faster:.1f} | {share:.2f} |")
    faster = max(labelled / figures["seconds"] for figures in ours.values())
    share = min(figures["peak_mb"] / peak for figures in ours.values())
    print(f"\nAim of 6 times as fast {'met' if faster >= AIM_FASTER else 'missed'} ({faster:.1f}); ", end="")
    print(f"aim of a third of the memory {'met' if share <= AIM_MEMORY else 'missed'} ({share:.2f}).")


def import_alone(results: str, pack: str) -> dict[str, float]:
    from appliance.packs.importing.nnunet import import_nnunet
    from appliance.packs.importing.write import Declaration
    from tests.importing.stand_ins import stand_ins

    said = Declaration("bench", "0.1.0", "not stated", "restricted", "Measuring.")
    started = time.perf_counter()
    import_nnunet(
        Path(results),
        Path(pack),
        said,
        structures=stand_ins(Path(results)),
        precisions=("f32", "bf16"),
        drop_unknown=True,
    )
    return {"seconds": time.perf_counter() - started}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="fast")
    parser.add_argument("--precision", default="f32,bf16")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    if options.only:
        what, *rest = options.only
        contenders = {"resampling": resampling, "pack": pack_alone, "import": import_alone}
        print(json.dumps(contenders[what](*rest)))
        return
    if importlib.util.find_spec("nnunetv2") is None:
        print("nnunetv2 is not installed, so there is nothing to compare an import with.")
        return
    print(f"Resampling {' × '.join(map(str, SHAPE))} voxels to {TARGET[0]:g} mm\n")
    print("| who | seconds | MB beside the scan |\n|---|---|---|")
    for who in ("nnU-Net", "nnunet", "area"):
        figures = apart("resampling", who)
        name = {"nnU-Net": "nnU-Net's", "nnunet": "ours, nnU-Net's way", "area": "ours, anti-aliased"}[who]
        print(f"| {name} | {figures['seconds']:.2f} | {figures['added_mb']:.0f} |")
    end_to_end(options.kind, options.precision, train=options.train)


if __name__ == "__main__":
    main()
