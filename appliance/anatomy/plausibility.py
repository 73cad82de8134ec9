"""Gates on the organ map: a structure that cannot be what its name says yields no measurement, but a sentence.

The limits are wide; they are meant to catch a network that failed, not an unusual patient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.reasons import Reason, ReasonCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap

#: Lung volume per side in an adult, mL: from a shrunken lung to full inspiration of a tall person.
LUNG_ML = (400.0, 5000.0)
#: Trachea and main bronchi, mL.
AIRWAYS_ML = (3.0, 200.0)
#: Smallest trunk that is worth looking at, mL.
BODY_ML = 2000.0
#: Bone as a share of the body.
BONE_SHARE = (0.01, 0.30)
#: Least share of a structure that its largest part must hold.
CONNECTED_SHARE = {"body": 0.95, "lung_left": 0.85, "lung_right": 0.85, "airways": 0.6}
#: Largest share of a lung's surface that may lie against the outside of the body.
EXPOSED_SHARE = 0.05
#: A structure that reaches into this many outermost layers is cut off; networks are unsure in the very last one.
_BORDER_LAYERS = 2
#: …with at least this area, mm².
_BORDER_MM2 = 100.0

_SPOKEN = {
    "body": "body",
    "lung_left": "left lung",
    "lung_right": "right lung",
    "airways": "airways",
    "bone": "skeleton",
}


def cut_off(organs: OrganMap, name: str) -> frozenset[str]:
    """Tell at which faces of the scan a structure ends only because the scan does.

    Parameters
    ----------
    organs
        The map; it covers the whole scan.
    name
        A structure of the map.

    Returns
    -------
    frozenset[str]
        Of ``"top"``, ``"bottom"``, ``"front"``, ``"back"``, ``"left"`` and ``"right"`` (the patient's). A round field
        of view that cuts a structure inside the picture's square is not noticed here.

    Raises
    ------
    KeyError
        The map does not hold the structure.
    """
    mask = organs.mask(name)
    spacing = organs.spacing_mm
    faces = {0: ("bottom", "top"), 1: ("front", "back"), 2: ("right", "left")}
    found = set()
    for axis, (low, high) in faces.items():
        voxel_mm2 = float(np.prod([spacing[i] for i in range(3) if i != axis]))
        layers = np.moveaxis(mask, axis, 0)
        for face, border in ((low, layers[:_BORDER_LAYERS]), (high, layers[-_BORDER_LAYERS:])):
            if np.count_nonzero(border.any(axis=0)) * voxel_mm2 >= _BORDER_MM2:
                found.add(face)
    return frozenset(found)


def implausible(organs: OrganMap) -> dict[str, Reason]:
    """Find the structures that must not be measured.

    A lung, or the airways, that the scan cuts off at its upper or lower end is not called too small: whether it is
    complete is the screening's question, see :func:`cut_off`. A structure that is not in the picture at all is
    implausible too.

    Parameters
    ----------
    organs
        The map.

    Returns
    -------
    dict[str, Reason]
        Structure name to why, with code ``organ_implausible``; empty when all is well.
    """
    reasons: dict[str, Reason] = {}
    for name in sorted(organs.structures):
        sentence = _why(organs, name)
        if sentence:
            reasons[name] = Reason(ReasonCode.ORGAN_IMPLAUSIBLE, sentence)
    if {"lung_left", "lung_right"} <= organs.structures:
        sentence = _wrong_sides(organs)
        if sentence:
            for name in ("lung_left", "lung_right"):
                reasons.setdefault(name, Reason(ReasonCode.ORGAN_IMPLAUSIBLE, sentence))
    return reasons


def _why(organs: OrganMap, name: str) -> str:
    spoken = _SPOKEN.get(name, name)
    mask = organs.mask(name)
    # The body holds everything that is labelled.
    volume = organs.volume_ml(*organs.values) if name == "body" else organs.volume_ml(name)
    if volume == 0.0:
        return f"No {spoken} {'were' if spoken.endswith('s') else 'was'} found in the scan."
    sentence = _wrong_size(organs, name, volume)
    if sentence:
        return sentence
    share = _largest_share(organs.labels > 0 if name == "body" else mask)
    # The bases of a lung that the scan cuts come apart into the recesses around the diaphragm.
    cut = name.startswith("lung_") and bool(cut_off(organs, name) & {"top", "bottom"})
    least = 0.0 if cut else CONNECTED_SHARE.get(name, 0.0)
    if share < least:
        return f"The {spoken} is in pieces: its largest part holds {share:.0%} of it, at least {least:.0%} is expected."
    if name.startswith("lung_"):
        exposed = _exposed_share(organs, mask)
        if exposed > EXPOSED_SHARE:
            return f"The {spoken} lies against the outside of the body over {exposed:.0%} of its surface."
    if name == "airways":
        return _airways_off(organs)
    return ""


def _wrong_size(organs: OrganMap, name: str, volume: float) -> str:
    ends = cut_off(organs, name) & {"top", "bottom"}
    if name == "body" and volume < BODY_ML:
        return f"Only {volume / 1000:.1f} L of body is in the scan; at least {BODY_ML / 1000:.0f} L is expected."
    if name.startswith("lung_"):
        low, high = LUNG_ML
        if volume > high or (volume < low and not ends):
            return (
                f"The {_SPOKEN[name]} measures {volume / 1000:.2f} L; "
                f"{low / 1000:.1f} to {high / 1000:.0f} L is expected."
            )
    if name == "airways":
        low, high = AIRWAYS_ML
        if volume > high or (volume < low and not ends):
            return f"The airways measure {volume:.0f} mL; {low:.0f} to {high:.0f} mL is expected."
    if name == "bone":
        low, high = BONE_SHARE
        share = volume / max(1.0, organs.volume_ml(*organs.values))
        if not low <= share <= high:
            return f"The skeleton makes up {share:.1%} of the body; {low:.0%} to {high:.0%} is expected."
    return ""


def _largest_share(mask: NDArray[np.bool_]) -> float:
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 0:
        return 0.0
    sizes = np.bincount(parts.ravel())[1:]
    return float(sizes.max()) / float(sizes.sum())


def _exposed_share(organs: OrganMap, lung: NDArray[np.bool_]) -> float:
    """Share of the lung's faces behind which there is no body; the ends of the scan do not count."""
    outside = organs.labels == 0
    exposed = faces = 0
    for axis in range(3):
        a, b = np.moveaxis(lung, axis, 0), np.moveaxis(outside, axis, 0)
        for near, far, behind in ((a[:-1], a[1:], b[1:]), (a[1:], a[:-1], b[:-1])):
            surface = near & ~far
            faces += int(np.count_nonzero(surface))
            exposed += int(np.count_nonzero(surface & behind))
    return exposed / faces if faces else 0.0


def _centre_mm(organs: OrganMap, name: str) -> NDArray[np.float64] | None:
    """Centre of a structure in LPS mm."""
    places = np.argwhere(organs.mask(name))
    if not len(places):
        return None
    centre: NDArray[np.float64] = organs.affine[:3, :3] @ places.mean(axis=0) + organs.affine[:3, 3]
    return centre


def _wrong_sides(organs: OrganMap) -> str:
    left, right = _centre_mm(organs, "lung_left"), _centre_mm(organs, "lung_right")
    if left is None or right is None:
        return ""
    # LPS: the first coordinate grows to the patient's left.
    apart = float(left[0] - right[0])
    if apart < 60.0:
        return (
            f"The left lung's centre lies {apart:.0f} mm to the left of the right lung's; at least 60 mm is expected."
        )
    return ""


def _airways_off(organs: OrganMap) -> str:
    if not {"lung_left", "lung_right"} <= organs.structures:
        return ""
    airways = _centre_mm(organs, "airways")
    left, right = _centre_mm(organs, "lung_left"), _centre_mm(organs, "lung_right")
    if airways is None or left is None or right is None:
        return ""
    if not right[0] < airways[0] < left[0]:
        return "The airways do not lie between the lungs."
    return ""
