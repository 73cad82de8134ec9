"""MONAI's grid: it begins at the first voxel of the scan as the network sees it, and takes plain linear interpolation.

For networks that were trained behind MONAI's ``Orientationd`` and ``Spacingd``; see :mod:`appliance.inference.resample`
for the appliance's own way and nnU-Net's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.inference.resample import grid_over, nearest_axes, resample_hounsfield, to_canonical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.inference.resample import CanonicalGrid
    from appliance.packs.manifest import NetworkInput
    from appliance.scan import Volume

#: Millimetres within which MONAI takes two spacings for one.
_SAME_MM = 1e-3


def corner_grid(
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    spacing_mm: tuple[float, float, float],
    backwards: tuple[bool, bool, bool],
) -> CanonicalGrid:
    """Lay a grid over a volume whose first voxel is the volume's first, seen along the network's axes.

    Parameters
    ----------
    shape, affine
        Of the volume.
    spacing_mm
        Of the grid: slices, rows, columns of the canonical axes.
    backwards
        For each canonical axis, whether the network's axis runs against it; tells which corner is the first.
    """
    axes, flips = nearest_axes(affine)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    first, step, size = [0.0] * 3, [0.0] * 3, [0] * 3
    for grid_axis, axis in enumerate(axes):
        wanted, length = spacing_mm[grid_axis], float(lengths[axis])
        step[axis] = 1.0 if abs(wanted - length) <= _SAME_MM else wanted / length
        size[axis] = max(1, int(np.round((shape[axis] - 1) / step[axis] + 1)))
        if flips[grid_axis] != backwards[grid_axis]:  # the network runs against the volume's index
            first[axis] = shape[axis] - 1 - (size[axis] - 1) * step[axis]
    return grid_over(affine, first, step, size)


def linear_weights(count_in: int, first: float, step: float, count_out: int) -> NDArray[np.float32]:
    """Weights of linear interpolation without anti-aliasing; beyond the ends the last sample goes on.

    Returns
    -------
    NDArray[np.float32]
        ``(count_out, count_in)``; each row sums to one.
    """
    places = np.clip(first + step * np.arange(count_out), 0, count_in - 1)
    weights: NDArray[np.float32] = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(count_in)[None, :])).astype(
        np.float32
    )
    return weights


def to_corner_grid(
    volume: Volume,
    spacing_mm: tuple[float, float, float],
    backwards: tuple[bool, bool, bool],
    clip_hu: tuple[float, float] | None = None,
) -> tuple[NDArray[np.int16], CanonicalGrid]:
    """Resample a volume as MONAI does; parameters as in :func:`corner_grid`.

    Returns
    -------
    hu : NDArray[np.int16]
        Whole Hounsfield units in canonical axes, C-contiguous; MONAI keeps fractions.
    grid : CanonicalGrid
        Where they are.
    """
    grid = corner_grid(volume.shape, volume.affine, spacing_mm, backwards)
    weights = []
    for axis in range(3):
        count = grid.shape[grid.axes.index(axis)]
        weights.append(linear_weights(volume.shape[axis], grid.first_index[axis], grid.step[axis], count))
    return resample_hounsfield(volume.hu, weights, grid, clip_hu), grid


def resample_for(volume: Volume, wanted: NetworkInput) -> tuple[NDArray[np.int16], CanonicalGrid]:
    """Resample a volume in the way and to the spacing that a pack's network knows; canonical axes."""
    axes, _ = wanted.axes
    spacing = (
        wanted.spacing_mm[axes.index(0)],
        wanted.spacing_mm[axes.index(1)],
        wanted.spacing_mm[axes.index(2)],
    )
    if wanted.resampling == "monai":
        return to_corner_grid(volume, spacing, wanted.backwards, wanted.clip_hu)
    return to_canonical(volume, spacing, method=wanted.resampling, clip_hu=wanted.clip_hu)
