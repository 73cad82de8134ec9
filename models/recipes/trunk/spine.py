"""Vertebral bodies from hand-made edges and discs, their surface refined by Hounsfield units.

Discs, pedicles and everything behind the posterior wall are no body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORE = 255
#: Smoothed voxels above this belong to bone at a body's surface, HU.
BONE_HU = 130.0
#: Distance within which the hand may be wrong, mm.
HAND_MM = 2.0
#: Zone on both sides of a disc's face that may be either, mm.
DISC_EDGE_MM = 1.2
#: Half the zone in which a disc lies that the eye finds and the profile does not, mm.
UNSEEN_HALF_MM = 4.0


def edges_at(contours: dict[str, Any], slices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Column of the centre, front row, back row (voxels) and half width (mm) of the bodies at the given slices."""
    rows = np.asarray(contours["spine"], float)
    rows = rows[np.argsort(rows[:, 0])]
    result: NDArray[np.float64] = PchipInterpolator(rows[:, 0], rows[:, 1:])(slices)
    return result


def _surface_distance(
    contours: dict[str, Any], shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], int, int]:
    """Distance in mm to the column of bodies and discs, negative inside, slice by slice; first and last slice known."""
    rows = np.asarray(contours["spine"], float)
    first, last = int(np.ceil(rows[:, 0].min())), int(np.floor(rows[:, 0].max()))
    result = np.full(shape, 1e3, np.float32)
    slices = np.arange(first, last + 1)
    y, x = np.mgrid[: shape[1], : shape[2]]
    for z, (column, front, back, half_width) in zip(slices, edges_at(contours, slices), strict=True):
        middle, half_depth = (front + back) / 2, (back - front) / 2 * spacing[1]
        across = np.abs(x - column) * spacing[2] / half_width
        along = (y - middle) * spacing[1] / half_depth
        # Rounded in front, nearly square at the back, where the canal lies.
        power = np.where(along < 0, 2.3, 4.0)
        ratio = (across**power + np.abs(along) ** power) ** (1 / power)
        result[z] = (ratio - 1) * min(half_width, half_depth)
    return result, first, last


def _disc_planes(
    contours: dict[str, Any], hu: NDArray[np.float32], surface: NDArray[np.float32], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance in mm beyond the nearest disc's face, and beyond the zone where it may lie: negative inside."""
    rows = np.asarray(contours["spine"], float)
    slices = np.arange(int(rows[:, 0].min()), int(rows[:, 0].max()) + 1)
    edges = edges_at(contours, slices)
    centre = np.column_stack([slices * spacing[0], edges[:, 1:3].mean(axis=1) * spacing[1], edges[:, 0] * spacing[2]])
    sure, unsure = np.full(hu.shape, 1e3, np.float32), np.full(hu.shape, 1e3, np.float32)
    for clicked in contours.get("discs", []):
        level = clicked[0] if isinstance(clicked, list) else clicked
        point = np.array([np.interp(level, slices, centre[:, axis]) for axis in range(3)])
        lower, upper = (
            np.array([np.interp(level + step, slices, centre[:, axis]) for axis in range(3)]) for step in (-6, 6)
        )
        normal = (upper - lower) / np.linalg.norm(upper - lower)
        if isinstance(clicked, list):
            # A second figure is the slope the reader saw on the sagittal picture: slices gained a row.
            normal = np.array([1.0, -clicked[1], normal[2] / max(normal[0], 0.5)])
            normal /= np.linalg.norm(normal)
        low, high = max(0, int(level) - 14), min(len(hu), int(level) + 15)
        axes = np.ogrid[low:high, : hu.shape[1], : hu.shape[2]]
        height = sum((axes[i] * spacing[i] - point[i]) * normal[i] for i in range(3))
        middle, half = _disc_height(hu[low:high], height, surface[low:high]) or (0.0, 0.0)
        away = np.where(surface[low:high] < 6, np.abs(height - middle), 1e3)
        sure[low:high] = np.minimum(sure[low:high], away + UNSEEN_HALF_MM if half == 0 else away - half)
        unsure[low:high] = np.minimum(unsure[low:high], away - (half + DISC_EDGE_MM if half else UNSEEN_HALF_MM))
    return sure, unsure


def _disc_height(
    hu: NDArray[np.float32], height: NDArray[np.float64], surface: NDArray[np.float32]
) -> tuple[float, float] | None:
    """Where the disc's middle lies along its normal and half its height in mm; ``None`` when it is not to be seen."""
    near = (surface < -4.0) & (np.abs(height) < 9.0)
    bins = np.arange(-9.0, 9.5, 1.0)
    where = np.digitize(height[near], bins)
    profile = np.array([hu[near][where == i].mean() if (where == i).any() else np.nan for i in range(1, len(bins))])
    centres = (bins[:-1] + bins[1:]) / 2
    good = ~np.isnan(profile)
    profile = np.interp(centres, centres[good], profile[good])
    inner = np.nonzero(np.abs(centres) < 3.6)[0]
    lowest = int(inner[np.argmin(profile[inner])])
    if lowest in (inner[0], inner[-1]):
        # Fatty marrow is darker than the disc; where the valley lies is not to be seen.
        return None
    below, above = profile[max(0, lowest - 5) : lowest + 1].max(), profile[lowest : lowest + 6].max()
    threshold = (profile[lowest] + min(below, above)) / 2
    if min(below, above) - profile[lowest] < 20:
        return None
    start, end = lowest, lowest
    while start > 0 and profile[start] < threshold:
        start -= 1
    while end < len(profile) - 1 and profile[end] < threshold:
        end += 1
    middle, half = (centres[start] + centres[end]) / 2, (centres[end] - centres[start]) / 2 - 0.5
    return float(np.clip(middle, -4.0, 4.0)), float(np.clip(half, 1.0, 5.0))


def vertebral_bodies(
    hu: NDArray[np.int16],
    contours: dict[str, Any],
    spacing: tuple[float, float, float],
    aorta: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Label the vertebral bodies as one class.

    Parameters
    ----------
    hu
        Canonical axes.
    contours
        With ``spine`` (slice, centre column, front row, back row, half width in mm) and ``discs`` (slice of the disc's
        middle, or that and the slope of its plane).
    spacing
        Along the axes, mm.
    aorta
        Enhanced blood beside the spine is no bone.

    Returns
    -------
    NDArray[np.uint8]
        0 no, 1 yes, 255 do not know (also the slices that nobody drew).
    """
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.4)
    surface, first, last = _surface_distance(contours, hu.shape, spacing)
    disc, about_disc = _disc_planes(contours, smooth, surface, spacing)
    bone = smooth > BONE_HU
    label = np.zeros(hu.shape, np.uint8)
    label[(surface < HAND_MM) & bone] = IGNORE
    label[(surface < -HAND_MM) | (bone & (surface < 0.8))] = 1
    # Soft tissue right inside the hand's border: the hand was too wide.
    label[~bone & (surface >= -HAND_MM)] = 0
    label[(about_disc < 0) & (label > 0)] = IGNORE
    label[disc < -0.2] = 0
    if aorta is not None:
        label[(aorta == 1) & (surface > -3.0)] = 0
    edges = edges_at(contours, np.array([first, last]))
    for part, (column, front, back, _) in ((slice(0, first + 1), edges[0]), (slice(last, None), edges[1])):
        # Nobody drew here; how far the spine leans on is not known either.
        rows = slice(max(0, int(front - 60 / spacing[1])), int(back + 40 / spacing[1]))
        columns = slice(max(0, int(column - 45 / spacing[2])), int(column + 45 / spacing[2]))
        label[part, rows, columns][bone[part, rows, columns]] = IGNORE
    return label


def bodies_of(
    own: NDArray[np.bool_], contours: dict[str, Any], spacing: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Cut whole vertebrae that a source labelled down to their bodies, along the hand's back wall.

    Returns
    -------
    NDArray[np.uint8]
        0 no, 1 yes, 255 do not know.
    """
    surface, first, last = _surface_distance(contours, own.shape, spacing)
    label = np.zeros(own.shape, np.uint8)
    label[own & (surface < 4.0)] = IGNORE
    label[own & (surface < 1.5)] = 1
    label[:first][own[:first]] = IGNORE
    label[last + 1 :][own[last + 1 :]] = IGNORE
    return label
