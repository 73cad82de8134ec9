"""The aorta's course: a centreline through each connected part of it, cut into its segments.

The line is a shortest path through the organ map's mask that is cheaper in its middle. It is smoothed, and centred
again on the borders that :mod:`appliance.anatomy.cross_sections` finds at the scan's own resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.cross_sections import Course, find_borders, fit, mask_radii
from appliance.anatomy.derived import derived
from appliance.anatomy.middle_line import STEP_MM, bridged, crop_mask, even, middle_line, pieces, smooth
from appliance.anatomy.native import signed_distance_mm
from appliance.anatomy.plausibility import cut_off

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.cross_sections import Borders
    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.organ_map import OrganMap

#: Pieces of the mask below this are crumbs, mL.
_LEAST_ML = 3.0
#: Shorter courses have no direction that could be trusted, mm.
_LEAST_MM = 24.0
#: What is left out at the heart, mm: the root from the valve to the sinotubular junction (2 to 2.5 cm in adults), whose
#: sinuses are wider, and a little more, because masks begin below the valve.
ROOT_MM = 28.0
#: The arch is what rises above this far below the course's highest point, mm: it begins and ends at about the height of
#: the sternal angle, where the brachiocephalic trunk has not yet left.
_ARCH_MM = 25.0
#: A course that falls this far on both sides of its highest point turns over the arch, mm.
_TURN_MM = 15.0
#: The aorta runs along the spine behind the heart and below it: its axis then lies this near to a vertebral body, mm.
_BESIDE_SPINE_MM = 40.0
#: The hiatus lies at T12. The kidneys' upper poles lie at its height, the lungs' recesses reach down to L1; mm from
#: there to T12's lower face.
_BELOW_KIDNEY_POLE_MM = 10.0
_ABOVE_LUNG_BASE_MM = 22.0
#: A vertebra with its arch is larger than any lower thoracic body alone (mL), and reaches this far below its body, mm.
_WHOLE_VERTEBRA_ML = 40.0
_SPINE_BELOW_BODY_MM = 15.0
#: The scan ends a vessel when its mask reaches the map's outermost layers beside the end of its line, which lies
#: about a radius inside; with this allowance, mm.
_BORDER_LAYER = 1
_END_MM = 4.0
#: Planes in the heart: less than this share of their rays ends in fat or lung.
_IN_HEART_SHARE = 0.45


class Stretch(StrEnum):
    """Which part of the aorta a plane belongs to."""

    ROOT = "root"
    ASCENDING = "ascending_aorta"
    ARCH = "arch"
    DESCENDING = "descending_aorta"
    ABDOMINAL = "abdominal_aorta"


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One connected part of the aorta, from the heart downstream.

    Attributes
    ----------
    borders
        Planes along it with their borders.
    stretches
        For each plane, the part of the aorta it belongs to.
    cut
        Whether the scan, rather than the aorta, ends at its first and its last plane.
    """

    borders: Borders
    stretches: tuple[Stretch, ...]
    cut: tuple[bool, bool]

    def planes(self, stretch: Stretch) -> NDArray[np.intp]:
        """Indices of the planes in a part of the aorta."""
        return np.flatnonzero([item is stretch for item in self.stretches])


@derived
def aorta(anatomy: Anatomy) -> tuple[Branch, ...]:
    """Find the aorta's course.

    Returns
    -------
    tuple[Branch, ...]
        One per connected part of the mask, the longest first; empty where there is none. A scan that begins below the
        arch's top or cuts it away has the ascending and the descending aorta apart.
    """
    organs = anatomy.organs
    mask = bridged(organs.mask("aorta"))
    hiatus_mm = hiatus(anatomy)
    found = []
    for piece in pieces(mask, _LEAST_ML / organs.voxel_ml):
        line = middle_line(piece, organs)
        if len(line) * STEP_MM < _LEAST_MM:
            continue
        rising, line = _downstream(line, anatomy)
        borders = borders_along(anatomy, piece, line, is_round=True)
        ends = borders.course.points_mm[[0, -1]]
        radii = borders.shape[[0, -1], 0]
        cut = (_cut_at(ends[0], piece, organs, radii[0]), _cut_at(ends[1], piece, organs, radii[1]))
        stretches = _stretches(borders, rising=rising, cut=cut, hiatus_mm=hiatus_mm)
        found.append(Branch(borders, stretches, cut))
    return tuple(sorted(found, key=lambda branch: -len(branch.stretches)))


def borders_along(
    anatomy: Anatomy, mask: NDArray[np.bool_], line_mm: NDArray[np.float64], *, is_round: bool = False
) -> Borders:
    """Find a vessel's borders in planes along a line, which is centred on them first.

    Parameters
    ----------
    anatomy
        The scan and its map.
    mask
        Boolean, shape of the organ map: the vessel.
    line_mm
        ``(n, 3)`` LPS mm, evenly spaced.
    is_round
        Whether the vessel is round, see :func:`~appliance.anatomy.cross_sections.find_borders`.
    """
    organs = anatomy.organs
    corner, crop = crop_mask(mask, margin=4)
    distance = signed_distance_mm(crop, organs.spacing_mm)
    affine = organs.affine.copy()
    affine[:3, 3] = organs.affine[:3, :3] @ corner + organs.affine[:3, 3]
    reach = 2.5 * float(-distance.min()) + 8.0
    course = _course(line_mm)
    course = _recentred(course, mask_radii(distance, affine, course, reach))
    return find_borders(anatomy.volume, course, mask_radii(distance, affine, course, reach), is_round=is_round)


def _course(line: NDArray[np.float64]) -> Course:
    evenly = even(line, STEP_MM)
    tangents = np.gradient(smooth(evenly, 2.0), axis=0)
    return Course(evenly, tangents / np.maximum(np.linalg.norm(tangents, axis=1, keepdims=True), 1e-9))


def _recentred(course: Course, radii_mm: NDArray[np.float64]) -> Course:
    """Move each plane's middle to the middle of its border."""
    return _course(smooth(fit(course, radii_mm).middles_mm(), 2.0))


def hiatus(anatomy: Anatomy) -> float | None:
    """Height at which the aorta passes the diaphragm (T12's lower face), LPS mm; ``None`` where the scan is above it.

    T12 itself where the pack tells the levels apart, or where the bodies could be counted with certainty. Else the
    median of what the kidneys' upper poles and the lungs' lowest points say. A scan without any lung lies below it:
    plus infinity.
    """
    organs = anatomy.organs
    if "vertebra_T12" in organs.values and organs.mask("vertebra_T12").any():
        low, _ = _reach_mm(organs, "vertebra_T12")
        # the whole vertebra reaches lower than its body, by its spine and joints
        whole = organs.volume_ml("vertebra_T12") > _WHOLE_VERTEBRA_ML
        return low + (_SPINE_BELOW_BODY_MM if whole else 0.0)
    counted = _counted(anatomy)
    if counted is not None:
        return counted
    estimates = [
        _reach_mm(organs, name)[1] - _BELOW_KIDNEY_POLE_MM
        for name in ("kidney_left", "kidney_right")
        if _seen(anatomy, name) and "top" not in cut_off(organs, name)
    ]
    lungs = [name for name in ("lung_left", "lung_right") if _seen(anatomy, name)]
    # a lung whose sides or bottom are outside the picture does not show its lowest point
    estimates += [
        _reach_mm(organs, name)[0] + _ABOVE_LUNG_BASE_MM for name in lungs if not cut_off(organs, name) - {"top"}
    ]
    if estimates:
        return float(np.median(estimates))
    return None if lungs else float("inf")


def _counted(anatomy: Anatomy) -> float | None:
    """Height of T12's lower face, LPS mm, where counting the vertebral bodies leaves no doubt which it is."""
    from appliance.anatomy.spine import spine
    from appliance.anatomy.spine_curve import STEP_MM

    found = spine(anatomy)
    body = found.level("T12") if found.certain else None
    if body is None or found.curve is None:
        return None
    at = min(max(round(body.low_mm / STEP_MM), 0), len(found.curve.points_mm) - 1)
    return float(found.curve.points_mm[at, 2])


def _seen(anatomy: Anatomy, name: str) -> bool:
    organs = anatomy.organs
    return name in organs.structures and name not in anatomy.doubts and bool(organs.mask(name).any())


def _reach_mm(organs: OrganMap, name: str) -> tuple[float, float]:
    """Lowest and highest point of a structure, LPS mm; a few stray voxels at the ends do not count."""
    height = np.argwhere(organs.mask(name)) @ organs.affine[2, :3] + organs.affine[2, 3]
    low, high = np.percentile(height, (0.3, 99.7))
    return float(low), float(high)


def _downstream(line: NDArray[np.float64], anatomy: Anatomy) -> tuple[bool, NDArray[np.float64]]:
    """Turn a line so that it begins at the heart; with whether it begins in the ascending aorta."""
    height = line[:, 2]
    top = int(np.argmax(height))
    if min(height[top] - height[0], height[top] - height[-1]) >= _TURN_MM:
        front_first = line[: top + 1, 1].mean() < line[top:, 1].mean()
        return True, line if front_first else line[::-1]
    upwards = line if height[-1] > height[0] else line[::-1]
    if _distance_to_spine_mm(line, anatomy) > _BESIDE_SPINE_MM:
        return True, upwards
    return False, upwards[::-1]


def _distance_to_spine_mm(line: NDArray[np.float64], anatomy: Anatomy) -> float:
    """Median distance from a line to the nearest vertebral body, mm."""
    from scipy.spatial import cKDTree

    organs = anatomy.organs
    bodies = np.argwhere(organs.mask("vertebral_bodies"))
    if not len(bodies):
        return 0.0
    places = bodies @ organs.affine[:3, :3].T + organs.affine[:3, 3]
    return float(np.median(cKDTree(places).query(line)[0]))


def _cut_at(point_mm: NDArray[np.float64], piece: NDArray[np.bool_], organs: OrganMap, radius_mm: float) -> bool:
    """Whether a vessel's mask reaches the border of the map close to an end of its line."""
    places = np.argwhere(piece)
    last = np.asarray(piece.shape) - 1
    border = places[((places <= _BORDER_LAYER) | (places >= last - _BORDER_LAYER)).any(axis=1)]
    if not len(border):
        return False
    at_mm = border @ organs.affine[:3, :3].T + organs.affine[:3, 3]
    return bool(np.linalg.norm(at_mm - point_mm, axis=1).min() < 2.0 * radius_mm + _END_MM)


def _stretches(
    borders: Borders, *, rising: bool, cut: tuple[bool, bool], hiatus_mm: float | None
) -> tuple[Stretch, ...]:
    """Name the part of the aorta that each plane belongs to."""
    height = borders.course.points_mm[:, 2]
    along = borders.course.along_mm
    top = int(np.argmax(height))
    turns = rising and height[top] - height[-1] >= _TURN_MM
    clear = np.flatnonzero(borders.clear >= _IN_HEART_SHARE)
    first_clear = int(clear[0]) if clear.size else 0
    names = []
    for index, level in enumerate(height):
        if turns and level > height[top] - _ARCH_MM:
            names.append(Stretch.ARCH)
        elif rising and (not turns or index < top):
            from_valve = along[index] + borders.shape[0, 0]  # the line begins a radius inside the mask
            in_root = index < first_clear or (not cut[0] and from_valve < ROOT_MM)
            names.append(Stretch.ROOT if in_root else Stretch.ASCENDING)
        else:
            names.append(Stretch.ABDOMINAL if hiatus_mm is not None and level < hiatus_mm else Stretch.DESCENDING)
    return tuple(names)
