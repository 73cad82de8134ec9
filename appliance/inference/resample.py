"""Between the scanner's grid and a network's grid: separable, anti-aliased, and never a full-resolution float volume.

The scan's axes are only permuted and flipped to the nearest anatomical ones; what is left of an oblique acquisition
stays in the affine of the result, so that every label keeps its place in the patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from appliance.scan import Volume

#: Slices turned into float at a time; bounds the memory beside the volume.
_SLAB = 16
#: Ratio of spacings above which nnU-Net treats the coarsest axis apart.
_THICK = 3.0
#: Weight that no difference of 4,000 HU makes visible.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalGrid:
    """A regular grid whose axes grow to the head, the back and the patient's left, laid over a volume.

    Attributes
    ----------
    shape
        Slices, rows, columns of the grid.
    affine
        float64 ``(4, 4)``: index to LPS mm at the voxel's centre.
    axes
        For each axis of the grid, the axis of the volume it runs along.
    flips
        For each axis of the grid, whether it runs against that axis.
    first_index, step
        For each axis of the *volume*: fractional volume index of the first grid voxel and distance between grid
        voxels, in volume voxels, before any flip.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    first_index: tuple[float, float, float]
    step: tuple[float, float, float]

    def from_volume_axes(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """View an array in the volume's axis order in the grid's."""
        return _flip(array.transpose(self.axes), self.flips)

    def to_volume_axes(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """View an array in the grid's axis order in the volume's."""
        return _flip(array, self.flips).transpose(np.argsort(self.axes))


def _flip(array: NDArray[np.generic], flips: Sequence[bool]) -> NDArray[np.generic]:
    return array[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def nearest_axes(affine: NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Find which volume axis runs nearest to head, back and left, and whether it runs the other way.

    Parameters
    ----------
    affine
        ``(4, 4)`` index to LPS mm.
    """
    columns = affine[:3, :3]
    directions = columns / np.linalg.norm(columns, axis=0)
    # LPS: x grows to the left, y to the back, z to the head; the grid wants head, back, left.
    share = directions[[2, 1, 0]]
    left: set[int] = {0, 1, 2}
    axes = [0, 0, 0]
    order = sorted(((abs(share[g, v]), g, v) for g in range(3) for v in range(3)), reverse=True)
    done: set[int] = set()
    for _, grid_axis, volume_axis in order:
        if grid_axis not in done and volume_axis in left:
            axes[grid_axis] = volume_axis
            done.add(grid_axis)
            left.remove(volume_axis)
    flips = tuple(bool(share[g, axes[g]] < 0) for g in range(3))
    return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])


def canonical_grid(
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    spacing_mm: tuple[float, float, float],
    *,
    fitted: bool = False,
) -> CanonicalGrid:
    """Lay a grid of the given spacing over a volume, centred on it and covering it.

    Parameters
    ----------
    shape, affine
        Of the volume.
    spacing_mm
        Of the grid: slices, rows, columns.
    fitted
        Change the spacing a little, as nnU-Net does, so that a whole number of voxels fills the volume exactly.
    """
    axes, flips = nearest_axes(affine)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    first, step, size = [0.0] * 3, [0.0] * 3, [0] * 3
    for grid_axis, volume_axis in enumerate(axes):
        count = shape[volume_axis]
        step[volume_axis] = spacing_mm[grid_axis] / float(lengths[volume_axis])
        if fitted:
            size[volume_axis] = max(1, round(count / step[volume_axis]))
            step[volume_axis] = count / size[volume_axis]
        else:
            size[volume_axis] = max(1, int(np.ceil(count / step[volume_axis] - 1e-6)))
        first[volume_axis] = (count - 1) / 2 - (size[volume_axis] - 1) / 2 * step[volume_axis]
    result = np.eye(4)
    corner = np.asarray(first)
    for grid_axis, volume_axis in enumerate(axes):
        sign = -1.0 if flips[grid_axis] else 1.0
        result[:3, grid_axis] = affine[:3, volume_axis] * step[volume_axis] * sign
        if flips[grid_axis]:
            corner[volume_axis] = first[volume_axis] + (size[volume_axis] - 1) * step[volume_axis]
    result[:3, 3] = affine[:3, :3] @ corner + affine[:3, 3]
    return CanonicalGrid(
        (size[axes[0]], size[axes[1]], size[axes[2]]),
        result,
        axes,
        flips,
        (first[0], first[1], first[2]),
        (step[0], step[1], step[2]),
    )


def triangle_weights(count_in: int, first: float, step: float, count_out: int) -> NDArray[np.float32]:
    """Weights of linear interpolation, widened to an anti-aliasing triangle where the grid gets coarser.

    Parameters
    ----------
    count_in
        Samples along the axis.
    first, step
        Position of the first output sample and distance between output samples, in input samples.
    count_out
        Output samples.

    Returns
    -------
    NDArray[np.float32]
        ``(count_out, count_in)``; each row sums to one, also at the ends.
    """
    centres = first + step * np.arange(count_out)
    # Beyond the ends the last sample goes on.
    clamped = np.clip(centres, 0, count_in - 1)
    distance = np.abs(clamped[:, None] - np.arange(count_in)[None, :]) / max(1.0, step)
    weights = np.maximum(0.0, 1.0 - distance)
    normalised: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised


def spline_weights(count_in: int, count_out: int) -> NDArray[np.float32]:
    """Weights of cubic spline interpolation without anti-aliasing, the two ends of the axis held together.

    This is what nnU-Net does to an image along each axis (``skimage.transform.resize`` of order 3, ``mode="edge"``);
    as a spline is linear in its samples, one matrix an axis says it all.

    Returns
    -------
    NDArray[np.float32]
        ``(count_out, count_in)``.
    """
    if count_in == count_out:
        return np.eye(count_in, dtype=np.float32)
    from scipy import ndimage

    unit = np.eye(count_in)
    along = ndimage.zoom(unit, (count_out / count_in, 1), order=3, mode="nearest", grid_mode=True)
    # A spline's reach fades without end; what is far below a Hounsfield unit is dropped, or denormals slow the product.
    along[np.abs(along) < _NOTHING] = 0.0
    weights: NDArray[np.float32] = along.astype(np.float32)
    return weights


def nearest_weights(count_in: int, count_out: int) -> NDArray[np.float32]:
    """Weights that take the nearest sample, the two ends of the axis held together; ``(count_out, count_in)``."""
    centres = (np.arange(count_out) + 0.5) * (count_in / count_out) - 0.5
    nearest = np.clip(np.floor(centres + 0.5).astype(int), 0, count_in - 1)
    weights: NDArray[np.float32] = np.eye(count_in, dtype=np.float32)[nearest]
    return weights


def thick_axis(spacing_mm: Sequence[float], new_spacing_mm: Sequence[float]) -> int | None:
    """Axis along which nnU-Net takes the nearest slice: the one axis more than three times as coarse as the finest."""
    for spacing in (spacing_mm, new_spacing_mm):
        if max(spacing) / min(spacing) > _THICK:
            thick = [axis for axis, value in enumerate(spacing) if value == max(spacing)]
            return thick[0] if len(thick) == 1 else None
    return None


def apply_weights(
    array: NDArray[np.generic],
    weights: Sequence[NDArray[np.float32]],
    clip: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Resample a three-dimensional array along its three axes, a slab of slices at a time.

    Parameters
    ----------
    array
        ``(slices, rows, columns)`` of any real type.
    weights
        One ``(out, in)`` matrix per axis.
    clip
        Limits put on the array first, or ``None``.

    Returns
    -------
    NDArray[np.float32]
    """
    along_slices, along_rows, along_columns = weights
    columns_t = np.ascontiguousarray(along_columns.T)
    out = np.zeros((along_slices.shape[0], along_rows.shape[0], along_columns.shape[0]), np.float32)
    flat = out.reshape(out.shape[0], -1)
    for start in range(0, array.shape[0], _SLAB):
        slab = array[start : start + _SLAB].astype(np.float32)
        if clip is not None:
            np.clip(slab, *clip, out=slab)
        narrow = slab.reshape(-1, slab.shape[2]) @ columns_t
        small = along_rows @ narrow.reshape(slab.shape[0], slab.shape[1], -1)
        share = along_slices[:, start : start + _SLAB]
        used = np.flatnonzero(share.any(axis=1))
        if used.size:
            first, last = int(used[0]), int(used[-1]) + 1
            flat[first:last] += share[first:last] @ small.reshape(small.shape[0], -1)
    return out


def to_canonical(
    volume: Volume,
    spacing_mm: tuple[float, float, float],
    *,
    method: str = "area",
    clip_hu: tuple[float, float] | None = None,
) -> tuple[NDArray[np.int16], CanonicalGrid]:
    """Resample a volume to the canonical grid of a network.

    Parameters
    ----------
    volume
        Hounsfield units on the scanner's grid.
    spacing_mm
        Of the grid: slices, rows, columns.
    method
        ``"area"``: linear and anti-aliased, on a grid of exactly this spacing. ``"nnunet"``: the cubic spline, the
        treatment of thick slices and the grid of nnU-Net, for networks that were trained behind them.
    clip_hu
        Limits put on the volume before it is resampled, as nnU-Net does; or ``None``.

    Returns
    -------
    hu : NDArray[np.int16]
        Hounsfield units in the grid's axes, C-contiguous.
    grid : CanonicalGrid
        Where they are.
    """
    if method == "nnunet":
        grid = canonical_grid(volume.shape, volume.affine, spacing_mm, fitted=True)
        weights = _nnunet_weights(volume, grid, spacing_mm)
        resampled = apply_weights(volume.hu, weights, clip_hu)
        if clip_hu is not None:
            # A spline overshoots at edges; nnU-Net keeps the result within the range of the image.
            np.clip(resampled, *clip_hu, out=resampled)
        hu = grid.from_volume_axes(resampled)
    else:
        grid = canonical_grid(volume.shape, volume.affine, spacing_mm)
        hu = grid.from_volume_axes(resample_to(volume.hu, grid, clip_hu))
    return np.ascontiguousarray(np.rint(hu)).astype(np.int16), grid


def _nnunet_weights(
    volume: Volume, grid: CanonicalGrid, spacing_mm: tuple[float, float, float]
) -> list[NDArray[np.float32]]:
    lengths = [float(length) for length in np.linalg.norm(volume.affine[:3, :3], axis=0)]
    counts, wanted = [0, 0, 0], [0.0, 0.0, 0.0]
    for grid_axis, volume_axis in enumerate(grid.axes):
        counts[volume_axis], wanted[volume_axis] = grid.shape[grid_axis], spacing_mm[grid_axis]
    thick = thick_axis(lengths, wanted)
    return [
        (nearest_weights if axis == thick else spline_weights)(volume.shape[axis], counts[axis]) for axis in range(3)
    ]


def resample_to(
    array: NDArray[np.generic], grid: CanonicalGrid, clip: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """Resample an array on the volume's grid, staying in the volume's axis order."""
    counts = [0, 0, 0]
    for grid_axis, volume_axis in enumerate(grid.axes):
        counts[volume_axis] = grid.shape[grid_axis]
    weights = [
        triangle_weights(array.shape[axis], grid.first_index[axis], grid.step[axis], counts[axis]) for axis in range(3)
    ]
    return apply_weights(array, weights, clip)
