"""Covering a volume with overlapping tiles, and melting their answers into one without seams.

Logits are weighted by a window that falls towards a tile's rim and summed; the label is taken from the sum, as soon as
no later tile can change it.
"""

from __future__ import annotations

from itertools import combinations, product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from appliance.inference.sums import MOST_HELD_BYTES, Axis, TileSums, tile_order
from appliance.inference.windows import centred_gaussian_window, constant_window, stepped_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from appliance.inference.logits import Logits

    Run = Callable[[NDArray[np.int16]], Logits]

#: Least weight of a Gaussian window: what is left of the corners of nnU-Net's window, which is held in half precision.
_LEAST_GAUSSIAN = 6e-9


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Evenly spread starts of tiles along one axis.

    Parameters
    ----------
    length
        Voxels to cover.
    tile
        Voxels of one tile.
    overlap
        Share of a tile that its neighbour repeats, at least.

    Returns
    -------
    list[int]
        Ascending. A single tile that is longer than the axis starts below zero, so that the axis lies in its middle.
    """
    if length <= tile:
        return [-((tile - length) // 2)]
    count = int(np.ceil((length - tile) / (tile * (1 - overlap)))) + 1
    return [round(start) for start in np.linspace(0, length - tile, count)]


def count_tiles(shape: Sequence[int], patch: Sequence[int], *, overlap: float, tiling: str = "even") -> int:
    """Return how many tiles cover a volume, mirrored ones not counted; parameters as for :func:`label_tiles`."""
    starts = stepped_starts if tiling == "stepped" else tile_starts
    return prod(len(starts(length, tile, overlap)) for length, tile in zip(shape, patch, strict=True))


def window(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Weights of a tile: one in the middle, falling to a small number at the rim, never zero."""
    result = np.ones(shape, np.float32)
    for axis, size in enumerate(shape):
        rim = np.minimum(np.arange(size) + 1, size - np.arange(size)) / max(1.0, size / 4)
        along = np.clip(rim, 0.01, 1.0).astype(np.float32)
        result *= along.reshape([-1 if i == axis else 1 for i in range(3)])
    return result


def gaussian_window(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Weights of a tile as nnU-Net has them: a Gaussian of one eighth of the tile around its middle voxel."""
    result = np.ones(shape, np.float32)
    for axis, size in enumerate(shape):
        along = np.exp(-0.5 * ((np.arange(size) - size // 2) / (size / 8)) ** 2).astype(np.float32)
        result *= along.reshape([-1 if i == axis else 1 for i in range(3)])
    return np.maximum(result, np.float32(_LEAST_GAUSSIAN))


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """List all mirrorings along some axes of a tile, 0…2, beginning with none; with n axes there are 2ⁿ."""
    return [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]


_WINDOWS = {
    "ramp": window,
    "gaussian": gaussian_window,
    "gaussian-centred": centred_gaussian_window,
    "constant": constant_window,
}


def label_tiles(
    hu: NDArray[np.int16],
    run: Run,
    *,
    patch: tuple[int, int, int],
    overlap: float,
    fill_hu: int,
    weighting: str = "ramp",
    tiling: str = "even",
    mirror_axes: Sequence[int] = (),
    padding: str = "fill",
    on_tile: Callable[[int, int], None] | None = None,
    most_held_bytes: int = MOST_HELD_BYTES,
) -> NDArray[np.uint8]:
    """Label a volume tile by tile.

    Parameters
    ----------
    hu
        int16 ``(slices, rows, columns)`` on the network's grid.
    run
        One tile of HU in the patch's shape to logits ``(channels, slices, rows, columns)``.
    patch, overlap, fill_hu
        Shape of a tile, least share repeated by its neighbour, and what lies outside the scan.
    weighting
        ``"ramp"`` or ``"gaussian"``: see :func:`window` and :func:`gaussian_window`; ``"gaussian-centred"`` or
        ``"constant"``: see :mod:`appliance.inference.windows`.
    tiling
        ``"even"`` or ``"stepped"``: see :func:`tile_starts` and :func:`appliance.inference.windows.stepped_starts`.
    mirror_axes
        Answers are averaged over the mirrorings along these axes; see :func:`mirrorings`.
    padding
        What a tile sees beyond the scan: ``"fill"`` takes ``fill_hu``, ``"mirror"`` reflects the scan at its border.
    on_tile
        Called with tiles done and tiles in all.
    most_held_bytes
        Sums that would need more than this in single precision are held in half precision, as are those of bf16.

    Returns
    -------
    NDArray[np.uint8]
        Channel of the largest weighted mean of the logits, in the shape of ``hu``.

    Raises
    ------
    InferenceError
        The network gave values that are not finite.
    """
    starts = stepped_starts if tiling == "stepped" else tile_starts
    axes = [Axis(hu.shape[axis], patch[axis], starts(hu.shape[axis], patch[axis], overlap)) for axis in range(3)]
    order = tile_order(axes)
    flips = mirrorings(mirror_axes)
    weights = _WINDOWS[weighting](patch)
    sums = TileSums(axes, order, weights, repeats=len(flips), most_bytes=most_held_bytes)
    numbers = list(product(*(range(len(axes[axis].starts)) for axis in order)))
    back = np.argsort(order)
    tile = np.empty(patch, np.int16)
    for done, number in enumerate(numbers, start=1):
        at = (number[back[0]], number[back[1]], number[back[2]])
        start = tuple(axes[axis].starts[at[axis]] for axis in range(3))
        _cut(hu, start, tile, fill_hu if padding == "fill" else None)
        for flip in flips:
            logits = run(np.ascontiguousarray(np.flip(tile, flip)) if flip else tile)
            sums.add(at, np.flip(logits, tuple(axis + 1 for axis in flip)))
        if on_tile is not None:
            on_tile(done, len(numbers))
    return sums.labels


def _cut(hu: NDArray[np.int16], start: Sequence[int], tile: NDArray[np.int16], fill_hu: int | None) -> None:
    """Copy a tile out of a volume; what lies beyond is filled, or the volume's mirror image."""
    if fill_hu is None:
        index = [
            reflected(np.arange(first, first + size), length)
            for first, size, length in zip(start, tile.shape, hu.shape, strict=True)
        ]
        tile[...] = hu[np.ix_(*index)]
        return
    low = [max(first, 0) for first in start]
    high = [min(first + size, length) for first, size, length in zip(start, tile.shape, hu.shape, strict=True)]
    tile.fill(fill_hu)
    inside = tuple(slice(a - first, b - first) for a, b, first in zip(low, high, start, strict=True))
    tile[inside] = hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]


def reflected(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Index of the sample seen where an axis is a mirror at its first and last sample, as often as it takes.

    Parameters
    ----------
    index
        Any integers.
    length
        Samples along the axis.
    """
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    within: NDArray[np.int64] = np.mod(index, period)
    return np.minimum(within, period - within)
