"""Bring the rules' labels and every organ's answers of a scan together into sets of possible classes.

python combine.py WORK/prepared WORK/training WORK/abdomen [WORK/chest …]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from classes import ANYTHING, NAMES, SOFT, VALUE, bits, sure
from labels import AIRWAYS, BACKGROUND, BODY, BONE, LUNG_LEFT, LUNG_RIGHT
from scipy import ndimage
from sources import NO, UNKNOWN, YES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Sets = NDArray[np.uint32]

_CHEST = ("heart", "pulmonary_trunk")
_BELLY = ("liver", "spleen", "kidney_left", "kidney_right")
#: Fat is none of these, not even in part.
_NO_FAT = ("liver", "spleen", "kidney_left", "kidney_right", "aorta", "pulmonary_trunk")
_FAT_HU = -40
#: No organ comes nearer to the skin, voxels.
_SKIN = 2.7
#: The domes of the diaphragm rise no further than this above the level at which the lungs become wide.
_DOME_SLICES = 12


def from_rules(hu: NDArray[np.int16], labels: NDArray[np.uint8]) -> tuple[Sets, Sets]:
    """Sets of classes from the rules alone: their body may be any soft organ that can lie there.

    Returns
    -------
    allowed, closed
        What each voxel may be, and which soft organs it cannot be whatever an unsure answer says.
    """
    table = np.full(256, ANYTHING, np.uint32)
    table[BACKGROUND] = bits(["background"])
    table[BODY] = bits(["body", *SOFT])
    table[LUNG_LEFT], table[LUNG_RIGHT] = bits(["lung_left"]), bits(["lung_right"])
    table[AIRWAYS] = bits(["airways"])
    table[BONE] = bits(["bone", "vertebral_bodies"])
    allowed = table[labels]
    body = labels == BODY
    lungs = (labels == LUNG_LEFT) | (labels == LUNG_RIGHT)
    areas = lungs.sum(axis=(1, 2))
    slices = np.arange(hu.shape[0])
    closed = np.zeros(hu.shape, np.uint32)
    if areas.max() > 500:
        # Below the deepest recess of the lungs there is no heart; well above where they become wide, no belly.
        closed[slices < np.nonzero(areas)[0].min()] |= bits(_CHEST)
        closed[slices > np.nonzero(areas > 0.8 * areas.max())[0].min() + _DOME_SLICES] |= bits(_BELLY)
    columns = np.nonzero(body.any(axis=(0, 1)))[0]
    middle = (columns.min() + columns.max()) / 2
    where = np.arange(hu.shape[2])
    closed[:, :, where < middle] |= bits(["kidney_left", "spleen"])
    closed[:, :, where > middle] |= bits(["kidney_right"])
    closed[hu < _FAT_HU] |= bits(_NO_FAT)
    for z in range(hu.shape[0]):
        closed[z, ndimage.distance_transform_edt(labels[z] != BACKGROUND) < _SKIN] |= bits(SOFT)
    allowed[body] &= ~closed[body]
    return allowed, closed


def with_answers(allowed: Sets, closed: Sets, answers: Mapping[str, NDArray[np.uint8]]) -> Sets:
    """Narrow the sets by what is known of each structure: yes leaves only it, no shuts it out."""
    allowed = allowed.copy()
    claimed = np.zeros(allowed.shape, np.uint32)
    hard = bits(["background", "lung_left", "lung_right", "airways", "bone"])
    for name, answer in answers.items():
        if name not in NAMES:
            continue
        bit = np.uint32(1 << VALUE[name])
        firm = np.isin(allowed, [1 << VALUE[c] for c in ("background", "lung_left", "lung_right", "airways")])
        allowed[answer == NO] &= ~bit
        open_ = (answer == UNKNOWN) & ~firm
        allowed[open_] |= bit & ~closed[open_]
        claimed[answer == YES] |= bit
    # What two structures claim is one of the two; what the rules call lung or bone may still be that.
    taken = claimed > 0
    disputed = taken & np.isin(allowed, [1 << VALUE[c] for c in ("background", "lung_left", "lung_right", "airways")])
    result = np.where(taken, claimed, allowed)
    result[disputed] |= allowed[disputed] & hard
    result[result == 0] = ANYTHING
    return result.astype(np.uint32)


def main() -> None:
    """Combine every prepared scan."""
    prepared, out, *folders = (Path(text) for text in sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(prepared.glob("*.npz")):
        with np.load(path) as item:
            hu, labels, held_out = item["hu"], item["labels"], bool(item["held_out"])
        answers: dict[str, NDArray[np.uint8]] = {}
        for folder in folders:
            if (folder / path.name).exists():
                with np.load(folder / path.name) as item:
                    answers |= {name: item[name] for name in item.files}
        allowed = with_answers(*from_rules(hu, labels), answers)
        np.savez_compressed(out / path.name, hu=hu, allowed=allowed, spacing_mm=(3.0, 3.0, 3.0), held_out=held_out)
        counts = np.bincount(sure(allowed).ravel(), minlength=256) * 0.027
        print(path.stem, {n: round(float(counts[VALUE[n]])) for n in NAMES if counts[VALUE[n]] > 0}, flush=True)


if __name__ == "__main__":
    main()
