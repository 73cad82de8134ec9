"""What lies around a bright spot of the heart: arteries run in fat, valves in blood, bronchi in air; motion streaks.

A moving heart without fat between itself and the lung makes bright streaks along its border on scans that the
electrocardiogram did not trigger. Calcium ends within a pixel or two; a streak fades out over millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: How far around a spot one must see to judge it, mm.
REACH_MM = 12.0
# Fat around an artery: its density, how far from the plaque it is looked for, and how much there must be.
_FAT_HU, _NEAR_MM, _FAT_SHARE = (-190, -30), (1.5, 5.0), 0.02
# Lung and bronchi: their density, and the share of a plaque's surroundings from which it lies in them, unless fat has a
# larger one: in lean people the left artery runs in its fat just below the lung.
_AIR_HU, _AIR_SHARE = -400, 0.2
# A voxel this near to air may be half filled with it, and read like fat.
_HALF_FILLED_MM = 1.5
# What belongs to a streak stands out from blood by this much, and by so many standard deviations of noise.
_STREAK_ABOVE_HU, _STREAK_DEVIATIONS = 45.0, 4.0
# Blur of the scanner lies nearer to calcium than this; a streak goes on farther, for more than the spot's own volume.
_BLUR_MM, _STREAK_SHARE = 2.5, 1.0
# Muscle that moves against lung has been seen to read up to 300 HU; what is denser is calcium, moving or not.
_DENSEST_STREAK_HU = 350


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around one spot.

    Attributes
    ----------
    in_fat
        Fat lies around it.
    in_air
        It lies in lung or a bronchus.
    in_streak
        It is the brightest part of a streak that is larger than itself.
    """

    in_fat: bool
    in_air: bool
    in_streak: bool


def surroundings(
    hu: NDArray[np.int16],
    spot: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    blood: tuple[float, float],
    threshold_hu: int,
) -> Surroundings:
    """Look around a spot.

    Parameters
    ----------
    hu
        The scan within :data:`REACH_MM` of the spot, ``(slices, rows, columns)``.
    spot
        Its voxels.
    spacing_mm
        Between slices, rows and columns.
    blood
        Density of blood and its noise, HU.
    threshold_hu
        From which density on a voxel counts as calcium.
    """
    from scipy import ndimage

    away_mm = ndimage.distance_transform_edt(~spot, sampling=spacing_mm)
    around = (away_mm > _NEAR_MM[0]) & (away_mm <= _NEAR_MM[1])
    air = hu < _AIR_HU
    fat = around & (hu >= _FAT_HU[0]) & (hu <= _FAT_HU[1])
    if air.any():
        # between slices one voxel is enough, however thick they are
        sampling = (min(spacing_mm[0], _HALF_FILLED_MM), *spacing_mm[1:])
        fat &= ndimage.distance_transform_edt(~air, sampling=sampling) > _HALF_FILLED_MM
    count = max(1, int(np.count_nonzero(around)))
    in_fat, in_air = int(np.count_nonzero(fat)), int(np.count_nonzero(around & air))
    return Surroundings(
        in_fat=in_fat >= _FAT_SHARE * count,
        in_air=in_air > max(_AIR_SHARE * count, in_fat),
        in_streak=_in_streak(hu, spot, spacing_mm, blood, threshold_hu),
    )


def _in_streak(
    hu: NDArray[np.int16],
    spot: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    blood: tuple[float, float],
    threshold_hu: int,
) -> bool:
    """Tell whether a spot is the tip of something that fades out more slowly than the scanner blurs."""
    from scipy import ndimage

    level = blood[0] + max(_STREAK_ABOVE_HU, _STREAK_DEVIATIONS * blood[1])
    if level > threshold_hu - 10 or int(hu[spot].max()) >= _DENSEST_STREAK_HU:
        return False
    parts, _ = ndimage.label(hu >= level, np.ones((3, 3, 3)))
    whole = parts == parts[tuple(np.argwhere(spot)[0])]
    beyond = ndimage.distance_transform_edt(hu < threshold_hu, sampling=spacing_mm) > _BLUR_MM
    return bool(np.count_nonzero(whole & beyond) >= _STREAK_SHARE * np.count_nonzero(spot))
