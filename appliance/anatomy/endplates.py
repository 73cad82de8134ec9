"""Endplates and heights of vertebral bodies, measured on the straightened spine at the scan's own resolution.

Heights are taken along the spine, between endplates that are found disc by disc, at the body's front and back edges and
halfway between: the six points of a quantitative morphometry (Genant et al., J Bone Miner Res 1993;8:1137-48).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.derived import derived
from appliance.anatomy.endplate_fit import DEPTHS, DISH_MM, SLAB_MM, blur_mm, fit_disc, sheet
from appliance.anatomy.spine import spine
from appliance.anatomy.spine_curve import OUTSIDE_HU, STEP_MM, sampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.spine import Spine, Vertebra
    from appliance.anatomy.spine_curve import SpineCurve
    from appliance.scan import Volume

#: On coarser pixels walls and endplates run into each other.
COARSEST_PIXEL_MM = 1.6
#: The sagittal slab that is averaged, mm to the left of the curve.
_SLAB_LEFT_MM = np.arange(-SLAB_MM, SLAB_MM + 0.5, 2.0)
_SLAB_BACK_MM = np.arange(-30.0, 30.5, 1.0)
#: The back wall is hollow in the midline; on a lateral radiograph, from which the grades come, its rims are seen.
_HOLLOW_SHARE = 0.055


@dataclass(frozen=True, slots=True, eq=False)
class BodyShape:
    """Heights of one vertebral body in the middle sagittal slab.

    Attributes
    ----------
    anterior_mm, middle_mm, posterior_mm
        At the front edge, halfway and at the back edge.
    depth_mm
        From front edge to back edge.
    lines_mm
        Lower and upper end of the three heights, float64 ``(3, 2, 3)``, LPS.
    """

    anterior_mm: float
    middle_mm: float
    posterior_mm: float
    depth_mm: float
    lines_mm: NDArray[np.float64]


@derived
def body_shapes(anatomy: Anatomy) -> dict[str, BodyShape]:
    """Measure every body that is seen whole; by its level's name. Bodies whose endplates are not clear are left out.

    All are where pixels are too coarse.
    """
    found = spine(anatomy)
    if found.curve is None or not found.vertebrae or max(anatomy.volume.spacing_mm[1:]) > COARSEST_PIXEL_MM:
        return {}
    curve = found.curve
    lattice = curve.lattice(_SLAB_BACK_MM, _SLAB_LEFT_MM)
    values = sampled(anatomy.volume, lattice)
    slab = values.mean(axis=2).astype(np.float64)
    slab[(values <= OUTSIDE_HU).any(axis=2)] = np.nan
    cuts = sorted({item.low_mm for item in found.vertebrae} | {item.high_mm for item in found.vertebrae})
    plates = {cut: _disc(slab, cut, found, curve, anatomy.volume) for cut in cuts}
    shapes = {}
    for item in found.vertebrae:
        low, high = plates[item.low_mm], plates[item.high_mm]
        if not item.whole or low is None or high is None:
            continue
        shape = _shape(slab, item, low[1], high[0], anatomy.volume)
        if shape is not None:
            shapes[item.level] = shape
    return shapes


# --- discs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Plate:
    """One endplate: place along the spine as a parabola of depth, in the flat frame of its disc."""

    coefficients: NDArray[np.float64]
    cut_mm: float
    origin: NDArray[np.float64]
    up: NDArray[np.float64]
    back: NDArray[np.float64]

    def along(self, depths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the place along the spine's curve, mm."""
        return np.asarray(self.cut_mm + np.polyval(self.coefficients, depths), dtype=np.float64)

    def place(self, depths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return LPS positions, mm."""
        height = np.polyval(self.coefficients, depths)
        away = height[:, None] * self.up + np.asarray(depths)[:, None] * self.back
        return np.asarray(self.origin + away, dtype=np.float64)


def _disc(
    slab: NDArray[np.float64], cut: float, found: Spine, curve: SpineCurve, volume: Volume
) -> tuple[_Plate, _Plate] | None:
    """Upper endplate of the body below a disc and lower endplate of the one above, or ``None`` where unclear."""
    beside = [item for item in found.vertebrae if cut in (item.low_mm, item.high_mm)]
    half = min(item.half_depth_mm for item in beside)
    middle = float(np.mean([item.middle_back_mm for item in beside]))
    depths = np.arange(middle + DEPTHS[0] * half, middle + DEPTHS[1] * half, 1.0)
    reach = 0.55 * min(item.high_mm - item.low_mm for item in beside)
    below = _straight(slab, cut, depths, -1.0, reach)
    above = _straight(slab, cut, depths, 1.0, reach)
    if below is None or above is None:
        return None
    at = min(max(round(cut / STEP_MM), 0), len(curve.up) - 1)
    frame = (curve.points_mm[at], curve.up[at], curve.back[at], curve.left[at])
    x = (depths - middle) / half
    lines = [np.polyfit(x, line - cut, 1) for line in (below, above)]
    theta = np.array([DISH_MM, *lines[0], -DISH_MM, *lines[1]])
    theta[[2, 5]] -= [0.4 * DISH_MM, -0.4 * DISH_MM]
    fitted = fit_disc(volume, frame, theta, (middle, half))
    if fitted is None:
        return None
    plates = []
    for a, b, c in (fitted[:3], fitted[3:]):
        in_mm = (a / half**2, b / half - 2.0 * a * middle / half**2, a * (middle / half) ** 2 - b * middle / half + c)
        plates.append(_Plate(np.array(in_mm), cut, *frame[:3]))
    return plates[0], plates[1]


def _straight(
    slab: NDArray[np.float64], cut: float, depths: NDArray[np.float64], side: float, reach: float
) -> NDArray[np.float64] | None:
    """Straight line that fits an endplate best: along it bone is densest against what lies 3 mm towards the disc."""
    window = np.arange(-4.0, reach + 2.0, 0.5)
    middle = float(depths.mean())
    best = -np.inf
    chosen: NDArray[np.float64] | None = None
    for degrees in range(-27, 28, 3):
        start: NDArray[np.float64] = cut + float(np.tan(np.deg2rad(degrees))) * (depths - middle)
        lines = _profiles(slab, start, depths, side * window)
        lines = lines[:, : int(np.isfinite(lines).all(axis=0).cumprod().sum())]
        if lines.shape[1] < 14:
            continue
        column = lines.mean(axis=0)
        # a little in favour of what is near: the next dense sheet belongs to another body
        contrast = column[8:] - column[2:-6] - 1.5 * np.abs(window[8 : len(column)])
        index = int(np.argmax(contrast))
        if contrast[index] > best:
            best = float(contrast[index])
            chosen = start + side * float(window[8 + index])
    return chosen


def _profiles(
    slab: NDArray[np.float64], start: NDArray[np.float64], depths: NDArray[np.float64], window: NDArray[np.float64]
) -> NDArray[np.float64]:
    """HU along the curve's direction around ``start`` at each depth; ``nan`` outside the scan."""
    from scipy import ndimage

    rows = (start[:, None] + window[None, :]) / STEP_MM
    columns = np.repeat((depths - _SLAB_BACK_MM[0])[:, None], len(window), axis=1)
    values: NDArray[np.float64] = ndimage.map_coordinates(
        slab, np.stack([rows, columns]), order=1, mode="constant", cval=np.nan
    )
    return values


# --- bodies -------------------------------------------------------------------------------------------------------


def _shape(
    slab: NDArray[np.float64],
    item: Vertebra,
    lower: _Plate,
    upper: _Plate,
    volume: Volume,
) -> BodyShape | None:
    front = _wall(slab, item, lower, upper, volume, -1.0)
    back = _wall(slab, item, lower, upper, volume, 1.0)
    if front is None or back is None or not 12.0 < back - front < 60.0:
        return None
    back += _HOLLOW_SHARE * (back - front)
    at = np.array([front, 0.5 * (front + back), back])
    ends = np.stack([lower.place(at), upper.place(at)], axis=1)
    heights = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    # no body is a third higher in front than behind: one of the endplates is not where it was taken to be
    if not 3.0 < heights.min() < heights.max() < 50.0 or heights[0] > 1.3 * heights[2]:
        return None
    depth = float(np.linalg.norm(ends[0].mean(axis=0) - ends[2].mean(axis=0)))
    return BodyShape(float(heights[0]), float(heights[1]), float(heights[2]), depth, ends)


def _wall(
    slab: NDArray[np.float64],
    item: Vertebra,
    lower: _Plate,
    upper: _Plate,
    volume: Volume,
    side: float,
) -> float | None:
    """Place of the front (``side`` −1) or back wall at the endplates' edges: bodies are waisted."""
    first = item.middle_back_mm + side * item.half_depth_mm
    window = np.arange(-6.0, 6.25, 0.5)  # outwards
    depths = first + side * window
    blur = blur_mm(volume, item.back)
    shifts = np.arange(-2.5, 3.51, 0.25)
    step, dense = sheet(shifts[:, None] - window[None, :], blur)[:2]
    bases = np.stack([np.ones_like(step), step, dense], axis=2)
    floor, ceiling = lower.along(depths), upper.along(depths)
    places, shares = [], []
    for low, high in ((0.12, 0.26), (0.26, 0.42), (0.58, 0.74), (0.74, 0.88)):
        lines = []
        for share in np.linspace(low, high, 4):
            along = floor + share * (ceiling - floor)
            lines.append(_profiles(slab, along, depths, np.zeros(1))[:, 0])
        profile = np.mean(lines, axis=0)
        if not np.isfinite(profile).all():
            continue
        shift = _best_shift(bases, profile, shifts)
        if shift is not None:
            places.append(first + side * shift)
            shares.append(0.5 * (low + high))
    if len(places) < 3:
        return None
    # a waist is even: place = edge − waist × (1 − (2 share − 1)²)
    waist = 1.0 - (2.0 * np.array(shares) - 1.0) ** 2
    slope = float(np.polyfit(waist, np.array(places), 1)[0])
    limited = float(np.clip(-side * slope, 0.0, 3.5))
    return float(np.mean(np.array(places) + side * limited * waist))


def _best_shift(bases: NDArray[np.float64], profile: NDArray[np.float64], shifts: NDArray[np.float64]) -> float | None:
    """Shift whose basis, ``(shifts, samples, functions)``, explains a profile best; ``None`` where none does."""
    columns = np.linalg.qr(bases)[0]
    explained = (np.einsum("kij,i->kj", columns, profile) ** 2).sum(axis=1)
    best = int(np.argmax(explained))
    left = float((profile**2).sum() - explained[best]) / max(float(((profile - profile.mean()) ** 2).sum()), 1.0)
    return float(shifts[best]) if left < 0.4 else None
