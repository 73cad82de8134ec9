"""Digital patients with random anatomy and acquisition, as training arrays beside the real scans.

python phantoms.py FOLDER [COUNT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from classes import NAMES, bits
from scipy import ndimage

from appliance.phantom import label_map, random_options

#: What the phantom calls otherwise or does not label is body here.
_FOLDED = {"body": "body", "esophagus": "body", "gallbladder": "body", "pancreas": "body", "stomach": "body"}


def main() -> None:
    """Write phantoms from seeds 1000, 1001, …."""
    out, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 24
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(1000, 1000 + count):
        path = out / f"phantom_{seed}.npz"
        if path.exists():
            continue
        hu, theirs, _, values = label_map(random_options(np.random.default_rng(seed)), 3.0)
        allowed = np.full(theirs.shape, bits(["background"]), np.uint32)
        for name, value in values.items():
            allowed[theirs == value] = bits([name if name in NAMES else _FOLDED[name]])
        # The rules label trachea and main bronchi; about the phantom's smaller branches nothing is said.
        airways = theirs == values["airways"]
        wide = ndimage.binary_dilation(ndimage.binary_opening(airways, iterations=1), iterations=1)
        small = airways & ~wide
        allowed[small] = bits(["airways", "body", "lung_left", "lung_right"])
        np.savez_compressed(path, hu=hu, allowed=allowed, spacing_mm=(3.0, 3.0, 3.0), held_out=False)
        print(path.name, hu.shape, flush=True)


if __name__ == "__main__":
    main()
