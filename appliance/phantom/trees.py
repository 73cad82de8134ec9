"""Branching trees that fill a space, for bronchi and for the vessels of lung and liver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.canvas import Segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.phantom.grid import Vector


def grow(
    root: Vector,
    targets: NDArray[np.float64],
    root_radius_mm: float,
    smallest_radius_mm: float,
    random: np.random.Generator,
) -> list[Segment]:
    """Grow a tree from a root towards a cloud of target points.

    The cloud is halved across its longest direction at every fork, and each branch runs part of the way to the middle
    of its half; radii follow Murray's law (the cube of the parent's is the sum of the children's).

    Parameters
    ----------
    root
        Where the tree begins, ``(z, y, x)`` mm.
    targets
        Points to serve, shape ``(n, 3)``.
    root_radius_mm, smallest_radius_mm
        Radius of the stem; branches thinner than the smallest are not grown.
    random
        Source of the small bends.
    """
    segments: list[Segment] = []
    heap = [(np.asarray(root, dtype=np.float64), targets, root_radius_mm)]
    while heap:
        start, cloud, radius = heap.pop()
        if len(cloud) == 0 or radius < smallest_radius_mm:
            continue
        centre = cloud.mean(axis=0)
        way = centre - start
        length = float(np.linalg.norm(way))
        part = 0.42 if len(cloud) > 1 else 0.9
        end = start + part * way + random.normal(0.0, 0.05 * length + 0.2, 3)
        middle = 0.5 * (start + end) + random.normal(0.0, 0.05 * length, 3)
        tip = radius * 0.9
        segments.append(_segment(start, middle, radius, 0.5 * (radius + tip)))
        segments.append(_segment(middle, end, 0.5 * (radius + tip), tip))
        if len(cloud) == 1:
            continue
        offset = cloud - centre
        longest = np.linalg.eigh(offset.T @ offset)[1][:, -1]
        side = offset @ (longest * np.sign(longest[np.argmax(np.abs(longest))]))
        side = side + random.normal(0.0, 0.1) * np.abs(side).mean()
        first, second = cloud[side < 0.0], cloud[side >= 0.0]
        for half in (first, second):
            share = len(half) / len(cloud)
            heap.append((end, half, radius * share ** (1.0 / 3.0)))
    return segments


def _segment(start: NDArray[np.float64], end: NDArray[np.float64], start_radius: float, end_radius: float) -> Segment:
    return Segment(
        (float(start[0]), float(start[1]), float(start[2])),
        (float(end[0]), float(end[1]), float(end[2])),
        start_radius,
        end_radius,
    )
