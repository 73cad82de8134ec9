"""Showing a network only the part of a scan that it is for: the box around an organ that another network has found."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from appliance.errors import InferenceError
from appliance.scan import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap

    Point = tuple[float, float, float]
    Box = tuple[Point, Point]


def region_box(organs: OrganMap, names: Sequence[str], margin_mm: float) -> Box | None:
    """Box around structures in the patient.

    Parameters
    ----------
    organs
        Where they are.
    names
        The structures.
    margin_mm
        Added on every side.

    Returns
    -------
    tuple[tuple[float, float, float], tuple[float, float, float]] | None
        Lowest and highest corner, LPS mm; ``None`` where there is no voxel of any of them.
    """
    present = [name for name in names if name in organs.structures]
    found = np.argwhere(organs.mask(*present)) if present else np.zeros((0, 3))
    if not found.size:
        return None
    # From the outer faces of the outermost voxels.
    corners = (
        _corners(found.min(axis=0) - 0.5, found.max(axis=0) + 0.5) @ organs.affine[:3, :3].T + organs.affine[:3, 3]
    )
    return _point(corners.min(axis=0) - margin_mm), _point(corners.max(axis=0) + margin_mm)


def cut_out(volume: Volume, box_mm: Box) -> Volume:
    """Cut a volume down to the voxels that touch a box.

    Parameters
    ----------
    volume
        Any orientation.
    box_mm
        Lowest and highest corner, LPS mm.

    Raises
    ------
    InferenceError
        The box and the volume have no voxel in common.
    """
    corners = volume.to_index(_corners(np.asarray(box_mm[0]), np.asarray(box_mm[1])))
    low = np.maximum(np.floor(corners.min(axis=0) + 0.5).astype(int), 0)
    high = np.minimum(np.floor(corners.max(axis=0) + 0.5).astype(int) + 1, volume.shape)
    if (low >= high).any():
        raise InferenceError("The region that a network is for lies outside the scan.")
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return Volume(np.ascontiguousarray(volume.hu[z, y, x]), affine, volume.frames[z])


def _corners(low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.array(list(product(*zip(low, high, strict=True))), np.float64)


def _point(values: NDArray[np.float64]) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
