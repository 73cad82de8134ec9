"""The pulmonary trunk's course from the valve to where it divides into the right and left main artery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.derived import derived
from appliance.anatomy.middle_line import MaskGraph, pieces
from appliance.anatomy.vessels import borders_along

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.cross_sections import Borders
    from appliance.anatomy.derived import Anatomy

#: Smaller masks are no trunk, mL.
_LEAST_ML = 5.0
#: A trunk without a branch that leads this far from where they part has no bifurcation, mm.
_BRANCH_MM = 18.0
#: Middle lines this far apart have parted, mm: two voxels of the map.
_APART_MM = 6.0
#: Fewer planes than this give no diameter.
_LEAST_PLANES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Trunk:
    """The pulmonary trunk.

    Attributes
    ----------
    borders
        Planes along it, from the valve to about a radius before the bifurcation.
    bifurcation_mm
        Where the right main artery's middle line leaves the left one's, LPS mm.
    """

    borders: Borders
    bifurcation_mm: NDArray[np.float64]


@derived
def pulmonary_trunk(anatomy: Anatomy) -> Trunk | None:
    """Find the trunk's course; ``None`` where the map shows no trunk that divides.

    The mask holds the trunk and the main branches. The trunk begins at the valve, in front and below; the branches end
    farthest to the right and farthest to the left behind.
    """
    organs = anatomy.organs
    found = pieces(organs.mask("pulmonary_trunk"), _LEAST_ML / organs.voxel_ml)
    if not found:
        return None
    mask = max(found, key=np.count_nonzero)
    graph = MaskGraph(mask, organs)
    place = graph.index @ organs.affine[:3, :3].T + organs.affine[:3, 3]
    left, back, up = place.T
    valve = int(np.argmin(up + back))
    _, before = graph.paths(valve, middle=True)
    right_path = graph.path(valve, int(np.argmin(left)), before)
    left_path = graph.path(valve, int(np.argmax(left + 0.5 * back)), before)
    shared = _shared(place, right_path, left_path)
    if min(_length_mm(place, right_path[shared:]), _length_mm(place, left_path[shared:])) < _BRANCH_MM or shared < 2:
        return None
    stem = right_path[:shared]
    line = graph.line(stem)
    if len(line) < _LEAST_PLANES:
        return None
    return Trunk(borders_along(anatomy, mask, line), place[stem[-1]])


def _shared(place: NDArray[np.float64], path: list[int], other: list[int]) -> int:
    """How many points of a path lie beside another path before the two part."""
    from scipy.spatial import cKDTree

    apart = cKDTree(place[other]).query(place[path])[0] > _APART_MM
    return int(np.argmax(apart)) if apart.any() else len(path)


def _length_mm(place: NDArray[np.float64], path: list[int]) -> float:
    return float(np.linalg.norm(np.diff(place[path], axis=0), axis=1).sum()) if len(path) > 1 else 0.0
