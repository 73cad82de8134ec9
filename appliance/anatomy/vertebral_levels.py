"""Names for vertebrae that a network gives without their level: counted from ribs and pelvis, checked by other organs.

A wrong name is worse than none. Two landmarks of the skeleton are exact by definition: the lowest vertebra that carries
a rib is T12, the one on the sacrum is L5. One of them must be seen, and another landmark must bear it out within one
level; otherwise the names are a guess and called so. People with eleven or thirteen pairs of ribs, or with four or six
lumbar vertebrae, are named as they count, and where ribs and pelvis then disagree the names are uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.spine_curve import STEP_MM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap
    from appliance.anatomy.spine_curve import SpineCurve

#: From the head to the feet; a level's number is its place in this tuple, C1 is 0.
LEVELS = (
    *(f"C{number}" for number in range(1, 8)),
    *(f"T{number}" for number in range(1, 13)),
    *(f"L{number}" for number in range(1, 6)),
)
_T12, _L5 = LEVELS.index("T12"), LEVELS.index("L5")
# Where other organs usually end, as level numbers at the middle of a body, with what is still usual (standard anatomy:
# tracheal bifurcation T4 to T6 in inspiration, costophrenic recess T11 to L1, lung apex at the first rib, kidneys T12
# to L3 with their middles at L1 to L2, iliac crest L4 to its disc).
_USUAL = {
    "tracheal bifurcation": (LEVELS.index("T5") + 0.2, 1.2),
    "lowest lung": (LEVELS.index("T12") + 0.2, 1.5),
    "lung apex": (LEVELS.index("T1") + 0.5, 1.3),
    "kidneys": (LEVELS.index("L1") + 0.6, 1.4),
    "iliac crest": (LEVELS.index("L4") + 0.3, 1.0),
}
#: A rib arrives this share of a vertebra's height above the middle of what is its own.
_RIB_ABOVE = 0.2
#: With one exact landmark only, the others may lie this far off on average, levels: a rib that was missed shows here.
_MEAN_OFF = 0.75
#: A bystander this far from its usual place contradicts the count.
_CONTRADICTION = 2.5


@dataclass(frozen=True, slots=True)
class Naming:
    """Levels of the bodies of a spine.

    Attributes
    ----------
    lowest
        Number in :data:`LEVELS` of the lowest body seen.
    certain
        Whether two landmarks agree.
    landmarks
        By what the names were counted and checked, for people.
    """

    lowest: int
    certain: bool
    landmarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Marks:
    """Landmarks as the level number that each gives to the lowest body: exact ones and usual ones with a tolerance."""

    exact: dict[str, int]
    usual: dict[str, tuple[float, float]]


def name_bodies(
    curve: SpineCurve, spans_mm: Sequence[tuple[float, float]], bodies: NDArray[np.bool_], organs: OrganMap
) -> Naming:
    """Count levels.

    Parameters
    ----------
    curve
        Through the bodies.
    spans_mm
        Lower and upper end of each body along the curve, from the feet upwards.
    bodies
        The bodies on the organ map's grid.
    organs
        The map.
    """
    marks = _Marks(_exact(curve, spans_mm, bodies, organs), _usual(curve, spans_mm, bodies, organs))
    lowest = _vote(marks, len(spans_mm))
    exact = {name for name, number in marks.exact.items() if number == lowest}
    off = {name: number - lowest for name, (number, _) in marks.usual.items()}
    near = {name for name, distance in off.items() if abs(distance) <= 1.0}
    certain = (
        len(exact) == len(marks.exact) > 0
        and len(exact) + len(near) >= 2
        and (len(exact) > 1 or abs(float(np.mean(list(off.values())))) <= _MEAN_OFF)
        and all(abs(distance) <= _CONTRADICTION for distance in off.values())
        and lowest <= _L5
        and lowest - len(spans_mm) + 1 >= 0
    )
    return Naming(lowest, certain, tuple(sorted(exact | near)))


def _vote(marks: _Marks, count: int) -> int:
    """Choose the number of the lowest body that most landmarks bear out."""
    candidates = np.arange(count - 1, len(LEVELS)) if count <= len(LEVELS) else np.array([_L5])
    score = np.zeros(len(candidates))
    for number in marks.exact.values():
        score += np.where(candidates == number, 3.0, np.where(abs(candidates - number) == 1, 1.0, 0.0))
    for usual, tolerance in marks.usual.values():
        score += np.exp(-0.5 * ((candidates - usual) / tolerance) ** 2)
    return int(candidates[int(np.argmax(score))]) if score.max() > 0.0 else min(_L5, count - 1 + 7)


def _middles(spans_mm: Sequence[tuple[float, float]]) -> list[float]:
    """Middles of the bodies; of one that the scan cuts, where the middle of the whole body would lie."""
    middles = [0.5 * (low + high) for low, high in spans_mm]
    if len(spans_mm) > 1:
        below, above = spans_mm[1][1] - spans_mm[1][0], spans_mm[-2][1] - spans_mm[-2][0]
        middles[0] = min(middles[0], spans_mm[0][1] - 0.45 * below)
        middles[-1] = max(middles[-1], spans_mm[-1][0] + 0.45 * above)
    return middles


def _index_at(spans_mm: Sequence[tuple[float, float]], along_mm: float) -> float:
    """Which body lies at a place along the curve, counted from the lowest, with fractions; goes on beyond the ends."""
    middles = _middles(spans_mm)
    if len(middles) == 1:
        return (along_mm - middles[0]) / max(spans_mm[0][1] - spans_mm[0][0], 15.0)
    index = np.arange(len(middles), dtype=np.float64)
    if along_mm < middles[0]:
        return (along_mm - middles[0]) / (middles[1] - middles[0])
    if along_mm > middles[-1]:
        return float(index[-1]) + (along_mm - middles[-1]) / (middles[-1] - middles[-2])
    return float(np.interp(along_mm, middles, index))


# --- landmarks of the skeleton ------------------------------------------------------------------------------------


def _exact(
    curve: SpineCurve, spans_mm: Sequence[tuple[float, float]], bodies: NDArray[np.bool_], organs: OrganMap
) -> dict[str, int]:
    if "bone" not in organs.structures:
        return {}
    found = {}
    bone = organs.mask("bone") & ~bodies
    lowest_rib = _lowest_rib_bearer(curve, spans_mm, bone, organs)
    if lowest_rib is not None:
        found["lowest ribs"] = _T12 + lowest_rib
    if _on_sacrum(curve, spans_mm, bone, organs):
        found["sacrum"] = _L5
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Beside:
    """Bone voxels beside the spine: index in the map, place along the curve, distances to the left and back, mm."""

    index: NDArray[np.int64]
    along: NDArray[np.float64]
    left: NDArray[np.float64]
    back: NDArray[np.float64]

    def only(self, keep: NDArray[np.bool_]) -> _Beside:
        return _Beside(self.index[keep], self.along[keep], self.left[keep], self.back[keep])


def _beside(curve: SpineCurve, mask: NDArray[np.bool_], organs: OrganMap) -> _Beside:
    from scipy.spatial import cKDTree

    index = np.argwhere(mask)
    places = index @ organs.affine[:3, :3].T + organs.affine[:3, 3]
    thin = curve.points_mm[::4]
    _, nearest = cKDTree(thin).query(places)
    at = np.minimum(nearest * 4, len(curve.points_mm) - 1)
    away = places - curve.points_mm[at]
    left = np.einsum("ij,ij->i", away, curve.left[at])
    back = np.einsum("ij,ij->i", away, curve.back[at])
    above = np.einsum("ij,ij->i", away, curve.up[at])
    return _Beside(index, at * STEP_MM + above, left, back)


def _lowest_rib_bearer(
    curve: SpineCurve, spans_mm: Sequence[tuple[float, float]], bone: NDArray[np.bool_], organs: OrganMap
) -> int | None:
    """Index of the lowest body with a rib, where the body below it is seen to have none."""
    near = _beside(curve, bone, organs)
    bearers: list[set[int | None]] = []
    for side in (-1.0, 1.0):
        flank = near.only((side * near.left > 20.0) & (side * near.left < 62.0) & (near.back > -25.0))
        flank = _Beside(flank.index, flank.along, side * flank.left, flank.back)
        heads = [head for seed in _rib_seeds(flank) if (head := _follow_inwards(flank, seed)) is not None]
        bearers.append({_bearer(spans_mm, head) for head in heads})
    if None in bearers[0] | bearers[1]:
        return None
    right, left = (sorted(index for index in side if index is not None) for side in bearers)
    # the same body on both sides, and the row of ribs goes on above
    if not right or not left or right[0] != left[0]:
        return None
    lowest = right[0]
    above = lowest + 1
    if above < len(spans_mm) and above not in {*right, *left}:
        return None
    return lowest if lowest >= 1 else None


def _bearer(spans_mm: Sequence[tuple[float, float]], head_mm: float) -> int | None:
    """Index of the body that a rib belongs to; ``None`` where it might be the next one.

    A rib arrives beside the upper half of its body, the middle ribs at the disc above it.
    """
    place = head_mm - _RIB_ABOVE * float(np.median([high - low for low, high in spans_mm]))
    for index, (low, high) in enumerate(spans_mm):
        if low <= place < high or (index == len(spans_mm) - 1 and place >= high):
            doubtful = min(place - low, high - place) < 0.08 * (high - low) and place < high
            return None if doubtful and index not in {0, len(spans_mm) - 1} else index
    return 0


def _rib_seeds(flank: _Beside) -> list[NDArray[np.bool_]]:
    """Crossings of ribs with a sheet beyond the tips of the transverse processes, as masks over the flank's voxels."""
    from scipy import ndimage

    sheet = (flank.left >= 50.0) & (flank.left < 60.0)
    if not sheet.any():
        return []
    low = flank.index.min(axis=0)
    grid = np.zeros(flank.index.max(axis=0) - low + 1, dtype=bool)
    places = flank.index - low
    grid[tuple(places[sheet].T)] = True
    parts, count = ndimage.label(grid, np.ones((3, 3, 3)))
    of_voxel = parts[tuple(places.T)]
    seeds = []
    for part in range(1, count + 1):
        seed = sheet & (of_voxel == part)
        tall_mm = float(np.ptp(flank.along[seed]))
        # the wing of the pelvis is a wall, not a bar; what the scan's end cuts may be either
        cut = bool((flank.index[seed, 0] <= 1).any())
        if np.count_nonzero(seed) >= 4 and tall_mm < 36.0 and not cut:
            seeds.append(seed)
    return seeds


def _follow_inwards(flank: _Beside, seed: NDArray[np.bool_]) -> float | None:
    """Follow a rib to its vertebra; returns the place along the curve at which it arrives, or ``None``."""
    front = flank.index[seed]
    place: float | None = None
    for outer in np.arange(50.0, 26.0, -3.0):
        band = (flank.left < outer) & (flank.left >= outer - 4.0)
        candidates = flank.index[band]
        if not len(candidates):
            break
        touching = (abs(candidates[:, None, :] - front[None, :, :]).max(axis=2) <= 1).any(axis=1)
        if not touching.any():
            break
        along = flank.along[band][touching]
        # towards the spine ribs rise; what joins from below is a transverse process
        keep = along >= along.max() - 10.0
        front = candidates[touching][keep]
        place = float(along[keep].mean())
        reached = outer - 4.0
    else:
        reached = 26.0
    return place if place is not None and reached <= 34.0 else None


def _on_sacrum(
    curve: SpineCurve, spans_mm: Sequence[tuple[float, float]], bone: NDArray[np.bool_], organs: OrganMap
) -> bool:
    """Whether the lowest body stands on the sacrum: the bodies end above the scan's end, between the iliac wings."""
    low_mm = spans_mm[0][0]
    foot = curve.place(np.array([low_mm]), np.array([0.0]))[0]
    inverse = np.linalg.inv(organs.affine)
    index = inverse[:3, :3] @ foot + inverse[:3, 3]
    layer = round(float(index[0]))
    if layer * organs.spacing_mm[0] < 12.0 or layer >= bone.shape[0]:
        return False
    if "sacrum" in organs.structures and organs.volume_ml("sacrum") > 5.0:
        tops = np.flatnonzero(organs.mask("sacrum").any(axis=(1, 2)))
        return abs(float(tops[-1]) - layer) * organs.spacing_mm[0] < 30.0
    wing_mm2 = 250.0
    pixel_mm2 = organs.spacing_mm[1] * organs.spacing_mm[2]
    columns = np.arange(bone.shape[2])[None, :]
    away_mm = (columns - index[2]) * organs.spacing_mm[2]
    plane = bone[max(0, layer - 1) : layer + 1].any(axis=0)
    return all(
        np.count_nonzero(plane & (side * away_mm > 35.0) & (side * away_mm < 140.0)) * pixel_mm2 >= wing_mm2
        for side in (-1.0, 1.0)
    )


# --- other organs -------------------------------------------------------------------------------------------------


def _usual(
    curve: SpineCurve, spans_mm: Sequence[tuple[float, float]], bodies: NDArray[np.bool_], organs: OrganMap
) -> dict[str, tuple[float, float]]:
    """Level number that each organ's usual place would give to the lowest body."""
    found = {}
    for name, layer in _organ_layers(organs, bodies).items():
        along = _along_at_layer(curve, organs, layer)
        if along is None:
            continue
        number, tolerance = _USUAL[name]
        found[name] = (number + _index_at(spans_mm, along), tolerance)
    return found


def _along_at_layer(curve: SpineCurve, organs: OrganMap, layer: float) -> float | None:
    inverse = np.linalg.inv(organs.affine)
    layers = curve.points_mm @ inverse[0, :3] + inverse[0, 3]
    # too far beyond the bodies that are seen, counting is guessing
    if not layers[0] - 15.0 <= layer <= layers[-1] + 15.0:
        return None
    slope = float((layers[-1] - layers[0]) / max(len(layers) - 1, 1))
    at = float(np.interp(layer, layers, np.arange(len(layers))))
    at += (layer - float(np.clip(layer, layers[0], layers[-1]))) / slope
    return at * STEP_MM


def _organ_layers(organs: OrganMap, bodies: NDArray[np.bool_]) -> dict[str, float]:
    """Layer of the map at which each bystander's landmark lies, where the scan does not cut it."""
    known = organs.structures
    last = organs.labels.shape[0] - 1
    layers: dict[str, float] = {}
    if {"lung_left", "lung_right"} <= known:
        lungs = np.flatnonzero(organs.mask("lung_left", "lung_right").sum(axis=(1, 2)) >= 3)
        if lungs.size and lungs[0] > 1:
            layers["lowest lung"] = float(lungs[0])
        if lungs.size and lungs[-1] < last - 1 and lungs.size * organs.spacing_mm[0] > 100.0:
            layers["lung apex"] = float(lungs[-1])
    if "airways" in known and (fork := _fork(organs)) is not None:
        layers["tracheal bifurcation"] = fork
    if {"kidney_left", "kidney_right"} <= known:
        both = [np.flatnonzero(organs.mask(f"kidney_{side}").any(axis=(1, 2))) for side in ("left", "right")]
        if all(k.size * organs.spacing_mm[0] > 60.0 and k[0] > 1 and k[-1] < last - 1 for k in both):
            layers["kidneys"] = float(np.mean([0.5 * (k[0] + k[-1]) for k in both]))
    if "bone" in known and (crest := _crest(organs, bodies)) is not None:
        layers["iliac crest"] = crest
    return layers


def _fork(organs: OrganMap) -> float | None:
    """Layer in which the trachea parts: from above, the first with two large lumina apart."""
    from scipy import ndimage

    airways = organs.mask("airways")
    pixel_mm2 = organs.spacing_mm[1] * organs.spacing_mm[2]
    filled = np.flatnonzero(airways.any(axis=(1, 2)))
    single = 0
    for layer in filled[::-1]:
        parts, count = ndimage.label(airways[layer], np.ones((3, 3)))
        large = np.count_nonzero(np.bincount(parts.ravel())[1:] * pixel_mm2 >= 40.0) if count else 0
        if large == 1:
            single += 1
        elif large >= 2:
            # above the fork a stretch of trachea must have been seen
            return float(layer) if single * organs.spacing_mm[0] >= 20.0 else None
    return None


def _crest(organs: OrganMap, bodies: NDArray[np.bool_]) -> float | None:
    """Layer of the iliac crest's top: the upper end of the bone on both sides that grows from the pelvis."""
    from scipy import ndimage

    bone = organs.mask("bone") & ~bodies
    columns = np.flatnonzero(bodies.any(axis=(0, 1)))
    if not columns.size:
        return None
    middle = float(columns.mean())
    away = (np.arange(bone.shape[2]) - middle) * organs.spacing_mm[2]
    tops = []
    for side in (-1.0, 1.0):
        flank = bone & ((side * away > 42.0) & (side * away < 150.0))[None, None, :]
        parts, count = ndimage.label(flank)
        if not count:
            return None
        sizes = np.bincount(parts.ravel()) * organs.voxel_ml
        lowest = np.unique(parts[:2])
        lowest = lowest[(lowest > 0)]
        lowest = lowest[sizes[lowest] > 25.0] if lowest.size else lowest
        if not lowest.size:
            return None
        wing = parts == lowest[int(np.argmax(sizes[lowest]))]
        filled = np.flatnonzero(wing.sum(axis=(1, 2)) >= 3)
        tops.append(float(filled[-1]))
    return float(np.mean(tops)) if abs(tops[0] - tops[1]) * organs.spacing_mm[0] < 25.0 else None
