"""Between the scanner's grid and a network's grid: separable, anti-aliased, and never a full-resolution float volume.

The scan's axes are only permuted and flipped to the nearest anatomical ones; what is left of an oblique acquisition
stays in the affine of the result, so that every label keeps its place in the patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

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
    axes, _ = nearest_axes(affine)
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
    return grid_over(affine, first, step, size)


def grid_over(
    affine: NDArray[np.float64], first: Sequence[float], step: Sequence[float], size: Sequence[int]
) -> CanonicalGrid:
    """Make a grid of what is known of it along each axis of the volume.

    Parameters
    ----------
    affine
        Of the volume.
    first, step, size
        For each axis of the volume: index of the grid's first voxel and distance between voxels, in volume voxels,
        before any flip; and the grid's voxels.
    """
    axes, flips = nearest_axes(affine)
    result, corner = np.eye(4), np.asarray(first, np.float64)
    for grid_axis, axis in enumerate(axes):
        sign = -1.0 if flips[grid_axis] else 1.0
        result[:3, grid_axis] = affine[:3, axis] * step[axis] * sign
        if flips[grid_axis]:
            corner[axis] = first[axis] + (size[axis] - 1) * step[axis]
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
    out = np.empty([matrix.shape[0] for matrix in weights], np.float32)
    for first, values in resampled_slabs(array, weights, clip):
        out[first : first + values.shape[0]] = values
    return out


def resampled_slabs(
    array: NDArray[np.generic],
    weights: Sequence[NDArray[np.float32]],
    clip: tuple[float, float] | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Resample as :func:`apply_weights` does, and give away each slab of slices as soon as it is complete.

    Yields
    ------
    first : int
        Where the slab begins along the first axis.
    values : NDArray[np.float32]
        ``(some slices, rows, columns)``.
    """
    from scipy import sparse

    # Few weights of a matrix are not zero, and a product of dense ones keeps every core waiting for the others.
    along_slices, along_rows, along_columns = (sparse.csr_array(matrix) for matrix in weights)
    count_out, count_in = along_slices.shape
    # Slices up to this one of the array must have come before a slice of the result, and all before it, are complete.
    reach = np.where(weights[0] != 0, np.arange(count_in), -1).max(axis=1)
    complete = np.maximum.accumulate(reach)
    plane = (along_rows.shape[0], array.shape[2])
    begun = np.zeros((0, *plane), np.float32)
    base = 0
    for start in range(0, count_in, _SLAB):
        slab = array[start : start + _SLAB].astype(np.float32)
        stop = start + slab.shape[0]
        if clip is not None:
            np.clip(slab, *clip, out=slab)
        small = np.stack([along_rows @ image for image in slab])
        share = along_slices[:, start:stop]
        used = np.flatnonzero(np.diff(share.indptr))
        last = max(base + begun.shape[0], int(used[-1]) + 1 if used.size else 0)
        if last > base + begun.shape[0]:
            more = np.zeros((last - base - begun.shape[0], *plane), np.float32)
            begun = np.concatenate([begun, more]) if begun.shape[0] else more
        if used.size:
            first = int(used[0])
            begun[first - base : last - base] += (share[first:last] @ small.reshape(small.shape[0], -1)).reshape(
                last - first, *plane
            )
        done = int(np.searchsorted(complete, stop)) if stop < count_in else count_out
        if done > base:
            yield base, _along_last(begun[: done - base], along_columns)
            begun, base = begun[done - base :].copy(), done


def _along_last(array: NDArray[np.float32], weights: csr_array[Any]) -> NDArray[np.float32]:
    """Resample the last of three axes; a sparse product runs along the first, so the axes are turned there and back."""
    slices, rows, columns = array.shape
    turned = np.ascontiguousarray(array.reshape(-1, columns).T)
    narrow: NDArray[np.float32] = np.ascontiguousarray((weights @ turned).T)
    return narrow.reshape(slices, rows, -1)


def resample_hounsfield(
    array: NDArray[np.int16],
    weights: Sequence[NDArray[np.float32]],
    grid: CanonicalGrid,
    clip_hu: tuple[float, float] | None = None,
    *,
    clip_result: bool = False,
) -> NDArray[np.int16]:
    """Resample Hounsfield units to a grid; only some slices at a time are ever floats, however fine the grid is.

    Parameters
    ----------
    array
        In the volume's axes.
    weights
        One ``(out, in)`` matrix per axis of the volume.
    grid
        Whose shape the matrices give.
    clip_hu
        Limits put on the array first, or ``None``.
    clip_result
        Put them on the result too.

    Returns
    -------
    NDArray[np.int16]
        In the grid's axes, C-contiguous.
    """
    hu = np.empty(grid.shape, np.int16)
    in_volume_axes = grid.to_volume_axes(hu)
    for first, values in resampled_slabs(array, weights, clip_hu):
        if clip_result and clip_hu is not None:
            np.clip(values, *clip_hu, out=values)
        in_volume_axes[first : first + values.shape[0]] = np.rint(values, out=values)
    return hu


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
        # A spline overshoots at edges; nnU-Net keeps the result within the range of the image.
        return resample_hounsfield(volume.hu, weights, grid, clip_hu, clip_result=True), grid
    grid = canonical_grid(volume.shape, volume.affine, spacing_mm)
    return resample_hounsfield(volume.hu, _triangle_weights(volume.shape, grid), grid, clip_hu), grid


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
    return apply_weights(array, _triangle_weights(array.shape, grid), clip)


def _triangle_weights(shape: tuple[int, ...], grid: CanonicalGrid) -> list[NDArray[np.float32]]:
    counts = [0, 0, 0]
    for grid_axis, volume_axis in enumerate(grid.axes):
        counts[volume_axis] = grid.shape[grid_axis]
    return [triangle_weights(shape[axis], grid.first_index[axis], grid.step[axis], counts[axis]) for axis in range(3)]
