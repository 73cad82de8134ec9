"""Dice per structure on the held-out scans, through the product's own path (resampling, tiles, tidying), per precision.

python evaluate.py --pack ../../trunk --data ../../../../shared/data --labels FOLDER --out evaluation.json
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import time
from pathlib import Path

import numpy as np
from labels import IGNORE
from scans import RawScan, read_all

from appliance.anatomy.mapper import map_with
from appliance.inference.engines import open_engine
from appliance.packs.pack import Pack, load
from appliance.scan import Volume

PRECISIONS = ("f32", "bf16", "int8")


def volume_of(scan: RawScan) -> Volume:
    """Wrap canonical arrays as a volume whose axes grow to head, back and left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *scan.spacing_mm, 1.0
    return Volume(scan.hu, affine)


def dice(found: np.ndarray, truth: np.ndarray, value: int) -> float | None:
    """Dice of one label where the truth is known; ``None`` when the truth has too little of it."""
    known = truth != IGNORE
    a, b = (found == value) & known, (truth == value) & known
    if np.count_nonzero(b) < 50:
        return None
    return round(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)), 4)


def whole_body(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice of everything that belongs to the patient, whatever it is called."""
    known = truth != IGNORE
    a, b = (found > 0) & known, (truth > 0) & known
    return round(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)), 4)


def machine() -> str:
    """Name the processor, for the tables."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def evaluate(pack: Pack, data: Path, labels: Path) -> dict[str, object]:
    """Run every held-out scan in every precision the pack has."""
    scans: dict[str, dict[str, dict[str, float | None]]] = {}
    seconds: dict[str, list[float]] = {}
    held_out = [scan for scan in read_all(data) if scan.held_out]
    for precision in PRECISIONS:
        if pack.network("openvino", precision) is None:
            continue
        engine = open_engine(pack, engine="openvino", precision=precision, threads=2)
        for scan in held_out:
            with np.load(labels / f"{scan.name}.npz") as item:
                truth = item["labels"]
            begun = time.perf_counter()
            found = map_with(volume_of(scan), pack, engine).labels
            seconds.setdefault(precision, []).append(time.perf_counter() - begun)
            scans.setdefault(scan.name, {})[precision] = {
                name: dice(found, truth, value) for name, value in pack.structures.items()
            } | {"whole_body": whole_body(found, truth)}
    mean = {
        precision: {
            name: round(float(np.mean(values)), 4)
            for name in (*pack.structures, "whole_body")
            if (values := [scan[precision][name] for scan in scans.values() if scan[precision][name] is not None])
        }
        for precision in seconds
    }
    return {
        "scans": scans,
        "mean": mean,
        "seconds_per_scan": {precision: round(float(np.mean(values)), 2) for precision, values in seconds.items()},
        "machine": machine(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result = evaluate(load(options.pack), options.data, options.labels)
    options.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
