"""Dice per structure on the held-out scans, through the product's own path (resampling, tiles, tidying), per precision.

python evaluate.py --pack ../../trunk --data ../../../../shared/data --labels WORK/prepared \
    --answers WORK/abdomen --answers WORK/chest --out evaluation.json
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from belly import answer, read_contours
from labels import AIRWAYS, BONE, IGNORE, LUNG_LEFT, LUNG_RIGHT
from scans import RawScan, read_all
from scipy import ndimage
from sources import UNKNOWN, YES

from appliance.anatomy.mapper import map_with
from appliance.inference.engines import open_engine
from appliance.packs.pack import Pack, load
from appliance.phantom import PhantomOptions, label_map
from appliance.scan import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

PRECISIONS = ("f32", "bf16", "int8")
VOXEL_ML = 0.027
#: Of a seed that the training never drew; whole kidneys, which no held-out scan shows.
UNSEEN_PHANTOM = PhantomOptions(seed=77, coverage_low_mm=-260.0, coverage_high_mm=250.0)
#: A reference smaller than this says nothing.
LEAST_VOXELS = 50


def volume_of(scan: RawScan) -> Volume:
    """Wrap canonical arrays as a volume whose axes grow to head, back and left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *scan.spacing_mm, 1.0
    return Volume(scan.hu, affine)


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_], known: NDArray[np.bool_]) -> dict[str, float] | None:
    """Dice of one structure where the truth is known and error of its volume there; ``None`` for too little of it."""
    a, b = found & known, truth & known
    sizes = np.count_nonzero(a), np.count_nonzero(b)
    if sizes[1] < LEAST_VOXELS:
        return None
    return {
        "dice": round(2 * np.count_nonzero(a & b) / sum(sizes), 4),
        "volume_error_percent": round(100.0 * (sizes[0] - sizes[1]) / sizes[1], 1),
        "truth_ml": round(sizes[1] * VOXEL_ML, 1),
        "open_ml": round(np.count_nonzero(~known & (found | ndimage.binary_dilation(b))) * VOXEL_ML, 1),
    }


class Truth:
    """What is known of one held-out scan: the rules' labels, and the answers drawn or steered by hand.

    Parameters
    ----------
    name
        Of the scan.
    labels
        Folder of ``prepare.py``.
    answers
        Folders with answers per structure.
    """

    def __init__(self, name: str, labels: Path, answers: list[Path]) -> None:
        with np.load(labels / f"{name}.npz") as item:
            self._rules, self._hu = item["labels"], item["hu"]
        self._answers: dict[str, NDArray[np.uint8]] = {}
        for folder in answers:
            if (folder / f"{name}.npz").exists():
                with np.load(folder / f"{name}.npz") as item:
                    self._answers |= {structure: item[structure] for structure in item.files}
        # Judged without the rim about which nothing is taught.
        for structure, outline in read_contours().get(name, {}).items():
            if outline.slices:
                self._answers[structure] = answer(outline, self._hu, self._rules, rim=False)

    def compare(self, found: NDArray[np.uint8], structures: Mapping[str, int]) -> dict[str, dict[str, float] | None]:
        """Compare every structure that has a reference, and two sums of them: all bone, and the whole patient."""
        known = self._rules != IGNORE
        result: dict[str, dict[str, float] | None] = {}
        rules = {"lung_left": LUNG_LEFT, "lung_right": LUNG_RIGHT, "airways": AIRWAYS}
        for name, value in structures.items():
            if name in rules:
                result[name] = dice(found == value, self._rules == rules[name], known)
            elif name in self._answers:
                said = self._answers[name]
                result[name] = dice(found == value, said == YES, said != UNKNOWN)
        skeleton = [structures[name] for name in ("bone", "vertebral_bodies") if name in structures]
        result["skeleton"] = dice(np.isin(found, skeleton), self._rules == BONE, known)
        result["whole_body"] = dice(found > 0, self._rules > 0, known)
        return result


def machine() -> str:
    """Name the processor, for the tables."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def evaluate(pack: Pack, data: Path, labels: Path, answers: list[Path]) -> dict[str, object]:
    """Run every held-out scan in every precision the pack has."""
    scans: dict[str, dict[str, dict[str, dict[str, float] | None]]] = {}
    seconds: dict[str, list[float]] = {}
    held_out = [scan for scan in read_all(data) if scan.held_out]
    phantom_hu, phantom_labels, affine, values = label_map(UNSEEN_PHANTOM, 3.0)
    phantom: dict[str, dict[str, float]] = {}
    for precision in PRECISIONS:
        if pack.network("openvino", precision) is None:
            continue
        engine = open_engine(pack, engine="openvino", precision=precision, threads=2)
        for scan in held_out:
            begun = time.perf_counter()
            found = map_with(volume_of(scan), pack, engine).labels
            seconds.setdefault(precision, []).append(time.perf_counter() - begun)
            compared = Truth(scan.name, labels, answers).compare(found, pack.structures)
            scans.setdefault(scan.name, {})[precision] = compared
        found = map_with(Volume(phantom_hu, affine), pack, engine).labels
        for name, value in pack.structures.items():
            compared_one = dice(found == value, phantom_labels == values[name], np.ones(found.shape, bool))
            if name != "body" and compared_one is not None:
                phantom.setdefault(precision, {})[name] = compared_one["dice"]
    return {
        "scans": scans,
        "phantom": phantom,
        "mean": {precision: _means(scans, precision) for precision in seconds},
        "seconds_per_scan": {precision: round(float(np.mean(values)), 2) for precision, values in seconds.items()},
        "machine": machine(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def _means(scans: dict[str, dict[str, dict[str, dict[str, float] | None]]], precision: str) -> dict[str, object]:
    """Mean Dice, mean unsigned error of volume and count of scans, per structure."""
    names = dict.fromkeys(name for scan in scans.values() for name in scan[precision])
    means: dict[str, object] = {}
    for name in names:
        found = [item for scan in scans.values() if (item := scan[precision].get(name)) is not None]
        if found:
            means[name] = {
                "dice": round(float(np.mean([item["dice"] for item in found])), 4),
                "volume_error_percent": round(float(np.mean([abs(item["volume_error_percent"]) for item in found])), 1),
                "scans": len(found),
            }
    return means


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--answers", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result = evaluate(load(options.pack), options.data, options.labels, options.answers)
    options.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result["mean"], indent=1))


if __name__ == "__main__":
    main()
