"""The canvas organs are painted on: densities with soft edges, and the true label of every voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.grid import Grid, interpolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from appliance.phantom.grid import Field, Floats, Vector

    Shape = Callable[[Floats, Floats, Floats], Floats]

Box = tuple[slice, slice, slice]
_SLAB_VOXELS = 150_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A tapered tube from one point to another; points are ``(z, y, x)`` mm, radii mm."""

    start: Vector
    end: Vector
    start_radius: float
    end_radius: float


class Canvas:
    """Densities and labels on a grid; whatever is painted later covers what was painted before.

    Parameters
    ----------
    grid
        Where to paint.
    seen_mm
        Lowest and highest z that the scan shows; fractions and volumes are met there, the margins are for blurring.
    blur_mm
        Blur along the body and in plane that the scanner will add; fractions are met as the scanner sees them.
    coarse_mm
        Step of the coarse grid on which smooth shapes are evaluated.
    """

    def __init__(
        self,
        grid: Grid,
        seen_mm: tuple[float, float],
        blur_mm: tuple[float, float] = (0.0, 0.0),
        coarse_mm: float = 4.0,
    ) -> None:
        self.grid = grid
        self.blur_mm = blur_mm
        z = grid.axis(0)
        self.seen = slice(int(np.searchsorted(z, seen_mm[0])), int(np.searchsorted(z, seen_mm[1], side="right")))
        self.coarse_mm = coarse_mm
        self.hu: Floats = np.full(grid.shape, -1000.0, dtype=np.float32)
        self.tissue: NDArray[np.uint8] = np.zeros(grid.shape, dtype=np.uint8)
        self.edge_mm = float(np.sqrt(grid.spacing_mm[1] * grid.spacing_mm[2]))

    def field(self, shape: Shape, box: Box) -> Field:
        """Return the signed distance (negative inside, mm) of a smooth shape on a box, to be read slab by slab."""
        fine = self.grid.crop(box)
        coarse = fine.coarse(self.coarse_mm)
        values = np.broadcast_to(shape(*coarse.axes()), coarse.shape)
        return interpolated(values, coarse, fine, "cubic")

    def distance(self, shape: Shape, box: Box) -> Floats:
        """Return the signed distance (negative inside, mm) of a smooth shape on the voxels of a box."""
        return self.field(shape, box).whole()

    def slabs(self, box: Box | None = None) -> Iterator[tuple[slice, Box]]:
        """Split a box into runs of slices small enough for the processor's cache.

        Yields
        ------
        local, part
            The run counted from the box's first slice, and the box of that run in the canvas.
        """
        whole = box or (slice(0, self.grid.shape[0]), slice(0, self.grid.shape[1]), slice(0, self.grid.shape[2]))
        area = (whole[1].stop - whole[1].start) * (whole[2].stop - whole[2].start)
        depth = max(_SLAB_VOXELS // area, 1)
        for first in range(whole[0].start, whole[0].stop, depth):
            last = min(first + depth, whole[0].stop)
            yield slice(first - whole[0].start, last - whole[0].start), (slice(first, last), whole[1], whole[2])

    def blend(
        self,
        distance: Floats,
        box: Box,
        hu: float | Floats,
        tissue: int | None,
        where: NDArray[np.bool_] | None = None,
    ) -> None:
        """Paint where the distance is negative; a voxel on the edge mixes both sides."""
        scale = np.float32(-1.0 / self.edge_mm)
        for local, part in self.slabs(box):
            cover = distance[local] * scale
            cover += np.float32(0.5)
            if float(cover.max()) <= 0.0:
                continue
            np.clip(cover, 0.0, 1.0, out=cover)
            if where is not None:
                cover *= where[local]
            view = self.hu[part]
            value = hu[local] if isinstance(hu, np.ndarray) else np.float32(hu)
            view += cover * (value - view)
            if tissue is not None:
                self.tissue[part][cover > 0.5] = tissue  # half a voxel

    def paint(
        self, shape: Shape, low: Vector, high: Vector, hu: float | Floats, tissue: int | None
    ) -> tuple[Box, Floats] | None:
        """Paint a smooth shape that lies inside the box ``low … high``; return its box and distance."""
        box = self.grid.slices(low, high, 2.0)
        if box is None:
            return None
        distance = self.distance(shape, box)
        self.blend(distance, box, hu, tissue)
        return box, distance

    def paint_around(
        self, shape: Shape, middle: Vector, reach_mm: float, hu: float | Floats, tissue: int | None
    ) -> None:
        """Paint a smooth shape that lies within ``reach_mm`` of a point."""
        low = (middle[0] - reach_mm, middle[1] - reach_mm, middle[2] - reach_mm)
        high = (middle[0] + reach_mm, middle[1] + reach_mm, middle[2] + reach_mm)
        self.paint(shape, low, high, hu, tissue)

    def tube_distance(self, segments: Sequence[Segment], reach_mm: float = 4.0) -> tuple[Box, Floats] | None:
        """Return the box around tubes and the distance to their nearest surface (large far away)."""
        if not segments:
            return None
        low, high = _bounds(segments)
        box = self.grid.slices(low, high, reach_mm)
        if box is None:
            return None
        local = self.grid.crop(box)
        distance = np.full(local.shape, 1e3, dtype=np.float32)
        zs, ys, xs = local.axis(0), local.axis(1), local.axis(2)
        for segment in segments:
            _stamp(distance, local, (zs, ys, xs), segment, reach_mm)
        return box, distance

    def paint_tubes(self, segments: Sequence[Segment], hu: float, tissue: int | None) -> tuple[Box, Floats] | None:
        """Paint tubes whole, joints included, with one soft edge."""
        found = self.tube_distance(segments, 2.0 * self.edge_mm)
        if found is not None:
            self.blend(found[1], found[0], hu, tissue)
        return found

    def counts(self) -> NDArray[np.int64]:
        """Voxels of each tissue."""
        return np.bincount(self.tissue.ravel(), minlength=256)


def _bounds(segments: Iterable[Segment]) -> tuple[Vector, Vector]:
    ends = np.array([(s.start, s.end) for s in segments], dtype=np.float64)
    radius = np.array([max(s.start_radius, s.end_radius) for s in segments])[:, None]
    low = (ends.min(axis=1) - radius).min(axis=0)
    high = (ends.max(axis=1) + radius).max(axis=0)
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _stamp(
    distance: Floats, grid: Grid, axes: tuple[Floats, Floats, Floats], segment: Segment, reach_mm: float
) -> None:
    """Lower ``distance`` to the segment's own wherever that is nearer."""
    widest = max(segment.start_radius, segment.end_radius)
    low = tuple(min(a, b) - widest for a, b in zip(segment.start, segment.end, strict=True))
    high = tuple(max(a, b) + widest for a, b in zip(segment.start, segment.end, strict=True))
    box = grid.slices(low, high, reach_mm)  # type: ignore[arg-type]  # three each
    if box is None:
        return
    z = (axes[0][box[0]] - np.float32(segment.start[0]))[:, None, None]
    y = (axes[1][box[1]] - np.float32(segment.start[1]))[None, :, None]
    x = (axes[2][box[2]] - np.float32(segment.start[2]))[None, None, :]
    vz, vy, vx = (np.float32(b - a) for a, b in zip(segment.start, segment.end, strict=True))
    length2 = max(float(vz * vz + vy * vy + vx * vx), 1e-6)
    scale = np.float32(1.0 / length2)
    along = np.clip((z * (vz * scale) + y * (vy * scale)) + x * (vx * scale), 0.0, 1.0)
    d2 = (x - along * vx) ** 2
    d2 += (y - along * vy) ** 2
    d2 += (z - along * vz) ** 2
    np.sqrt(d2, out=d2)
    d2 -= np.float32(segment.start_radius)
    if segment.end_radius != segment.start_radius:
        d2 -= along * np.float32(segment.end_radius - segment.start_radius)
    view = distance[box]
    np.minimum(view, d2, out=view)
