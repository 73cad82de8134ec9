"""Digital patients with random anatomy and acquisition, as training arrays beside the real scans.

python phantoms.py FOLDER [COUNT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from labels import IGNORE
from scipy import ndimage

from appliance.phantom import label_map, random_options


def main() -> None:
    """Write phantoms from seeds 1000, 1001, …."""
    out, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 24
    out.mkdir(parents=True, exist_ok=True)
    ours = {"body": 1, "lung_left": 2, "lung_right": 3, "airways": 4, "bone": 5}
    for seed in range(1000, 1000 + count):
        path = out / f"phantom_{seed}.npz"
        if path.exists():
            continue
        hu, theirs, _, values = label_map(random_options(np.random.default_rng(seed)), 3.0)
        labels = np.zeros_like(theirs)
        for name, value in ours.items():
            labels[theirs == values[name]] = value
        # The rules label trachea and main bronchi; about the phantom's smaller branches nothing is said.
        airways = labels == ours["airways"]
        wide = ndimage.binary_dilation(ndimage.binary_opening(airways, iterations=1), iterations=1)
        labels[airways & ~wide] = IGNORE
        np.savez_compressed(path, hu=hu, labels=labels, spacing_mm=(3.0, 3.0, 3.0), held_out=False)
        print(path.name, hu.shape, flush=True)


if __name__ == "__main__":
    main()
