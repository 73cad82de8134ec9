"""Sagittal key images of the spine, shared by the screenings that look at vertebrae."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from appliance.scan import Volume

Stroke = tuple[tuple[float, float], tuple[float, float]]


def sagittal(volume: Volume, through_mm: NDArray[np.float64]) -> tuple[int, int]:
    """Return the axis of a volume that runs most from left to right, and the index on it of a position.

    Parameters
    ----------
    volume
        The scan.
    through_mm
        LPS position that the plane shall hold.
    """
    axis = int(np.argmax(np.abs(volume.affine[0, :3]) / np.array(volume.spacing_mm)))
    index = round(float(volume.to_index(through_mm)[axis]))
    return axis, int(np.clip(index, 0, volume.shape[axis] - 1))


def strokes_on(volume: Volume, axis: int, lines_mm: Iterable[NDArray[np.float64]]) -> tuple[Stroke, ...]:
    """Return lines, LPS ``(2, 3)`` each, as fractional indices into the plane across ``axis``."""
    strokes = []
    for line in lines_mm:
        ends = np.delete(volume.to_index(line), axis, axis=1)
        strokes.append(((float(ends[0, 0]), float(ends[0, 1])), (float(ends[1, 0]), float(ends[1, 1]))))
    return tuple(strokes)


def plane_shape(volume: Volume, axis: int) -> tuple[int, int]:
    """Return the shape of a plane across ``axis``."""
    first, second = (size for other, size in enumerate(volume.shape) if other != axis)
    return first, second


def filled_between(volume: Volume, axis: int, lines_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the plane's pixels inside the quadrilateral of a body's front and back heights, ``(3, 2, 3)`` LPS mm."""
    shape = plane_shape(volume, axis)
    corners = np.array([lines_mm[0, 0], lines_mm[0, 1], lines_mm[2, 1], lines_mm[2, 0]])
    places = np.delete(volume.to_index(corners), axis, axis=1)
    rows, columns = np.indices(shape, dtype=np.float32)
    inside = np.ones(shape, dtype=bool)
    first_edge, second_edge = places[1] - places[0], places[2] - places[1]
    turn = np.sign(first_edge[0] * second_edge[1] - first_edge[1] * second_edge[0])
    for first, second in zip(places, np.roll(places, -1, axis=0), strict=True):
        edge = second - first
        inside &= turn * (edge[0] * (columns - first[1]) - edge[1] * (rows - first[0])) >= 0
    return inside
