"""Gates on the organ map: a structure that cannot be what its name says yields no measurement, but a sentence.

The limits are wide; they are meant to catch a network that failed, not an unusual patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.structures import spoken
from appliance.reasons import Reason, ReasonCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a structure of an adult may measure; the lower limit is not asked of one that the scan cuts off."""

    spoken: str
    lowest_ml: float
    highest_ml: float
    connected: float = 0.0


#: From a small adult's or a shrunken organ to the largest that disease makes; `connected` is the least share of a
#: structure that its largest part must hold.
_LIMITS = {
    "body": _Limits("body", 2000.0, 400_000.0, 0.95),
    "lung_left": _Limits("left lung", 400.0, 5000.0, 0.85),
    "lung_right": _Limits("right lung", 400.0, 5000.0, 0.85),
    "airways": _Limits("airways", 3.0, 200.0, 0.6),
    "heart": _Limits("heart", 250.0, 2500.0, 0.9),
    "aorta": _Limits("aorta", 40.0, 1500.0, 0.4),  # the arch may lie above the scan
    "pulmonary_trunk": _Limits("pulmonary trunk", 15.0, 400.0, 0.6),
    "liver": _Limits("liver", 500.0, 6000.0, 0.9),
    "spleen": _Limits("spleen", 25.0, 4000.0, 0.8),
    "kidney_left": _Limits("left kidney", 30.0, 1500.0, 0.75),
    "kidney_right": _Limits("right kidney", 30.0, 1500.0, 0.75),
    "vertebral_bodies": _Limits("vertebral bodies", 10.0, 1200.0),
}
#: Bone as a share of the body.
BONE_SHARE = (0.01, 0.30)
#: Largest share of a lung's surface that may lie against the outside of the body.
EXPOSED_SHARE = 0.05
#: A structure that reaches into this many outermost layers is cut off; networks are unsure in the very last one.
_BORDER_LAYERS = 2
#: …with at least this area, mm².
_BORDER_MM2 = 100.0
#: What lies to the patient's left of what, and by how much at least between the centres, mm.
_SIDES = (
    ("lung_left", "lung_right", 60.0),
    ("kidney_left", "kidney_right", 50.0),
    ("spleen", "liver", 60.0),
)


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

    A structure that the scan cuts off is not called too small: whether it is complete is the screening's question, see
    :func:`cut_off`. A structure that is not in the picture at all is implausible too.

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
    for left, right, least_mm in _SIDES:
        sentence = _wrong_sides(organs, left, right, least_mm)
        if sentence:
            for name in (left, right):
                reasons.setdefault(name, Reason(ReasonCode.ORGAN_IMPLAUSIBLE, sentence))
    return reasons


def _spoken(name: str) -> str:
    if name == "bone":
        return "skeleton"
    return _LIMITS[name].spoken if name in _LIMITS else spoken(name)


def _why(organs: OrganMap, name: str) -> str:
    words = _spoken(name)
    mask = organs.labels > 0 if name == "body" else organs.mask(name)  # the body holds everything that is labelled
    volume = float(np.count_nonzero(mask)) * organs.voxel_ml
    if volume == 0.0:
        return f"No {words} {'were' if words.endswith('s') else 'was'} found in the scan."
    ends = cut_off(organs, name)
    sentence = _wrong_size(organs, name, volume, ends)
    if sentence or name not in _LIMITS:
        return sentence
    # An organ that the scan cuts may come apart: a lung's bases into the recesses around the diaphragm.
    least = 0.0 if ends and name != "body" else _LIMITS[name].connected
    share = _largest_share(mask) if least else 1.0
    if share < least:
        return f"The {words} is in pieces: its largest part holds {share:.0%} of it, at least {least:.0%} is expected."
    if name.startswith("lung_"):
        exposed = _exposed_share(organs, mask)
        if exposed > EXPOSED_SHARE:
            return f"The {words} lies against the outside of the body over {exposed:.0%} of its surface."
    if name in {"airways", "heart"}:
        return _not_between_the_lungs(organs, name)
    return ""


def _wrong_size(organs: OrganMap, name: str, volume: float, ends: frozenset[str]) -> str:
    if name == "bone":
        low, high = BONE_SHARE
        share = volume / max(1.0, organs.volume_ml(*organs.values))
        if not low <= share <= high:
            return f"The skeleton makes up {share:.1%} of the body; {low:.0%} to {high:.0%} is expected."
    if name not in _LIMITS:
        return ""
    limits = _LIMITS[name]
    if volume > limits.highest_ml or (volume < limits.lowest_ml and (not ends or name == "body")):
        verb = "measure" if limits.spoken.endswith("s") else "measures"
        expected = f"{_ml(limits.lowest_ml)} to {_ml(limits.highest_ml)}"
        return f"The {limits.spoken} {verb} {_ml(volume)}; {expected} is expected."
    return ""


def _ml(volume: float) -> str:
    return f"{volume / 1000:.2g} L" if volume >= 1000.0 else f"{volume:.0f} mL"


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


def _wrong_sides(organs: OrganMap, left: str, right: str, least_mm: float) -> str:
    if not {left, right} <= organs.structures:
        return ""
    centres = _centre_mm(organs, left), _centre_mm(organs, right)
    if centres[0] is None or centres[1] is None:
        return ""
    # LPS: the first coordinate grows to the patient's left.
    apart = float(centres[0][0] - centres[1][0])
    if apart >= least_mm:
        return ""
    names = f"The {_spoken(left)}'s centre lies {apart:.0f} mm to the left of the {_spoken(right)}'s"
    return f"{names}; at least {least_mm:.0f} mm is expected, unless the patient or the scan is mirrored."


def _not_between_the_lungs(organs: OrganMap, name: str) -> str:
    if not {"lung_left", "lung_right"} <= organs.structures:
        return ""
    here, left, right = (_centre_mm(organs, item) for item in (name, "lung_left", "lung_right"))
    if here is None or left is None or right is None:
        return ""
    if not right[0] < here[0] < left[0]:
        return f"The {_spoken(name)} {'do' if name == 'airways' else 'does'} not lie between the lungs."
    return ""
