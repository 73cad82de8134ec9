"""Melting overlapping tiles' answers into labels while holding as few of their sums as possible.

A volume is cut along every tile's border into cells. All voxels of a cell are covered by the same tiles, so a cell's
sums are made when its first tile comes, turned into labels when its last one is there, and held only in between.
"""

from __future__ import annotations

from itertools import pairwise, permutations, product
from typing import TYPE_CHECKING

import numpy as np

from appliance.errors import InferenceError
from appliance.inference.logits import from_half, largest, single, to_half

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from appliance.inference.logits import Logits

    Index = tuple[int, int, int]

#: Above this, and always for logits in bf16, sums are held in half precision, as nnU-Net holds them always. A network
#: of 118 classes at 3 mm would need some 800 MB for them in single precision.
MOST_HELD_BYTES = 256 << 20

_LARGEST_LABEL = 255
#: Of answers that are weighed at a time.
_BLOCK_BYTES = 2 << 20
#: What a logit may be at most, so that no sum leaves the range of the type it is held in.
_LARGEST_LOGIT = {np.dtype(np.float16): 6e4, np.dtype(np.float32): 1e37}


class Axis:
    """One axis of a volume, cut into segments at every tile's border.

    Parameters
    ----------
    length
        Voxels.
    tile
        Voxels of a tile.
    starts
        Of the tiles, ascending; the first may lie below zero.
    """

    def __init__(self, length: int, tile: int, starts: Sequence[int]) -> None:
        spans = [(max(start, 0), min(start + tile, length)) for start in starts]
        borders = sorted({border for span in spans for border in span})
        self.starts = tuple(starts)
        self.segments = tuple(pairwise(borders))
        self.covered = tuple(
            range(borders.index(low), borders.index(high)) for low, high in spans
        )  # segments of each tile
        covering = [
            [tile for tile, segments in enumerate(self.covered) if s in segments] for s in range(len(borders) - 1)
        ]
        self.first = np.array([tiles[0] for tiles in covering])
        self.last = np.array([tiles[-1] for tiles in covering])
        self.count = np.array([len(tiles) for tiles in covering])
        self.size = np.array([high - low for low, high in self.segments])

    def inside(self, tile: int, segment: int) -> slice:
        """Place of a segment in a tile."""
        low, high = self.segments[segment]
        return slice(low - self.starts[tile], high - self.starts[tile])


def most_held(axes: Sequence[Axis], order: Sequence[int], repeats: int = 1) -> int:
    """Largest number of voxels whose sums are held at a time, when tiles come in an order.

    Parameters
    ----------
    axes
        Of the volume.
    order
        The axes, the one whose tiles change slowest first.
    repeats
        Answers that each tile gives.
    """
    steps = [1, 1, 1]
    steps[order[1]] = len(axes[order[2]].starts)
    steps[order[0]] = steps[order[1]] * len(axes[order[1]].starts)

    def over_cells(values: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], ...]:
        return tuple(np.meshgrid(*values, indexing="ij"))

    first = sum(over_cells([axis.first * step for axis, step in zip(axes, steps, strict=True)]))
    last = sum(over_cells([axis.last * step for axis, step in zip(axes, steps, strict=True)]))
    voxels = np.prod(over_cells([axis.size for axis in axes]), axis=0)
    held = (np.prod(over_cells([axis.count for axis in axes]), axis=0) * repeats) > 1
    change = np.zeros(int(np.max(last)) + 2, np.int64)
    np.add.at(change, np.asarray(first)[held], voxels[held])
    np.add.at(change, np.asarray(last)[held] + 1, -voxels[held])
    return int(change.cumsum().max())


def tile_order(axes: Sequence[Axis]) -> tuple[int, int, int]:
    """Order of the axes, slowest first, that holds the fewest sums."""
    best = min(permutations(range(3)), key=lambda order: most_held(axes, order))
    return best[0], best[1], best[2]


class TileSums:
    """Labels of a volume, made of tiles' answers.

    Parameters
    ----------
    axes
        Of the volume.
    order
        See :func:`tile_order`; tiles come in this order.
    weights
        Of a tile's voxels, positive.
    repeats
        Answers that each tile gives.
    most_bytes
        Sums that would need more than this in single precision are held in half precision, as are those of bf16.

    Attributes
    ----------
    labels
        uint8 in the volume's shape: channel of the largest weighted mean of the answers; complete when every tile has
        given all its answers.
    """

    def __init__(
        self,
        axes: Sequence[Axis],
        order: Sequence[int],
        weights: NDArray[np.float32],
        *,
        repeats: int = 1,
        most_bytes: int = MOST_HELD_BYTES,
    ) -> None:
        self._axes = axes
        self._weights = weights
        self._voxels_held = most_held(axes, order, repeats)
        self._most_bytes = most_bytes
        self._repeats = repeats
        self._channels = 0
        self._dtype: np.dtype[np.floating] = np.dtype(np.float32)
        counts = np.meshgrid(*(axis.count for axis in axes), indexing="ij")
        self._left = np.prod(counts, axis=0) * repeats
        self._held: dict[Index, NDArray[np.floating]] = {}
        self._totals: dict[Index, NDArray[np.float32]] = {}
        self.labels = np.zeros([axis.segments[-1][1] for axis in axes], np.uint8)

    def add(self, tile: Index, logits: Logits) -> None:
        """Take one answer.

        Parameters
        ----------
        tile
            Number of the tile along each axis.
        logits
            ``(channels, slices, rows, columns)`` in the tile's shape; not kept. Quickest where the channels of a voxel
            lie side by side in memory, as engines compute them.

        Raises
        ------
        InferenceError
            It holds values that are not finite, or too large to be summed, or too many channels.
        """
        if not self._channels:
            self._prepare(logits)
        voxels = np.moveaxis(logits, 0, -1)
        self._check(voxels)
        a, b, c = (axis.covered[number] for axis, number in zip(self._axes, tile, strict=True))
        for cell in product(a, b, c):
            inside = tuple(axis.inside(*at) for axis, *at in zip(self._axes, tile, cell, strict=True))
            self._left[cell] -= 1
            if self._left[cell] == 0:
                self._finish(cell, inside, voxels[inside])
            else:
                self._accumulate(cell, inside, voxels[inside])

    def _prepare(self, logits: Logits) -> None:
        channels = logits.shape[0]
        if channels > _LARGEST_LABEL + 1:
            raise InferenceError(f"The network gives {channels} channels; at most {_LARGEST_LABEL + 1} are taken.")
        self._channels = channels
        if logits.dtype != np.float32 or self._voxels_held * channels * 4 > self._most_bytes:
            self._dtype = np.dtype(np.float16)

    def _check(self, voxels: Logits) -> None:
        limit = _LARGEST_LOGIT[self._dtype]
        for block in voxels:
            if not largest(block) < limit:
                raise InferenceError(
                    "The network gave values that are not finite numbers, or too large to be compared; nothing that it "
                    "says of this scan is used."
                )

    def _share(self, cell: Index, inside: tuple[slice, ...]) -> NDArray[np.float32]:
        """Weights of an answer within a cell; with sums in half precision, those of all answers add up to one."""
        weights = self._weights[inside]
        if self._dtype == np.float32:
            return weights
        total = self._totals.get(cell)
        if total is None:
            total = self._totals[cell] = self._total(cell)
        return weights / total

    def _total(self, cell: Index) -> NDArray[np.float32]:
        covering = (
            [tile for tile, segments in enumerate(axis.covered) if segment in segments]
            for axis, segment in zip(self._axes, cell, strict=True)
        )
        total = np.zeros([int(axis.size[segment]) for axis, segment in zip(self._axes, cell, strict=True)], np.float32)
        for tile in product(*covering):
            total += self._weights[tuple(axis.inside(*at) for axis, *at in zip(self._axes, tile, cell, strict=True))]
        return total * np.float32(self._repeats)

    def _accumulate(self, cell: Index, inside: tuple[slice, ...], voxels: Logits) -> None:
        share = self._share(cell, inside)
        sums = self._held.get(cell)
        if sums is None:
            sums = self._held[cell] = np.zeros(voxels.shape, self._dtype)
        for block, part in _blocks(voxels):
            weighed = part * share[block][..., None]
            if sums.dtype == np.float16:
                weighed += from_half(sums[block])
                sums[block] = to_half(weighed)
            else:
                sums[block] += weighed

    def _finish(self, cell: Index, inside: tuple[slice, ...], voxels: Logits) -> None:
        sums = self._held.pop(cell, None)
        share = self._share(cell, inside) if sums is not None else None
        self._totals.pop(cell, None)
        labels = self.labels[tuple(slice(*axis.segments[at]) for axis, at in zip(self._axes, cell, strict=True))]
        for block, part in _blocks(voxels):
            if sums is None or share is None:
                labels[block] = part.argmax(axis=-1)
                continue
            total = part * share[block][..., None]
            total += from_half(sums[block]) if sums.dtype == np.float16 else sums[block]
            labels[block] = total.argmax(axis=-1)


def _blocks(voxels: Logits) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Some slices at a time, few enough for the processor's cache, with the channels of each voxel side by side."""
    step = max(1, _BLOCK_BYTES // max(1, voxels[0].size * 4))
    for start in range(0, voxels.shape[0], step):
        block = slice(start, start + step)
        part = single(voxels[block])
        yield block, part if part.strides[-1] == part.itemsize else np.ascontiguousarray(part)
