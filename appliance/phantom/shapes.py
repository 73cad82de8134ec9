"""Signed distances and curves that organs are made of: negative inside, in mm, in ``(z, y, x)`` order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.phantom.canvas import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from appliance.phantom.grid import Floats, Vector


def ellipsoid(
    z: Floats, y: Floats, x: Floats, centre: Vector, radii: Vector, turn_degrees: Vector = (0.0, 0.0, 0.0)
) -> Floats:
    """Approximate distance to an ellipsoid, turned about the z, y and x axes in that order."""
    dz, dy, dx = z - centre[0], y - centre[1], x - centre[2]
    about_z, about_y, about_x = (np.float32(np.deg2rad(angle)) for angle in turn_degrees)
    if about_z:
        dy, dx = np.cos(about_z) * dy - np.sin(about_z) * dx, np.sin(about_z) * dy + np.cos(about_z) * dx
    if about_y:
        dz, dx = np.cos(about_y) * dz - np.sin(about_y) * dx, np.sin(about_y) * dz + np.cos(about_y) * dx
    if about_x:
        dz, dy = np.cos(about_x) * dz - np.sin(about_x) * dy, np.sin(about_x) * dz + np.cos(about_x) * dy
    uz, uy, ux = dz / radii[0], dy / radii[1], dx / radii[2]
    value = np.sqrt(uz * uz + uy * uy + ux * ux)
    gradient = np.sqrt((uz / radii[0]) ** 2 + (uy / radii[1]) ** 2 + (ux / radii[2]) ** 2)
    # First-order distance (value − 1) / |gradient|, finite at the centre.
    return np.asarray((value - 1.0) * value / np.maximum(gradient, 0.05 / max(radii)), dtype=np.float32)


def superellipse(
    y: Floats,
    x: Floats,
    front: Floats | float,
    back: Floats | float,
    half_width: Floats | float,
    power: float,
    middle_x: float = 0.0,
) -> Floats:
    """Radial distance to a superellipse between ``front`` and ``back``, whose sizes may vary along z."""
    middle = (np.asarray(front) + np.asarray(back)) * 0.5
    half_depth = np.maximum((np.asarray(back) - np.asarray(front)) * 0.5, 1.0)
    dy, dx = y - middle, x - middle_x
    rho = (np.abs(dx / half_width) ** power + np.abs(dy / half_depth) ** power) ** (1.0 / power)
    radius = np.sqrt(dx * dx + dy * dy)
    return np.asarray((rho - 1.0) * (radius + 1.0) / np.maximum(rho, 0.05), dtype=np.float32)


def smooth_union(first: Floats, second: Floats, blend_mm: float) -> Floats:
    """Union with a fillet of about ``blend_mm``."""
    h = np.clip(0.5 + 0.5 * (second - first) / blend_mm, 0.0, 1.0)
    return np.asarray(second + (first - second) * h - blend_mm * h * (1.0 - h), dtype=np.float32)


def spline(points: Sequence[Sequence[float]] | NDArray[Any], step_mm: float) -> NDArray[np.float64]:
    """Sample a Catmull–Rom curve through points (any number of columns; the first three are ``z, y, x``)."""
    knots = np.asarray(points, dtype=np.float64)
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    pieces = []
    for k in range(len(knots) - 1):
        before, start, end, after = padded[k : k + 4]
        count = max(int(np.ceil(np.linalg.norm((end - start)[:3]) / step_mm)), 1)
        t = (np.arange(count) / count)[:, None]
        pieces.append(
            0.5
            * (
                2 * start
                + (end - before) * t
                + (2 * before - 5 * start + 4 * end - after) * t**2
                + (3 * start - before - 3 * end + after) * t**3
            )
        )
    pieces.append(knots[-1:])
    return np.vstack(pieces)


def tube(path: NDArray[np.float64], radius: float | NDArray[np.float64] | None = None) -> list[Segment]:
    """Turn a sampled curve into segments; without ``radius`` the fourth column is the radius."""
    radii = path[:, 3] if radius is None else np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(path),))
    return [
        Segment(tuple(path[k, :3]), tuple(path[k + 1, :3]), float(radii[k]), float(radii[k + 1]))
        for k in range(len(path) - 1)
    ]


def widened(segments: Sequence[Segment], by_mm: float) -> list[Segment]:
    """Return the same tubes with another wall thickness added to their radii."""
    return [
        Segment(s.start, s.end, max(s.start_radius + by_mm, 0.05), max(s.end_radius + by_mm, 0.05)) for s in segments
    ]
