"""An imported network beside nnU-Net itself: seconds and peak memory for one real scan, and for resampling alone.

The network has the shape of TotalSegmentator's 3 mm model and was trained by ``tests/importing/test_proof.py``, whose
cache is used; without it only resampling is measured. Each contender runs in a process of its own with two threads.

Run as ``python tests/benchmarks/bench_import.py [--kind fast]``; prints Markdown tables.
"""

from __future__ import annotations

import argparse
import hashlib
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
IMPORTING = ROOT / "tests" / "importing"
SCAN = ROOT.parent / "shared" / "data" / "volumes-2mm" / "lidc_0002_plain.nii.gz"
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


def end_to_end(kind: str, precision: str) -> None:
    root = Path(os.environ.get("APPLIANCE_TEST_CACHE") or Path.home() / ".cache" / "appliance-tests")
    digest = hashlib.sha256((IMPORTING / "train_nnunet.py").read_bytes()).hexdigest()[:12]
    found = list((root / f"nnunet-{kind}-{digest}").glob("results/*/*/plans.json"))
    if not found or not SCAN.is_file():
        print(f"No trained network of kind {kind} is cached; run tests/importing/test_proof.py first.")
        return
    from appliance.packs.importing.nnunet import import_nnunet
    from appliance.packs.importing.write import Declaration

    results = found[0].parent
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "labels.npz"
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(IMPORTING / "compare_nnunet.py"),
            str(results),
            str(SCAN),
            str(out),
        ]
        subprocess.run(command, capture_output=True, check=True)
        with np.load(out) as theirs:
            parts, peak = theirs["seconds"].tolist(), float(theirs["peak_rss_mb"])
        said = Declaration("bench", "0.1.0", "not stated", "restricted", "Measuring.")
        import_nnunet(results, Path(made) / "pack", said, precisions=("f32", "bf16"))
        ours = {used: apart("pack", str(Path(made) / "pack"), used) for used in precision.split(",")}
    print(f"\n{kind}: {SCAN.name}, seconds end to end to a label map\n")
    print("| who | seconds | peak MB | times faster |\n|---|---|---|---|")
    labelled = parts[0] + parts[1]
    print(f"| nnU-Net, labels on its own grid | {labelled:.1f} | {peak:.0f} | 1 |")
    print(f"| nnU-Net, labels on the scan's grid | {sum(parts):.1f} | {peak:.0f} | |")
    for used, figures in ours.items():
        share = labelled / figures["seconds"]
        print(f"| pack, {used} | {figures['seconds']:.1f} | {figures['peak_mb']:.0f} | {share:.1f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="fast")
    parser.add_argument("--precision", default="f32,bf16")
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    if options.only:
        what, *rest = options.only
        print(json.dumps(resampling(*rest) if what == "resampling" else pack_alone(*rest)))
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
    end_to_end(options.kind, options.precision)


if __name__ == "__main__":
    main()
