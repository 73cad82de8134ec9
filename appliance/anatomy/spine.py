"""The spine as vertebral bodies: which level each is, where it lies, and how it is turned.

Bone density, fractures and the slice at which muscle is measured all ask the same of a scan; it is worked out once. A
pack may give vertebrae by level, arches included, or all bodies as one class without names.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.derived import derived
from appliance.anatomy.discs import cut_positions
from appliance.anatomy.spine_curve import (
    OUTSIDE_HU,
    STEP_MM,
    SpineCurve,
    curve_through,
    sampled,
    sampled_labels,
    without_crumbs,
)
from appliance.anatomy.vertebral_levels import LEVELS, name_bodies

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.organ_map import OrganMap

#: Middle of a body's cross-section, mm behind and left of the curve, within which discs are looked for.
_CORE_BACK_MM = np.arange(-9.0, 8.0)
_CORE_LEFT_MM = np.arange(-8.0, 9.0, 2.0)


@dataclass(frozen=True, slots=True, eq=False)
class Vertebra:
    """One vertebral body.

    Attributes
    ----------
    level
        ``"T12"``; only to be believed where the spine's ``certain`` says so.
    low_mm, high_mm
        Where it begins and ends along the spine's curve: the middles of its discs.
    centre_mm
        LPS.
    up, back, left
        Unit vectors in LPS: along the spine towards the head, towards the patient's back and left.
    half_depth_mm, half_width_mm
        Of the body, front to back and left to right.
    middle_back_mm, middle_left_mm
        Where the middle of its cross-section lies, behind and left of the curve.
    whole
        Whether the scan shows it with both its endplates.
    """

    level: str
    low_mm: float
    high_mm: float
    centre_mm: NDArray[np.float64]
    up: NDArray[np.float64]
    back: NDArray[np.float64]
    left: NDArray[np.float64]
    half_depth_mm: float
    half_width_mm: float
    middle_back_mm: float
    middle_left_mm: float
    whole: bool

    @property
    def site(self) -> str:
        """Name in the structure vocabulary."""
        return f"vertebra_{self.level}"


@dataclass(frozen=True, slots=True, eq=False)
class Spine:
    """All vertebral bodies of a scan.

    Attributes
    ----------
    vertebrae
        From the feet upwards; may be empty.
    curve
        Through their middles; ``None`` where there are none.
    certain
        Whether the levels' names are borne out by two landmarks, or given by the pack without contradiction.
    landmarks
        What the names rest on, for people.
    """

    vertebrae: tuple[Vertebra, ...]
    curve: SpineCurve | None
    certain: bool
    landmarks: tuple[str, ...]

    def level(self, name: str) -> Vertebra | None:
        """Return the vertebra of that level, ``None`` where it is not in the scan."""
        return next((vertebra for vertebra in self.vertebrae if vertebra.level == name), None)


@derived
def spine(anatomy: Anatomy) -> Spine:
    """Find the vertebral bodies of a scan."""
    organs = anatomy.organs
    bodies, levels = _bodies(organs)
    curve = curve_through(bodies, organs) if bodies.any() else None
    if curve is None:
        return Spine((), None, False, ())
    hu, share, names = _along(anatomy, curve, bodies, levels)
    spans, ends = _spans(share, cut_positions(hu, share))
    if not spans:
        return Spine((), curve, False, ())
    if levels is None:
        naming = name_bodies(curve, spans, bodies, organs)
        lowest, certain, landmarks = naming.lowest, naming.certain, naming.landmarks
    else:
        lowest, certain = _named_by_pack(spans, names)
        landmarks = ("the pack's own levels",)
    numbers = [lowest - index for index in range(len(spans))]
    found = [
        _vertebra(LEVELS[number], span, end, curve, bodies, organs)
        for number, span, end in zip(numbers, spans, ends, strict=True)
        if 0 <= number < len(LEVELS)
    ]
    return Spine(tuple(item for item in found if item is not None), curve, certain, landmarks)


# --- bodies without arches ----------------------------------------------------------------------------------------


def _bodies(organs: OrganMap) -> tuple[NDArray[np.bool_], NDArray[np.uint8] | None]:
    """Bodies on the map's grid, and each voxel's level number plus one where the pack names them."""
    if "vertebral_bodies" in organs.values and np.count_nonzero(organs.labels == organs.values["vertebral_bodies"]):
        mask = organs.labels == organs.values["vertebral_bodies"]
        return without_crumbs(mask, organs), None
    given = [name for name in LEVELS if f"vertebra_{name}" in organs.values]
    levels = np.zeros(organs.labels.shape, dtype=np.uint8)
    for name in given:
        whole = organs.labels == organs.values[f"vertebra_{name}"]
        _put_body(whole, organs, LEVELS.index(name) + 1, levels)
    mask = without_crumbs(levels > 0, organs)
    return mask, np.where(mask, levels, 0).astype(np.uint8)


def _put_body(whole: NDArray[np.bool_], organs: OrganMap, number: int, levels: NDArray[np.uint8]) -> None:
    """Write the body of a vertebra: its thick part, freed of the pedicles and everything behind them."""
    from scipy import ndimage

    found = ndimage.find_objects(whole.astype(np.uint8))
    if not found or found[0] is None:
        return
    box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in found[0])
    mask = whole[box]
    # the scan's end does not make a body thin
    padded = np.pad(mask, ((3, 3), (0, 0), (0, 0)), mode="edge")
    depth = ndimage.distance_transform_edt(padded, sampling=organs.spacing_mm)[3:-3]
    core = depth > 0.55 * depth.max()
    parts, _ = ndimage.label(core)
    core = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    away = ndimage.distance_transform_edt(~core, sampling=organs.spacing_mm)
    body = mask & (away < 0.55 * depth.max() + 1.0)
    levels[box][body] = number


# --- along the curve ----------------------------------------------------------------------------------------------


def _along(
    anatomy: Anatomy, curve: SpineCurve, bodies: NDArray[np.bool_], levels: NDArray[np.uint8] | None
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.uint8]]:
    """Mean HU and share of body in the core of the cross-section, and the pack's level number there, per step."""
    places = curve.lattice(_CORE_BACK_MM, _CORE_LEFT_MM)
    values = sampled(anatomy.volume, places)
    hu = values.mean(axis=(1, 2))
    hu[(values <= OUTSIDE_HU).any(axis=(1, 2))] = OUTSIDE_HU
    labels = sampled_labels(levels if levels is not None else bodies.astype(np.uint8), anatomy.organs, places)
    share = (labels > 0).mean(axis=(1, 2))
    flat = labels.reshape(len(labels), -1)
    names = np.array([np.bincount(row[row > 0], minlength=1).argmax() if row.any() else 0 for row in flat])
    if levels is not None:
        # where one level's voxels follow another's there is a disc between them, gap or not
        pure = (flat == names[:, None]).mean(axis=1)
        share = np.minimum(share, pure)
        for change in np.flatnonzero(np.diff(names) != 0):
            share[max(0, change - 2) : change + 4] = 0.0
    return hu, share, names.astype(np.uint8)


def _spans(share: NDArray[np.float64], cuts: list[float]) -> tuple[list[tuple[float, float]], list[tuple[bool, bool]]]:
    """Bodies between discs, and whether each end is a disc rather than the end of what is seen."""
    filled = np.flatnonzero(share > 0.3) * STEP_MM
    if not filled.size:
        return [], []
    bounds = [(low, high, True, True) for low, high in pairwise(cuts)]
    if not cuts:
        bounds = [(float(filled[0]), float(filled[-1]), False, False)]
    else:
        bounds.insert(0, (min(float(filled[0]), cuts[0]), cuts[0], False, True))
        bounds.append((cuts[-1], max(float(filled[-1]), cuts[-1]), True, False))
    spans, ends = [], []
    for low, high, low_disc, high_disc in bounds:
        inside = (filled >= low) & (filled <= high)
        # a sliver beside the last disc is no vertebra
        if np.count_nonzero(inside) * STEP_MM >= 7.0:
            spans.append((low, high))
            ends.append((low_disc, high_disc))
    return spans, ends


def _named_by_pack(spans: list[tuple[float, float]], names: NDArray[np.uint8]) -> tuple[int, bool]:
    """Number of the lowest body by the pack's names, and whether all of them count on evenly."""
    votes = []
    for index, (low, high) in enumerate(spans):
        part = names[int(low / STEP_MM) : int(high / STEP_MM) + 1]
        part = part[part > 0]
        if part.size:
            votes.append(int(np.bincount(part).argmax()) - 1 + index)
    if not votes:
        return 0, False
    lowest = int(np.bincount(votes).argmax())
    return lowest, all(vote == lowest for vote in votes)


def _vertebra(
    level: str,
    span: tuple[float, float],
    ends: tuple[bool, bool],
    curve: SpineCurve,
    bodies: NDArray[np.bool_],
    organs: OrganMap,
) -> Vertebra | None:
    low, high = span
    middle = round(0.5 * (low + high) / STEP_MM)
    middle = min(max(middle, 0), len(curve.points_mm) - 1)
    up, back, left = curve.up[middle], curve.back[middle], curve.left[middle]
    extent = _extent(curve, (low, high), bodies, organs)
    if extent is None:
        return None
    depth, width, behind, beside = extent
    centre = curve.points_mm[middle] + behind * back + beside * left
    return Vertebra(level, low, high, centre, up, back, left, depth, width, behind, beside, all(ends))


def _extent(
    curve: SpineCurve, span: tuple[float, float], bodies: NDArray[np.bool_], organs: OrganMap
) -> tuple[float, float, float, float] | None:
    """Half depth and half width of a body, and how far its middle lies behind and left of the curve, mm."""
    reach = np.arange(-36.0, 36.5, 1.5)
    low, high = span
    quarter = 0.3 * (high - low)
    first, last = int((low + quarter) / STEP_MM), int((high - quarter) / STEP_MM) + 1
    rows = np.arange(max(first, 0), min(last, len(curve.points_mm)), 2)
    if not rows.size:
        return None
    part = SpineCurve(curve.points_mm[rows], curve.up[rows], curve.back[rows], curve.left[rows])
    inside = sampled_labels(bodies.astype(np.uint8), organs, part.lattice(reach, reach)).mean(axis=0)
    # of a body seen in most of these cross-sections
    seen = inside >= 0.5
    if np.count_nonzero(seen) < 20:
        return None
    backs = reach[np.flatnonzero(seen.any(axis=1))]
    lefts = reach[np.flatnonzero(seen.any(axis=0))]
    depth, width = 0.5 * float(np.ptp(backs)) + 0.75, 0.5 * float(np.ptp(lefts)) + 0.75
    return depth, width, 0.5 * float(backs[0] + backs[-1]), 0.5 * float(lefts[0] + lefts[-1])
