"""Where the scan itself ends inside the picture: scanners fill what lies outside their round field of view.

An organ that runs into the filling is cut off although it does not touch the picture's edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.derived import derived

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy

#: A circle a little smaller than the one that fits into the picture; some scanners fill from there on.
_INNER_RADIUS = 0.9
#: Least share of the corners that must hold one and the same value to be called filled: air always flickers.
_FILLED_SHARE = 0.99


@derived
def filling(anatomy: Anatomy) -> NDArray[np.bool_]:
    """Return where the scanner filled the picture.

    Returns
    -------
    ndarray
        Boolean, shape of the organ map; nowhere true when the corners hold a picture.
    """
    volume, organs = anatomy.volume, anatomy.organs
    result = np.zeros(organs.labels.shape, dtype=bool)
    value = _fill_value(volume.hu)
    if value is None:
        return result
    to_native = np.linalg.inv(volume.affine) @ organs.affine
    index = np.indices(organs.labels.shape, dtype=np.float32)
    nearest, radius, inside = [], np.zeros(result.shape, dtype=np.float32), np.ones(result.shape, dtype=bool)
    for axis, size in enumerate(volume.shape):
        place = np.tensordot(to_native[axis, :3].astype(np.float32), index, axes=1) + np.float32(to_native[axis, 3])
        inside &= (place > -0.5) & (place < size - 0.5)
        nearest.append(np.clip(np.rint(place), 0, size - 1).astype(np.int32))
        if axis > 0:
            radius += ((place - (size - 1) / 2) / (size / 2)) ** 2
    far = inside & (radius > _INNER_RADIUS**2)
    result[far] = volume.hu[tuple(part[far] for part in nearest)] == value
    return result


def _fill_value(hu: NDArray[np.int16]) -> int | None:
    """Return the value that all corners beyond the round field of view hold, or ``None``."""
    _, rows, columns = hu.shape
    row = (np.arange(rows) - (rows - 1) / 2) / (rows / 2)
    column = (np.arange(columns) - (columns - 1) / 2) / (columns / 2)
    corners = row[:, None] ** 2 + column[None, :] ** 2 > 1.02**2
    values = hu[:: max(1, hu.shape[0] // 16)][:, corners]
    if values.size == 0:
        return None
    value = int(values.flat[0])
    return value if np.mean(values == value) >= _FILLED_SHARE else None


def filled_edge_cm2(anatomy: Anatomy, *names: str) -> float:
    """Measure how much of structures' surface lies against the filling.

    Returns
    -------
    float
        Area, cm², counted on the faces of the organ map's voxels.
    """
    mask, outside = anatomy.organs.mask(*names), filling(anatomy)
    spacing = anatomy.organs.spacing_mm
    area_mm2 = 0.0
    for axis in range(3):
        face_mm2 = float(np.prod([spacing[other] for other in range(3) if other != axis]))
        a, b = np.moveaxis(mask, axis, 0), np.moveaxis(outside, axis, 0)
        # one voxel may lie between: networks are unsure at the border
        for step in (1, 2):
            touching = np.count_nonzero(a[:-step] & b[step:]) + np.count_nonzero(a[step:] & b[:-step])
            area_mm2 = max(area_mm2, touching * face_mm2)
    return area_mm2 / 100.0
