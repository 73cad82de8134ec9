"""Regular grids in the patient and cheap smooth interpolation between a coarse and a fine one.

Every smooth shape is evaluated on a coarse grid and brought to the fine one by three small matrix products, which is
what lets a whole trunk be drawn in seconds without a compiled extension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid aligned with the patient: axes (slice → head, row → back, column → patient's left).

    Attributes
    ----------
    origin_mm
        ``(z, y, x)`` of the first voxel's centre, LPS mm.
    spacing_mm
        Distance between centres along ``(z, y, x)``.
    shape
        Voxels along ``(z, y, x)``.
    """

    origin_mm: Vector
    spacing_mm: Vector
    shape: tuple[int, int, int]

    def axis(self, index: int) -> Floats:
        """Return the coordinates of the voxel centres along one axis, mm, float32."""
        values = self.origin_mm[index] + self.spacing_mm[index] * np.arange(self.shape[index])
        return np.asarray(values, dtype=np.float32)

    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Return ``(z, y, x)`` coordinates, shaped to broadcast against each other."""
        return self.axis(0)[:, None, None], self.axis(1)[None, :, None], self.axis(2)[None, None, :]

    def slices(self, low_mm: Vector, high_mm: Vector, margin_mm: float = 0.0) -> tuple[slice, slice, slice] | None:
        """Return the index ranges inside a box, or ``None`` when the box lies outside the grid."""
        ranges = []
        for axis in range(3):
            step = self.spacing_mm[axis]
            first = int(np.floor((low_mm[axis] - margin_mm - self.origin_mm[axis]) / step))
            last = int(np.ceil((high_mm[axis] + margin_mm - self.origin_mm[axis]) / step)) + 1
            first, last = max(first, 0), min(last, self.shape[axis])
            if first >= last:
                return None
            ranges.append(slice(first, last))
        return ranges[0], ranges[1], ranges[2]

    def crop(self, box: tuple[slice, slice, slice]) -> Grid:
        """Return the part of this grid inside index ranges."""
        starts = tuple(part.start for part in box)
        origin = tuple(self.origin_mm[i] + starts[i] * self.spacing_mm[i] for i in range(3))
        shape = tuple(part.stop - part.start for part in box)
        return Grid(origin, self.spacing_mm, shape)

    def coarse(self, step_mm: float) -> Grid:
        """Return a coarser grid that covers this one with a margin for cubic interpolation."""
        spacing = tuple(max(step_mm, own) for own in self.spacing_mm)
        origin = tuple(self.origin_mm[i] - 1.5 * spacing[i] for i in range(3))
        shape = tuple(int(np.ceil((self.shape[i] - 1) * self.spacing_mm[i] / spacing[i])) + 4 for i in range(3))
        return Grid(origin, spacing, shape)  # type: ignore[arg-type]  # three each by construction

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitre."""
        return self.spacing_mm[0] * self.spacing_mm[1] * self.spacing_mm[2] / 1000.0


def interpolation_matrix(
    origin_mm: float, step_mm: float, count: int, targets_mm: Floats, kind: Literal["linear", "cubic", "spline"]
) -> Floats:
    """Return weights ``(targets, count)`` that interpolate samples on a line; positions beyond the ends are clamped.

    ``cubic`` is Catmull and Rom's interpolating cubic, ``spline`` the smoothing cubic B-spline.
    """
    position = np.clip((targets_mm.astype(np.float64) - origin_mm) / step_mm, 0.0, count - 1.0)
    base = np.minimum(np.floor(position).astype(int), max(count - 2, 0))
    t = position - base
    if kind == "linear":
        weights = {0: 1.0 - t, 1: t}
    elif kind == "cubic":
        weights = {
            -1: 0.5 * (-(t**3) + 2 * t**2 - t),
            0: 0.5 * (3 * t**3 - 5 * t**2 + 2),
            1: 0.5 * (-3 * t**3 + 4 * t**2 + t),
            2: 0.5 * (t**3 - t**2),
        }
    else:
        weights = {
            -1: (1 - t) ** 3 / 6,
            0: (3 * t**3 - 6 * t**2 + 4) / 6,
            1: (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            2: t**3 / 6,
        }
    matrix = np.zeros((len(position), count), dtype=np.float32)
    rows = np.arange(len(position))
    for offset, weight in weights.items():
        np.add.at(matrix, (rows, np.clip(base + offset, 0, count - 1)), weight.astype(np.float32))
    return matrix


class Banded:
    """A matrix whose rows reach only a few neighbouring columns.

    Sparse products run in one thread: many small dense products would start and stop the threads of the linear algebra
    library thousands of times, which on a busy machine costs more than the arithmetic.

    Parameters
    ----------
    matrix
        float32 ``(rows, columns)``, mostly zero.
    """

    def __init__(self, matrix: Floats) -> None:
        from scipy.sparse import csr_array

        self._matrix = csr_array(matrix)

    def left(self, values: Floats) -> Floats:
        """Return ``matrix @ values`` for ``values`` of shape ``(columns, n)``."""
        return np.asarray(self._matrix @ np.ascontiguousarray(values), dtype=np.float32)

    def along(self, values: Floats, axis: int) -> Floats:
        """Apply the matrix along one axis of an array."""
        moved = np.ascontiguousarray(np.moveaxis(values, axis, 0))
        out = self.left(moved.reshape(moved.shape[0], -1)).reshape(-1, *moved.shape[1:])
        return np.asarray(np.moveaxis(out, 0, axis), dtype=np.float32)


class Field:
    """A smooth field on a fine grid that is worked out slab by slab, so that it never fills memory.

    Parameters
    ----------
    samples
        Values on the coarse grid, ``(z, y, x)``.
    along
        One interpolation matrix per axis, ``(fine, coarse)``.
    """

    def __init__(self, samples: Floats, along: Sequence[Floats]) -> None:
        planes = np.ascontiguousarray(Banded(along[1]).along(Banded(along[2]).along(samples, 2), 1))
        self._planes: Floats = planes.reshape(planes.shape[0], -1)
        self._along_z = along[0]
        self.shape = (along[0].shape[0], along[1].shape[0], along[2].shape[0])

    def slab(self, slices: slice) -> Floats:
        """Return the field on a run of slices."""
        part = self._along_z[slices]
        reached = np.flatnonzero(part.any(axis=0))
        low, high = int(reached[0]), int(reached[-1]) + 1
        return Banded(part[:, low:high]).left(self._planes[low:high]).reshape(-1, *self.shape[1:])

    def whole(self) -> Floats:
        """Return the field on the whole grid."""
        return self.slab(slice(None))


def interpolated(samples: Floats, source: Grid, target: Grid, kind: Literal["linear", "cubic", "spline"]) -> Field:
    """Interpolate samples on ``source`` to the voxel centres of ``target``."""
    along = [
        interpolation_matrix(source.origin_mm[i], source.spacing_mm[i], source.shape[i], target.axis(i), kind)
        for i in range(3)
    ]
    return Field(np.ascontiguousarray(samples, dtype=np.float32), along)
