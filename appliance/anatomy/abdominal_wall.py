"""The wall of the belly in one plane: where the fat under the skin ends, and where the cavity begins.

No pack need know a muscle. Seen from the middle of the belly, the wall begins where the fat under the skin ends, and is
over where fat, gas or an organ begins that is more than a seam between two muscles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.spine import Vertebra

#: Pixel of the plane, mm.
PIXEL_MM = 0.8
#: Densities of muscle and of fat (Alberta protocol), and below which there is gas, HU.
MUSCLE_HU = (-29.0, 150.0)
FAT_HU = (-190.0, -30.0)
GAS_HU = -250.0
#: Angles around the belly's middle, 0 is the front; beyond the last the spine's muscles lie in the way.
_ANGLES = np.deg2rad(np.arange(-180.0, 180.0, 1.0))
_FLANK = np.deg2rad(122.0)
_RAY_MM = 0.5
#: Muscle shorter than this along a ray is a fascia or a vessel; fat longer than this is no seam between muscles, mm.
_FASCIA_MM, _SEAM_MM = 3.0, 4.0
#: The belly's front, where the white line parts the straight muscles, and the widest gap that is bridged, degrees.
_FRONT, _WHITE_LINE_DEGREES = np.deg2rad(80.0), 61


def pixel(position_mm: NDArray[np.float64], origin: tuple[float, float]) -> tuple[float, float]:
    """Row and column of a position."""
    return (float(position_mm[1]) - origin[1]) / PIXEL_MM, (float(position_mm[0]) - origin[0]) / PIXEL_MM


@dataclass(frozen=True, slots=True, eq=False)
class Wall:
    """The trunk's wall in the plane.

    Attributes
    ----------
    within
        What lies inside the muscles' outer surface.
    cavity
        What lies inside their inner surface, before the spine and its muscles.
    front
        The part of the plane in which the wall is seen from the middle of the belly.
    """

    within: NDArray[np.bool_]
    cavity: NDArray[np.bool_]
    front: NDArray[np.bool_]


def find_wall(
    hu: NDArray[np.float32],
    body: NDArray[np.bool_],
    organs: NDArray[np.bool_],
    bone: NDArray[np.bool_],
    level: Vertebra,
    origin: tuple[float, float],
) -> Wall:
    """Find the wall in a plane.

    Parameters
    ----------
    hu
        Densities, ``(rows, columns)`` of ``PIXEL_MM``; rows grow backwards, columns to the patient's left.
    body, organs, bone
        Boolean, same shape.
    level
        The vertebra in the plane.
    origin
        LPS x and y of the first pixel's middle, mm.
    """
    from scipy import ndimage

    spine_row, spine_column = pixel(level.centre_mm, origin)
    front_row = spine_row - level.half_depth_mm / PIXEL_MM
    # the middle of the belly: a little before the spine, where every part of the wall is in sight
    centre = (front_row - 25.0 / PIXEL_MM, spine_column)
    reach = np.arange(0.0, 300.0, _RAY_MM)
    rows = centre[0] - np.cos(_ANGLES)[:, None] * reach / PIXEL_MM
    columns = centre[1] + np.sin(_ANGLES)[:, None] * reach / PIXEL_MM

    def along(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = ndimage.map_coordinates(plane, [rows, columns], order=1, mode="nearest")
        return values

    density = along(ndimage.gaussian_filter(hu, 0.6))
    inside = along(body.astype(np.float32)) > 0.5
    lean = ((density >= MUSCLE_HU[0]) & (density <= MUSCLE_HU[1])) | (along(bone.astype(np.float32)) > 0.5)
    outer = _outer(lean, inside)
    stop = (along(organs.astype(np.float32)) > 0.5) | (density < GAS_HU)
    inner = outer - _thickness(outer, density < FAT_HU[1], stop)
    grid_rows, grid_columns = np.indices(hu.shape, dtype=np.float64)
    away = (grid_rows - centre[0]) * PIXEL_MM, (grid_columns - centre[1]) * PIXEL_MM
    radius, angle = np.hypot(*away), np.arctan2(away[1], -away[0])
    within = radius <= _at(angle, outer)
    cavity = within & (radius < _at(angle, inner)) & (np.abs(angle) <= _FLANK)
    cavity |= within & (np.abs(angle) > _FLANK) & _before_spine(inner, centre, level, origin, hu.shape)
    return Wall(within & body, cavity & body, np.abs(angle) <= _FLANK)


def _at(angle: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate a table over the circle."""
    return np.interp(angle, _ANGLES, table, period=2.0 * np.pi)


def _outer(lean: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of the muscles' outer surface on every ray: from the skin inwards, the first that is no fascia."""
    from scipy import ndimage

    steps = round(_FASCIA_MM / _RAY_MM)
    outer = np.zeros(len(lean))
    for ray, (tissue, trunk) in enumerate(zip(lean, inside, strict=True)):
        filled = np.flatnonzero(trunk)
        skin = int(filled[-1]) if filled.size else 0
        # the skin itself, 2 to 3 mm, is as dense as muscle
        deeper = tissue[: max(0, skin - round(3.5 / _RAY_MM))]
        runs = np.flatnonzero(ndimage.binary_opening(deeper, np.ones(steps)))
        outer[ray] = (float(runs[-1]) + 0.5) * _RAY_MM if runs.size else skin * _RAY_MM
    smooth: NDArray[np.float64] = ndimage.median_filter(outer, 7, mode="wrap")
    outer = np.where(np.abs(outer - smooth) > 4.0, smooth, outer)
    # between the straight muscles the white line is too thin to be seen: the wall goes on over it
    bridged = ndimage.grey_closing(outer, _WHITE_LINE_DEGREES, mode="wrap")
    gap = (np.abs(_ANGLES) < _FRONT) & (bridged - outer > 15.0)
    gap = ndimage.binary_dilation(gap, iterations=3)
    return _chords(outer, gap)


def _chords(outer: NDArray[np.float64], gap: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replace gaps in a closed line, given as distance over the angles, by straight lines."""
    from scipy import ndimage

    result = outer.copy()
    runs, count = ndimage.label(gap)
    for run in range(1, count + 1):
        rays = np.flatnonzero(runs == run)
        first, last = rays[0] - 1, (rays[-1] + 1) % len(outer)
        ends = [outer[end] * np.array([np.cos(_ANGLES[end]), np.sin(_ANGLES[end])]) for end in (first, last)]
        along = ends[1] - ends[0]
        for ray in rays:
            towards = np.array([np.cos(_ANGLES[ray]), np.sin(_ANGLES[ray])])
            crossing = np.linalg.solve(np.stack([towards, -along], axis=1), ends[0])
            result[ray] = crossing[0]
    return result


def _thickness(outer: NDArray[np.float64], fat: NDArray[np.bool_], stop: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How thick the wall is on every ray: to the first fat that is no seam, to gas or to an organ.

    Where bowel lies against the wall nothing marks its end; there the neighbours' thickness holds.
    """
    from scipy import ndimage

    seam = round(_SEAM_MM / _RAY_MM)
    seen = np.full(len(outer), np.nan)
    for ray, surface in enumerate(outer):
        first = int(surface / _RAY_MM)
        end = ndimage.binary_opening(fat[ray], np.ones(seam)) | stop[ray]
        deeper = np.flatnonzero(end[: max(first - 4, 0)])
        if deeper.size:
            seen[ray] = surface - (float(deeper[-1]) + 0.5) * _RAY_MM
    usual = np.full(len(outer), np.nan)
    for ray in range(len(outer)):
        around = seen[(np.arange(ray - 12, ray + 13)) % len(outer)]
        around = around[np.isfinite(around)]
        usual[ray] = np.percentile(around, 40.0) if around.size else np.nan
    usual = np.where(np.isfinite(usual), usual, np.nanmedian(usual) if np.isfinite(usual).any() else 12.0)
    odd = ~np.isfinite(seen) | (seen > usual + 3.0) | (seen < usual - 5.0)
    return np.where(odd, usual, seen)


def _before_spine(
    inner: NDArray[np.float64],
    centre: tuple[float, float],
    level: Vertebra,
    origin: tuple[float, float],
    shape: tuple[int, ...],
) -> NDArray[np.bool_]:
    """Behind the flanks, the cavity ends at a line from the wall to the back edge of the vertebral body."""
    spine_row, spine_column = pixel(level.centre_mm, origin)
    back_row = spine_row + level.half_depth_mm / PIXEL_MM
    columns = np.arange(shape[1], dtype=np.float64)
    limit = np.full(shape[1], back_row)
    for side in (-1.0, 1.0):
        distance = float(_at(np.array([side * _FLANK]), inner)[0])
        row = centre[0] - np.cos(_FLANK) * distance / PIXEL_MM
        column = centre[1] + side * np.sin(_FLANK) * distance / PIXEL_MM
        edge = spine_column + side * level.half_width_mm / PIXEL_MM
        ends = sorted(((edge, back_row), (column, row)))
        part = (columns - spine_column) * side > 0
        limit[part] = np.interp(columns[part], [e[0] for e in ends], [e[1] for e in ends])
    rows = np.arange(shape[0], dtype=np.float64)[:, None]
    before: NDArray[np.bool_] = rows < limit[None, :]
    return before
