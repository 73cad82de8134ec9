"""Covering a volume with overlapping tiles, and melting their answers into one without seams.

Logits are weighted by a window that falls towards a tile's rim and summed; the label is taken from the sum. The sum is
kept only for the slices that later tiles can still change, so that memory does not grow with the length of the scan.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.int16]], NDArray[np.float32]]

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


def mirrored(run: Run, axes: Sequence[int]) -> Run:
    """Average a network's answers over all mirrorings along some axes; with n axes it runs 2ⁿ times as often.

    Parameters
    ----------
    run
        One tile of HU to logits ``(channels, slices, rows, columns)``.
    axes
        Axes of the tile, 0…2.
    """
    flips = [chosen for count in range(1, len(axes) + 1) for chosen in combinations(axes, count)]

    def average(tile: NDArray[np.int16]) -> NDArray[np.float32]:
        total = run(tile).copy()
        for chosen in flips:
            answer = run(np.ascontiguousarray(np.flip(tile, chosen)))
            total += np.flip(answer, tuple(axis + 1 for axis in chosen))
        total /= len(flips) + 1
        return total

    return average if flips else run


def label_tiles(
    hu: NDArray[np.int16],
    run: Run,
    *,
    patch: tuple[int, int, int],
    overlap: float,
    fill_hu: int,
    weighting: str = "ramp",
    mirror_axes: Sequence[int] = (),
    on_tile: Callable[[int, int], None] | None = None,
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
        ``"ramp"`` or ``"gaussian"``: see :func:`window` and :func:`gaussian_window`.
    mirror_axes
        See :func:`mirrored`.
    on_tile
        Called with tiles done and tiles in all.

    Returns
    -------
    NDArray[np.uint8]
        Channel of the largest summed logit, in the shape of ``hu``.
    """
    starts = [tile_starts(hu.shape[axis], patch[axis], overlap) for axis in range(3)]
    total, done = len(starts[0]) * len(starts[1]) * len(starts[2]), 0
    weights = gaussian_window(patch) if weighting == "gaussian" else window(patch)
    run = mirrored(run, mirror_axes)
    labels = np.zeros(hu.shape, np.uint8)
    tile = np.empty(patch, np.int16)
    held: NDArray[np.float32] | None = None
    base = 0
    for number, top in enumerate(starts[0]):
        first, last = max(top, 0), min(top + patch[0], hu.shape[0])
        if held is not None:
            keep = held[:, first - base :]
            moved = np.zeros_like(held)
            moved[:, : keep.shape[1]] = keep
            held = moved
        base = first
        for left in starts[1]:
            for front in starts[2]:
                inside, outside = _overlap((top, left, front), patch, hu.shape)
                tile.fill(fill_hu)
                tile[inside] = hu[outside]
                logits = run(tile)
                if held is None:
                    held = np.zeros((logits.shape[0], min(patch[0], hu.shape[0]), *hu.shape[1:]), np.float32)
                local = (slice(outside[0].start - base, outside[0].stop - base), *outside[1:])
                for channel in range(logits.shape[0]):
                    held[channel][local] += logits[channel][inside] * weights[inside]
                done += 1
                if on_tile is not None:
                    on_tile(done, total)
        final = last if number + 1 == len(starts[0]) else starts[0][number + 1]
        if held is not None:
            labels[base:final] = held[:, : final - base].argmax(axis=0)
    return labels


def _overlap(
    start: tuple[int, int, int], patch: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    inside, outside = [], []
    for axis in range(3):
        low, high = max(start[axis], 0), min(start[axis] + patch[axis], shape[axis])
        inside.append(slice(low - start[axis], high - start[axis]))
        outside.append(slice(low, high))
    return tuple(inside), tuple(outside)
