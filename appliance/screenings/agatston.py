"""The Agatston score of one plaque, and the category of a sum of them.

Agatston et al., J Am Coll Cardiol 1990;15:827–832; categories as in CAC-DRS (Hecht et al., J Cardiovasc Comput Tomogr
2018;12:185–191).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Thickness of the slices on which the score is defined, mm.
REFERENCE_MM = 3.0
# Islands that are smaller do not count. The weight is 1, 2, 3, 4 for a peak from 130, 200, 300, 400 HU.
_SMALLEST_AREA_MM2 = 1.0
# CAC-DRS 2018
_A1, _A2, _A3 = 1.0, 100.0, 300.0


def thick_peak_hu(hu: NDArray[np.int16], plaque: NDArray[np.bool_], slices: int) -> float:
    """Return the highest density that a plaque has in any slice of about 3 mm through it: noise has none."""
    slices = min(slices, len(hu))
    summed = np.cumsum(hu, axis=0, dtype=np.float64)
    thick = np.concatenate([summed[slices - 1 : slices], summed[slices:] - summed[:-slices]]) / slices
    return float(thick[:, plaque.any(axis=0)].max())


def along_plaque(hu: NDArray[np.int16], plaque: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.int16]:
    """Return a plaque's densities averaged along the body over up to 3 mm of itself.

    Its weight comes from the highest of them. In thin slices the highest of many noisy pixels would be too high; in
    slices of 3 mm, on which the score is defined, nothing is averaged.
    """
    from scipy import ndimage

    slices = 2 * round(0.5 * (REFERENCE_MM / spacing_mm - 1.0)) + 1
    if slices <= 1:
        return hu
    weight = plaque.astype(np.float32)
    summed = ndimage.uniform_filter1d(weight * hu, slices, axis=0, mode="constant")
    share = ndimage.uniform_filter1d(weight, slices, axis=0, mode="constant")
    averaged: NDArray[np.int16] = np.where(plaque, np.rint(summed / np.maximum(share, 1e-3)), hu).astype(np.int16)
    return averaged


def agatston(
    hu: NDArray[np.int16], plaque: NDArray[np.bool_], pixel_mm2: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return area × weight per slice, and the pixels in islands of at least 1 mm² that made it."""
    from scipy import ndimage

    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = True
    islands, count = ndimage.label(plaque, in_plane)
    scores = np.zeros(len(hu))
    counted = np.zeros(hu.shape, dtype=bool)
    for index, place in enumerate(ndimage.find_objects(islands)[:count], start=1):
        island = islands[place] == index
        area_mm2 = np.count_nonzero(island) * pixel_mm2
        if area_mm2 < _SMALLEST_AREA_MM2:
            continue
        peak_hu = int(hu[place][island].max())
        scores[place[0].start] += area_mm2 * int(np.clip(peak_hu // 100, 1, 4))
        counted[place] |= island
    return scores, counted


def category(score: float) -> str:
    """Return the CAC-DRS category of an Agatston score, ``"A0"`` to ``"A3"``."""
    return "A0" if score < _A1 else "A1" if score < _A2 else "A2" if score < _A3 else "A3"


def shown(score: float) -> str:
    """Return a score in whole numbers, without calling a trace of calcium one or none."""
    return "below 1" if 0.0 < score < _A1 else f"{score:.0f}"
