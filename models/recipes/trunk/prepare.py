"""Turn the open scans into training arrays: label by rules, bring to the appliance's 3 mm grid with its own resampler.

python prepare.py ../../../../shared/data /somewhere/outside/the/repository
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from labels import IGNORE, rule_labels
from scans import RawScan, read_all

from appliance.inference.resample import canonical_grid, resample_to

SPACING_MM = (3.0, 3.0, 3.0)
VALUES = (0, 1, 2, 3, 4, 5)


def to_working_grid(
    hu: np.ndarray, labels: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Resample canonical arrays to 3 mm: voxels by the product's filter, labels by the largest share."""
    affine = np.zeros((4, 4))
    # The arrays already grow to head, back and left.
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    grid = canonical_grid(hu.shape, affine, SPACING_MM)
    coarse = np.rint(resample_to(hu, grid)).astype(np.int16)
    shares = np.stack([resample_to(labels == value, grid) for value in VALUES])
    result = shares.argmax(axis=0).astype(np.uint8)
    result[resample_to(labels == IGNORE, grid) > 0.25] = IGNORE
    return coarse, result


def _one(task: tuple[RawScan, Path]) -> str:
    scan, out = task
    labels = rule_labels(scan)
    hu, coarse = to_working_grid(scan.hu, labels, scan.spacing_mm)
    np.savez_compressed(out / f"{scan.name}.npz", hu=hu, labels=coarse, spacing_mm=SPACING_MM, held_out=scan.held_out)
    voxel_ml = float(np.prod(SPACING_MM)) / 1000
    return f"{scan.name} {hu.shape} " + " ".join(
        f"{value}:{np.count_nonzero(coarse == value) * voxel_ml:.0f}ml" for value in (*VALUES[1:], IGNORE)
    )


def main() -> None:
    """Prepare every scan; two processes."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        for line in pool.map(_one, [(scan, out) for scan in read_all(data)]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
