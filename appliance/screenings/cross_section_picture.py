"""The key image of a vessel: its border across the course, and the diameter, laid on the slice through its middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.screenings.contract import Evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.native import Box
    from appliance.scan import Scan

_WINDOW_HU = (-160.0, 240.0)


def section_evidence(
    scan: Scan,
    edge_mm: NDArray[np.float64],
    ends_mm: NDArray[np.float64],
    lines: tuple[str, ...],
    organ: tuple[Box, NDArray[np.bool_]] | None = None,
) -> Evidence:
    """Lay a border and a diameter on a slice.

    They were measured across the vessel. What is shown is that cross-section seen along the slice axis, so an oblique
    vessel's border is a little narrower than the vessel in the slice.

    Parameters
    ----------
    scan
        The scan.
    edge_mm
        Points around the vessel, LPS mm, ``(n, 3)``.
    ends_mm
        Both ends of the diameter, LPS mm, ``(2, 3)``.
    lines
        Words for the picture.
    organ
        Box and mask of the vessel at the scan's resolution, drawn instead of the border where that was seen too
        obliquely.
    """
    edge = scan.volume.to_index(edge_mm)
    ends = scan.volume.to_index(ends_mm)
    key_slice = int(np.clip(np.rint(edge[:, 0].mean()), 0, scan.volume.shape[0] - 1))
    plane = scan.volume.shape[1:]
    mask = _filled(edge[:, 1:], plane)
    if organ is not None and organ[0][0].start <= key_slice < organ[0][0].stop:
        mask = np.zeros(plane, dtype=bool)
        mask[organ[0][1:]] = organ[1][key_slice - organ[0][0].start]
    stroke = ((float(ends[0, 1]), float(ends[0, 2])), (float(ends[1, 1]), float(ends[1, 2])))
    return Evidence(key_slice, _ring(mask), mask, _WINDOW_HU, lines, strokes=(stroke,))


def _filled(edge: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a closed line that every ray from its middle crosses once."""
    middle = edge.mean(axis=0)
    angle = np.arctan2(edge[:, 0] - middle[0], edge[:, 1] - middle[1])
    radius = np.hypot(*(edge - middle).T)
    order = np.argsort(angle)
    rows, columns = np.indices(shape, dtype=np.float64)
    to_pixel = np.arctan2(rows - middle[0], columns - middle[1])
    limit = np.interp(to_pixel, angle[order], radius[order], period=2.0 * np.pi)
    filled: NDArray[np.bool_] = np.hypot(rows - middle[0], columns - middle[1]) <= limit
    return filled


def _ring(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The border, two pixels wide, so that what lies within stays visible."""
    from scipy import ndimage

    ring: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask, iterations=2)
    return ring
