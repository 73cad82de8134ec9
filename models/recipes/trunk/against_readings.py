"""Compare the aorta's labels with the diameters read by hand, so that a slip of the pen in either is found.

python against_readings.py WORK/chest ../../../tests/readings
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prepare import SPACING_MM
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Spacing of the volumes in which slices were counted, mm.
READ_SPACING_MM = 2.0
#: Smaller spots are a wall that the slice grazes, mm².
SMALLEST_MM2 = 110.0


def diameters_mm(plane: NDArray[np.uint8]) -> list[float]:
    """Diameters of circles as large as the aorta's parts in one slice, from front to back."""
    components, count = ndimage.label(plane == 1)
    parts = []
    for index in range(1, count + 1):
        area = np.count_nonzero(components == index) * SPACING_MM[1] * SPACING_MM[2]
        if area > SMALLEST_MM2:
            parts.append((np.nonzero(components == index)[0].mean(), 2 * float(np.sqrt(area / np.pi))))
    return [diameter for _, diameter in sorted(parts)]


def main() -> None:
    """Print one line a scan: label and reading, ascending then descending."""
    labels, readings = Path(sys.argv[1]), Path(sys.argv[2])
    for path in sorted(readings.glob("*.json")):
        reading = json.loads(path.read_text())
        ascending, descending = (reading[f"{name}_aorta_diameter_mm"] for name in ("ascending", "descending"))
        if ascending is None or not (labels / f"{path.stem}.npz").exists():
            continue
        level = round((ascending["slice"] + 0.5) * READ_SPACING_MM / SPACING_MM[0] - 0.5)
        with np.load(labels / f"{path.stem}.npz") as item:
            found = diameters_mm(item["aorta"][level])
        pairs = zip(found, (ascending["value"], descending["value"]), strict=False)
        print(path.stem, " ".join(f"{label:.1f}/{read:g}" for label, read in pairs))


if __name__ == "__main__":
    main()
