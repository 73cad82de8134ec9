"""What a reader drew by hand in the chest and on the spine, and how tubes and outlines are made of it.

The files in ``contours/`` hold clicks on the screen: where vessels run and how wide they are, the heart's outline on a
few slices, the vertebral bodies' edges and the discs between them. Hounsfield units refine it all later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "contours"
#: Outlines are drawn this much finer than the scan's voxels.
_FINER = 4
#: A heart's cap beyond its last outline, mm.
_CAP_MM = 3.0


def read_drawing(scan: str) -> dict[str, Any] | None:
    """Drawing of one scan, or ``None`` when nobody made any."""
    path = FOLDER / f"{scan}.json"
    return json.loads(path.read_text()) if path.exists() else None


@dataclass(frozen=True, slots=True, eq=False)
class Tube:
    """A vessel as clicked, sampled finely.

    Attributes
    ----------
    points
        float64 ``(n, 3)`` mm from the first voxel: slices, rows, columns.
    radii_mm
        float64 ``(n,)``.
    """

    points: NDArray[np.float64]
    radii_mm: NDArray[np.float64]

    @classmethod
    def through(cls, clicked: list[list[float]], spacing_mm: tuple[float, float, float]) -> Tube:
        """Run a smooth line through clicked ``[slice, row, column, diameter_mm]``."""
        rows = np.asarray(clicked, float)
        points = rows[:, :3] * spacing_mm
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        samples = np.linspace(0.0, length[-1], max(2, round(length[-1])))
        line = PchipInterpolator(length, np.column_stack([points, rows[:, 3] / 2]))(samples)
        return cls(line[:, :3], line[:, 3])

    def box(
        self, shape: tuple[int, ...], spacing_mm: tuple[float, float, float], margin_mm: float
    ) -> tuple[slice, ...]:
        """Smallest box of voxels that holds the tube and a margin."""
        reach = self.radii_mm[:, None] + margin_mm
        low = np.floor((self.points - reach).min(axis=0) / spacing_mm).astype(int)
        high = np.ceil((self.points + reach).max(axis=0) / spacing_mm).astype(int) + 1
        return tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape, strict=True))

    def distance(
        self, box: tuple[slice, ...], spacing_mm: tuple[float, float, float]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Signed distance in mm to the wall (negative inside), and how far beyond the nearer end a voxel lies."""
        axes = [np.arange(part.start, part.stop) * step for part, step in zip(box, spacing_mm, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        flat = grid.reshape(-1, 3)
        far, nearest = cKDTree(self.points).query(flat, k=min(12, len(self.points)))
        # The nearest surface, not the nearest axis point, decides where the calibre changes.
        wall = (far - self.radii_mm[nearest]).min(axis=1)
        first = self.points[min(4, len(self.points) - 1)] - self.points[0]
        last = self.points[-1] - self.points[max(0, len(self.points) - 5)]
        beyond = np.full(len(flat), -np.inf)
        for about, end, outward in (
            (nearest[:, 0] < 4, self.points[0], -first),
            (nearest[:, 0] >= len(self.points) - 4, self.points[-1], last),
        ):
            ahead = (flat - end) @ (outward / np.linalg.norm(outward))
            beyond = np.where(about, np.maximum(beyond, ahead), beyond)
        shape = grid.shape[:3]
        return wall.reshape(shape).astype(np.float32), beyond.reshape(shape).astype(np.float32)


def outline_distance(
    corners: list[list[float]], shape: tuple[int, int], spacing_mm: tuple[float, float]
) -> NDArray[np.float32]:
    """Signed distance in mm to a closed smooth outline through ``[column, row]`` corners; positive inside."""
    points = np.asarray([*corners, corners[0]], float)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    # Repeated on both sides, so that the curve closes as smoothly as it runs.
    around = np.concatenate([length[:-1] - length[-1], length, length[1:] + length[-1]])
    curve = PchipInterpolator(around, np.concatenate([points[:-1], points, points[1:]]))
    dense = (curve(np.linspace(0.0, length[-1], 200)) + 0.5) * _FINER
    picture = Image.new("1", (shape[1] * _FINER, shape[0] * _FINER))
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in dense], fill=1)
    fine = np.asarray(picture)
    step = [length_mm / _FINER for length_mm in spacing_mm]
    signed = ndimage.distance_transform_edt(fine, sampling=step) - ndimage.distance_transform_edt(~fine, sampling=step)
    half = _FINER // 2
    result: NDArray[np.float32] = signed[half::_FINER, half::_FINER].astype(np.float32)
    return result


def stacked_distance(
    outlines: dict[str, list[list[float]]], shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Signed distance in mm (positive inside) to outlines on some slices, interpolated between, capped beyond."""
    levels = sorted((int(z), corners) for z, corners in outlines.items())
    slices = [z for z, _ in levels]
    planes = np.stack([outline_distance(corners, shape[1:], spacing_mm[1:]) for _, corners in levels])
    result = np.full(shape, -1e3, np.float32)
    for z in range(shape[0]):
        beyond = max(slices[0] - z, z - slices[-1], 0) * spacing_mm[0]
        if beyond > 12:
            continue
        above = min(int(np.searchsorted(slices, z)), len(slices) - 1)
        below = max(above - 1, 0)
        if z >= slices[-1] or z <= slices[0] or slices[above] == z:
            plane = planes[above]
        else:
            share = (z - slices[below]) / (slices[above] - slices[below])
            plane = (1 - share) * planes[below] + share * planes[above]
        result[z] = np.minimum(plane, _CAP_MM) - beyond if beyond else plane
    return result


def ball_distance(
    clicked: list[list[float]], shape: tuple[int, ...], spacing_mm: tuple[float, float, float], reach_mm: float
) -> NDArray[np.float32]:
    """Distance in mm to the surface of balls ``[slice, row, column, diameter_mm]``, as far as a reach."""
    result = np.full(shape, 1e3, np.float32)
    for row in clicked:
        centre, radius = np.asarray(row[:3]), row[3] / 2
        reach = np.ceil((radius + reach_mm) / np.asarray(spacing_mm)).astype(int)
        box = tuple(
            slice(max(0, int(c) - r), min(n, int(c) + r + 1)) for c, r, n in zip(centre, reach, shape, strict=True)
        )
        axes = np.ogrid[box]
        square = sum(((axis - c) * step) ** 2 for axis, c, step in zip(axes, centre, spacing_mm, strict=True))
        result[box] = np.minimum(result[box], np.sqrt(square) - radius)
    return result
