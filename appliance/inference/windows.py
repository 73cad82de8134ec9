"""Where MONAI's sliding window puts its tiles and how it weighs them, beside the appliance's and nnU-Net's ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Least weight in MONAI's Gaussian window.
_LEAST = 1e-3


def stepped_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Starts of tiles a whole step apart, the last one drawn back so that it ends with the axis.

    Parameters
    ----------
    length
        Voxels to cover.
    tile
        Voxels of one tile.
    overlap
        Share of a tile that its neighbour repeats.

    Returns
    -------
    list[int]
        Ascending. A single tile that is longer than the axis starts below zero, so that the axis lies in its middle.
    """
    if length <= tile:
        return [-((tile - length) // 2)]
    step = max(1, int(tile * (1 - overlap)))
    count = -(-(length - tile) // step) + 1
    return [min(index * step, length - tile) for index in range(count)]


def constant_window(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Every voxel of a tile counts alike."""
    return np.ones(shape, np.float32)


def centred_gaussian_window(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Weights of a tile as MONAI has them: a Gaussian of one eighth of the tile around its exact middle."""
    result = np.ones(shape, np.float32)
    for axis, size in enumerate(shape):
        along = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (size / 8)) ** 2).astype(np.float32)
        result *= along.reshape([-1 if i == axis else 1 for i in range(3)])
    return np.maximum(result, np.float32(max(float(result.min()), _LEAST)))
