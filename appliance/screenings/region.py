"""What screenings of a small region share: where it lies in the patient, how it looks on a slice, how noisy it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.native import Box
    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Volume

#: Of a normal distribution, standard deviation over median absolute deviation.
_SPREAD = 1.4826


def near(organs: OrganMap, volume: Volume, box: Box, room_mm: float = 15.0) -> OrganMap:
    """Return the part of an organ map that lies in a box of the volume, or as near to it as ``room_mm``.

    What is asked of the part costs only the part: distances to the skeleton or the aorta are else worked out along the
    whole patient.
    """
    to_map = np.linalg.inv(organs.affine) @ volume.affine
    corners = np.array(np.meshgrid(*[(part.start, part.stop - 1) for part in box], indexing="ij")).reshape(3, -1)
    places = to_map[:3, :3] @ corners + to_map[:3, 3:]
    room = room_mm / np.array(organs.spacing_mm)
    low = np.clip(np.floor(places.min(axis=1) - room).astype(int), 0, organs.labels.shape)
    high = np.clip(np.ceil(places.max(axis=1) + room).astype(int) + 1, low, organs.labels.shape)
    labels = np.ascontiguousarray(organs.labels[low[0] : high[0], low[1] : high[1], low[2] : high[2]])
    affine = organs.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    return replace(organs, labels=labels, affine=affine)


def corners_mm(
    volume: Volume, box: Box, mask: NDArray[np.bool_]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return two opposite corners, LPS mm, of the smallest part of the volume that holds a mask.

    Parameters
    ----------
    volume
        The volume.
    box
        Slices of its ``(slice, row, column)`` index, start and stop explicit.
    mask
        Shape of the box, at least one voxel set.
    """
    hit = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    start = np.array([part.start for part in box], dtype=np.float64)
    ends = start + np.array([[part[0] for part in hit], [part[-1] for part in hit]], dtype=np.float64)
    first, second = volume.to_patient_mm(ends)
    return as_corners(first, second)


def as_corners(
    first_mm: NDArray[np.float64], second_mm: NDArray[np.float64]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return two points, LPS mm, as a finding holds them."""
    return (
        (float(first_mm[0]), float(first_mm[1]), float(first_mm[2])),
        (float(second_mm[0]), float(second_mm[1]), float(second_mm[2])),
    )


def whole_plane(volume: Volume, box: Box, plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a slice of the volume, ``(rows, columns)``, that holds one of a box where the box lies."""
    whole = np.zeros(volume.shape[1:], dtype=bool)
    whole[box[1:]] = plane
    return whole


def middle_and_spread(values: NDArray[np.int16]) -> tuple[float, float]:
    """Return median and standard deviation, the latter from the median absolute deviation so that outliers are few."""
    middle = float(np.median(values))
    return middle, _SPREAD * float(np.median(np.abs(values.astype(np.float32) - middle)))


def listed(names: frozenset[str]) -> str:
    """Return faces of the scan, from :func:`appliance.anatomy.plausibility.cut_off`, as words of a sentence."""
    return " and ".join(sorted(names))
