"""Twins of the enhanced scans that look as if no contrast had been given: blood and organs at plain densities.

python lowered.py WORK/prepared WORK/abdomen WORK/chest WORK/training

The appliance's input is plain, most of the open scans are not; a twin keeps the enhanced scan's labels, which are
better than a plain scan's, for its organs can be told apart.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from labels import BODY, BONE, IGNORE
from scipy import ndimage
from sources import UNKNOWN, YES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Densities without contrast, HU.
_PLAIN_HU = {"liver": 57.0, "spleen": 50.0, "kidney_left": 32.0, "kidney_right": 32.0}
_BLOOD_HU = 42.0
_BRIGHT_HU = 60.0
#: How much of the enhancement's own texture is kept.
_KEPT = 0.08


def lowered(
    hu: NDArray[np.int16], labels: NDArray[np.uint8], answers: Mapping[str, NDArray[np.uint8]]
) -> NDArray[np.int16]:
    """Lower what contrast made bright; bone and everything behind the front of the spine stay, but for the aorta.

    Parameters
    ----------
    hu, labels
        The prepared scan and its rules' labels, ``(slices, rows, columns)``.
    answers
        Of its structures; the vertebral bodies and the aorta among them.
    """
    values = hu.astype(np.float32)
    bodies, aorta = answers["vertebral_bodies"] == YES, answers["aorta"] != 0
    front = [float(np.nonzero(plane.any(axis=1))[0].min()) if plane.any() else np.nan for plane in bodies]
    known = ~np.isnan(front)
    z = np.arange(len(front))
    wall = np.interp(z, z[known], np.asarray(front)[known])
    before = np.arange(hu.shape[1])[None, :, None] < wall[:, None, None] - 1
    # Calcified rib and breastbone must keep their rims.
    bone = ndimage.binary_dilation(labels == BONE)
    organs = np.zeros(hu.shape, bool)
    result = values.copy()
    for name, target in _PLAIN_HU.items():
        answer = answers.get(name, np.zeros(hu.shape, np.uint8))
        organ = answer == YES
        if organ.any():
            middle = np.median(values[organ])
            # The outline's unsure rim is as bright as the rest.
            rim = (answer == UNKNOWN) & (values > _BRIGHT_HU) & ndimage.binary_dilation(organ, iterations=3)
            organ |= rim & ~bone & ~bodies
            result[organ] = target + _KEPT * (values[organ] - middle)
            organs |= organ
    soft = np.isin(labels, (BODY, IGNORE)) & ~organs & (before | aorta) & ~bone & ~bodies
    bright = soft & (values > _BRIGHT_HU)
    result[bright] = _BLOOD_HU + _KEPT * (values[bright] - _BRIGHT_HU).clip(max=200)
    # What was lowered loses its noise too; some comes back.
    changed = organs | bright
    noise = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(hu.shape), 0.5) * 14
    result[changed] += noise[changed]
    return np.rint(result).astype(np.int16)


def main() -> None:
    """Write the twins of all enhanced scans that have chest answers."""
    prepared, *folders, out = (Path(text) for text in sys.argv[1:])
    for path in sorted([*prepared.glob("*_contrast.npz"), *prepared.glob("atlas*.npz")]):
        answers: dict[str, NDArray[np.uint8]] = {}
        for folder in folders:
            if (folder / path.name).exists():
                with np.load(folder / path.name) as item:
                    answers |= {name: item[name] for name in item.files}
        if not {"vertebral_bodies", "aorta"} <= answers.keys():
            continue
        with np.load(prepared / path.name) as item, np.load(out / path.name) as combined:
            hu = lowered(item["hu"], item["labels"], answers)
            np.savez_compressed(
                out / f"{path.stem}_lowered_plain.npz",
                hu=hu,
                allowed=combined["allowed"],
                spacing_mm=(3.0, 3.0, 3.0),
                held_out=False,
            )
        print(path.stem, flush=True)


if __name__ == "__main__":
    main()
