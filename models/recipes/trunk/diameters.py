"""Diameters that the vessel code measures with hand-made labels as organ map, beside a reader's; contrast scans too.

The screenings would refuse contrast; the measuring code sees there the borders that a plain scan hides.
PYTHONPATH=../../.. python diameters.py --prepared WORK/prepared --answers WORK/chest
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.anatomy.pulmonary_trunk import pulmonary_trunk
from appliance.anatomy.vessels import Stretch, aorta
from appliance.inference.resample import canonical_grid
from tests.screenings.real_scans import READINGS, names, real_scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.scan import Volume

VALUES = {"body": 1, "lung_left": 2, "lung_right": 3, "airways": 4, "bone": 5, "vertebral_bodies": 6, "heart": 7}
VESSELS = {"aorta": 8, "pulmonary_trunk": 9}
UNKNOWN = 255
#: Slices of the readings, mm.
READ_SPACING_MM = 2.0
#: Planes beside the bifurcation, as in the screening.
PLANES = 3


def organ_map(volume: Volume, rules: Path, answers: Path) -> OrganMap:
    """Rules and answers as one map; what the answers leave open goes half way, as a network would put it."""
    with np.load(rules) as item:
        labels = np.where(item["labels"] == UNKNOWN, VALUES["body"], item["labels"]).astype(np.uint8)
    likely: dict[str, NDArray[np.float64]] = {}
    with np.load(answers) as item:
        for name in ("vertebral_bodies", "heart"):
            if name in item.files:
                labels[item[name] == 1] = VALUES[name]
        for name in VESSELS:
            said = item[name] if name in item.files else np.zeros(labels.shape, np.uint8)
            likely[name] = ndimage.gaussian_filter((said == 1) + 0.5 * (said == UNKNOWN), 0.8)
    for name, other in (("aorta", "pulmonary_trunk"), ("pulmonary_trunk", "aorta")):
        labels[(likely[name] > 0.5) & (likely[name] > likely[other])] = VESSELS[name]
    grid = canonical_grid(volume.hu.shape, volume.affine, (3.0, 3.0, 3.0))
    use = PackUse("labels by hand", "0", "sha256:0", "f32", "CPU", "none")
    return OrganMap(labels, grid.affine, VALUES | VESSELS, use)


def measured_mm(anatomy: Anatomy, height_mm: float) -> dict[str, float]:
    """Diameters at a height of the scan by the name of their measurement."""
    found = {}
    trunk = pulmonary_trunk(anatomy)
    if trunk is not None:
        planes = np.arange(len(trunk.borders.clear))[-PLANES:]
        found["pulmonary_trunk_diameter_mm"] = float(np.median(trunk.borders.level_mm(planes)[0]))
    for branch in aorta(anatomy):
        for stretch in (Stretch.ASCENDING, Stretch.DESCENDING):
            planes = branch.planes(stretch)
            apart = np.abs(branch.borders.course.points_mm[planes, 2] - height_mm)
            if len(planes) and apart.min() < READ_SPACING_MM:
                found[f"{stretch}_diameter_mm"] = float(branch.borders.longest_mm(planes)[apart.argmin()])
    return found


def main() -> None:
    """Print every scan, then bias and spread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    options = parser.parse_args()
    errors: dict[str, list[float]] = {}
    for scan in names():
        reading = json.loads((READINGS / f"{scan}.json").read_text())
        level = reading["descending_aorta_diameter_mm"]
        if level is None or not (options.answers / f"{scan}.npz").exists():
            continue
        volume = real_scan(scan).volume
        organs = organ_map(volume, options.prepared / f"{scan}.npz", options.answers / f"{scan}.npz")
        measured = measured_mm(Anatomy(volume, organs), (level["slice"] + 0.5) * READ_SPACING_MM)
        for name, value in measured.items():
            if reading[name] is not None:
                read = reading[name]
                print(f"{scan:34s} {name:32s} {value:5.1f}   read {read['value']:g} ± {read['uncertainty']:g}")
                errors.setdefault(name, []).append(value - read["value"])
    for name, found in errors.items():
        spread, worst = np.std(found, ddof=1), np.abs(found).max()
        print(f"{name}: bias {np.mean(found):+.1f}, spread {spread:.1f}, worst {worst:.1f} mm, {len(found)} scans")


if __name__ == "__main__":
    main()
