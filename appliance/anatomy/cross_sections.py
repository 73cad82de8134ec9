"""Where a vessel's outer border lies in planes across its course, at the scan's own resolution.

The organ map is 3 mm and a few mm wrong; on a plain scan the wall looks like blood, and what ends it is the fat around
it. Each plane is looked at along rays from its middle. Where a ray passes from blood into fat (or lung) near the mask's
border, the border is the half-way point between the two densities; where the neighbour is soft tissue, no border can be
seen and the mask's is taken with little weight. An ellipse through all rays closes the gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.one_sided import standing_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.scan import Volume

_RAYS = 72
_STEP_MM = 0.5
#: How far from the mask's border a border is looked for: what a network that labels 3 mm voxels may be wrong.
_SEARCH_MM = 4.0
#: Beyond the border, how far the neighbour is looked at.
_BEYOND_MM = 3.0
#: Where no fat is found around a plane, HU.
_FAT_HU = -100.0
#: A border ends in fat when the neighbour falls this far from blood to fat; half of it is the border.
_CLEAR_SHARE = 0.62
#: With this share of rays the others are moved by as much as these are moved from the mask.
_KNOWN_SHARE = 0.6
#: Differences between the radii of one ellipse that are error of measurement, mm.
_OVAL_ERROR_MM = 0.4
#: …and so many more, were none of the border seen.
_OVAL_UNSEEN_MM = 3.0
#: Weight of a ray without a border of its own.
_MASK_WEIGHT = 0.15
#: Rays this far to either side of the horizontal line tell where a border lies on that side, radians.
_SIDE_REACH = np.radians(22.0)
#: How far the mask may lie from a circle through the borders that were seen, mm, to be taken at its word.
_MASK_ALLOWANCE_MM = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Planes across a vessel.

    Attributes
    ----------
    points_mm
        float64, ``(n, 3)``: middles in LPS mm.
    tangents
        float64, ``(n, 3)``: unit vectors along the vessel.
    """

    points_mm: NDArray[np.float64]
    tangents: NDArray[np.float64]

    @property
    def along_mm(self) -> NDArray[np.float64]:
        """Distance from the first plane along the course, mm, ``(n,)``."""
        steps = np.linalg.norm(np.diff(self.points_mm, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Two unit vectors in each plane, ``(n, 3)`` each: the first is horizontal in the patient where it can be."""
        up = np.tile([0.0, 0.0, 1.0], (len(self.tangents), 1))
        back = np.tile([0.0, 1.0, 0.0], (len(self.tangents), 1))
        # of a vessel that runs along the body, left is the horizontal one; of others, what is across up and the vessel
        steep = np.abs(self.tangents[:, 2:3])
        first = np.cross(back, self.tangents) * steep + np.cross(up, self.tangents) * (1.0 - steep) * _side(self)
        first -= self.tangents * np.sum(first * self.tangents, axis=1, keepdims=True)
        first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-9)
        return first, np.cross(self.tangents, first)


def _side(course: Course) -> NDArray[np.float64]:
    """Sign that turns the second choice of a horizontal axis the first one's way."""
    up, back = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    same = np.sum(np.cross(up, course.tangents) * np.cross(back, course.tangents), axis=1, keepdims=True)
    return np.where(same < 0, -1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Borders:
    """The border of a vessel in each plane of its course, as an ellipse that may vary along it.

    Attributes
    ----------
    course
        The planes.
    shape
        float64, ``(n, 5)``: mean radius, shift of the middle along both axes, and the ellipse's two terms, mm.
    clear
        float64, ``(n,)``: share of the rays that end in fat or lung, be it behind a neighbour.
    radii_mm
        float64, ``(n, rays)``: the border as fitted.
    rays_mm
        float64, ``(n, rays)``: along each ray the border that was seen, or the mask's.
    seen
        Boolean, ``(n, rays)``: where a border was seen.
    whole
        The same, were what stands out to one side, and was left out, the vessel's own; ``None`` where nothing was.
    """

    course: Course
    shape: NDArray[np.float64]
    clear: NDArray[np.float64]
    radii_mm: NDArray[np.float64]
    rays_mm: NDArray[np.float64]
    seen: NDArray[np.bool_]
    whole: Borders | None = None

    def middles_mm(self) -> NDArray[np.float64]:
        """Middle of each border, LPS mm, ``(n, 3)``."""
        first, second = self.course.axes()
        return self.course.points_mm + first * self.shape[:, 1:2] + second * self.shape[:, 2:3]

    def longest_mm(self, planes: NDArray[np.intp]) -> NDArray[np.float64]:
        """Longest diameter in each of some neighbouring planes, mm.

        The maximum of many noisy planes reads too high, and noise makes every circle an ellipse. So the border is
        averaged over about 15 mm along the vessel first, and ovalness within the error of measurement does not count.
        """
        shape = self._smoothed(planes)
        # where much of the border is not seen, an oval may be a mask that lies wrong there
        error_mm = _OVAL_ERROR_MM + _OVAL_UNSEEN_MM * (1.0 - self.clear[planes])
        oval = np.sqrt(np.maximum(shape[:, 3] ** 2 + shape[:, 4] ** 2 - error_mm**2, 0.0))
        longest: NDArray[np.float64] = 2.0 * (shape[:, 0] + oval)
        return longest

    def ovalness(self, planes: NDArray[np.intp]) -> NDArray[np.float64]:
        """Longest over shortest diameter in each of some neighbouring planes; 1 is a circle."""
        shape = self._smoothed(planes)
        oval = np.hypot(shape[:, 3], shape[:, 4])
        ratio: NDArray[np.float64] = (shape[:, 0] + oval) / np.maximum(shape[:, 0] - oval, 1.0)
        return ratio

    def level_mm(self, planes: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Diameter in some planes along the horizontal line across the vessel, and how much of its ends was seen.

        In the patient's axial plane this is the vessel's short axis: across its course as seen from above. Each end is
        where the rays about the line end, not where an ellipse through the whole border does: such an ellipse goes
        where it likes on the side on which another vessel hides the border. There the mask is taken at its word.

        Returns
        -------
        diameter_mm : NDArray[np.float64]
            ``(n,)``, mm.
        seen : NDArray[np.float64]
            ``(n, 2)``: share of the rays at each end that end in fat or lung.
        """
        angle = self.level_angles()[planes]
        weights = np.where(self.seen[planes], 1.0, _MASK_WEIGHT)
        ends, seen = [], []
        for turn in (0.0, np.pi):
            apart = np.angle(np.exp(1j * (angles()[None, :] - angle[:, None] - turn)))
            beside = np.abs(apart) <= _SIDE_REACH
            used = weights * beside
            ends.append((self.rays_mm[planes] * used).sum(axis=1) / used.sum(axis=1))
            seen.append((self.seen[planes] & beside).sum(axis=1) / beside.sum(axis=1))
        return ends[0] + ends[1], np.column_stack(seen)

    def level_angles(self) -> NDArray[np.float64]:
        """Direction of the horizontal line in each plane, radians from its first axis, ``(n,)``."""
        first, second = self.course.axes()
        across = np.cross([0.0, 0.0, 1.0], self.course.tangents)
        angle: NDArray[np.float64] = np.arctan2(np.sum(across * second, axis=1), np.sum(across * first, axis=1))
        return angle

    def level_ends_mm(self, plane: int) -> NDArray[np.float64]:
        """Both ends of the horizontal diameter in one plane, LPS mm, ``(2, 3)``."""
        return self.ends_mm(plane, float(self.level_angles()[plane]))

    def ends_mm(self, plane: int, angle: float) -> NDArray[np.float64]:
        """Both ends of the diameter in a direction of one plane, LPS mm, ``(2, 3)``."""
        edge = self.edge_mm(plane)
        at = round(angle / (2.0 * np.pi) * _RAYS) % _RAYS
        both: NDArray[np.float64] = edge[[at, (at + _RAYS // 2) % _RAYS]]
        return both

    def _smoothed(self, planes: NDArray[np.intp]) -> NDArray[np.float64]:
        from scipy import ndimage

        settled = ndimage.median_filter(self.shape[planes], (5, 1), mode="nearest")
        smooth: NDArray[np.float64] = ndimage.uniform_filter1d(settled, 3, axis=0, mode="nearest")
        return smooth

    def edge_mm(self, plane: int) -> NDArray[np.float64]:
        """Points on the border in one plane, LPS mm, ``(rays, 3)``."""
        first, second = (axis[plane] for axis in self.course.axes())
        angle = angles()[:, None]
        ring = np.cos(angle) * first + np.sin(angle) * second
        edge: NDArray[np.float64] = self.course.points_mm[plane] + ring * self.radii_mm[plane][:, None]
        return edge

    def longest_ends_mm(self, plane: int) -> NDArray[np.float64]:
        """Both ends of the longest diameter in one plane, LPS mm, ``(2, 3)``."""
        return self.ends_mm(plane, 0.5 * float(np.arctan2(self.shape[plane, 4], self.shape[plane, 3])))


def angles() -> NDArray[np.float64]:
    """Direction of each ray from the first axis to the second, radians, ``(rays,)``."""
    return np.asarray(np.arange(_RAYS) * (2.0 * np.pi / _RAYS), dtype=np.float64)


def mask_radii(
    distance_mm: NDArray[np.float32], affine: NDArray[np.float64], course: Course, reach_mm: float
) -> NDArray[np.float64]:
    """Distance from each middle to the border of the mask along each ray.

    Parameters
    ----------
    distance_mm
        Signed distance to the mask's surface, negative inside.
    affine
        Index of ``distance_mm`` to LPS mm.
    course
        The planes.
    reach_mm
        Length of the rays.

    Returns
    -------
    ndarray
        float64, ``(n, rays)``, mm; ``reach_mm`` where the border is not met.
    """
    radii = np.arange(0.0, reach_mm, 1.0)
    field = _sample(distance_mm, affine, course, radii)
    outside = field > 0.0
    outside[:, :, 0] = False
    return _first_crossing(field, outside, radii, np.zeros(len(course.points_mm)), reach_mm)


def find_borders(volume: Volume, course: Course, mask_mm: NDArray[np.float64], *, is_round: bool = False) -> Borders:
    """Look for the border along rays.

    Parameters
    ----------
    volume
        The scan.
    course
        The planes.
    mask_mm
        ``(n, rays)``: where the organ map has the border, see :func:`mask_radii`.
    is_round
        Whether the vessel is round: what stands out to one side is then a neighbour's border and not seen of this one.
    """
    from scipy import ndimage

    typical = float(np.median(mask_mm))
    mask_mm = np.minimum(mask_mm, 2.0 * typical)
    reach = float(mask_mm.max()) + _SEARCH_MM + _BEYOND_MM + 1.0
    radii = np.arange(0.0, reach, _STEP_MM)
    profiles = _sample(volume.hu, volume.affine, course, radii)
    lumen = _lumen_hu(profiles, radii, mask_mm)
    # noise is averaged along the border, never across it
    profiles = ndimage.gaussian_filter1d(profiles, 1.2, axis=1, mode="wrap")
    profiles = ndimage.uniform_filter1d(profiles, 3, axis=0, mode="nearest")
    fat = _fat_hu(profiles, radii, mask_mm)
    half = 0.5 * (lumen + fat)
    low = np.maximum(mask_mm - _SEARCH_MM, 2.0)
    place = radii[None, None, :]
    searched = (place >= low[:, :, None]) & (place <= mask_mm[:, :, None] + _SEARCH_MM)
    below = (profiles < half[:, None, None]) & searched
    border = _first_crossing(profiles, below, radii, half, np.nan)
    beyond = (place > border[:, :, None]) & (place <= border[:, :, None] + _BEYOND_MM)
    deepest = np.where(beyond, profiles, np.inf).min(axis=2)
    starts_inside = _at(profiles, low, radii) > half[:, None]
    needed = lumen - _CLEAR_SHARE * (lumen - fat)
    found = np.isfinite(border) & starts_inside & (deepest < needed[:, None])
    whole = _fitted(course, border, found, mask_mm)
    neighbour = standing_out(border, found) if is_round else np.zeros_like(found)
    if not neighbour.any():
        return whole
    # under a neighbour the border goes on as the circle that all the rest lies on
    seen = found & ~neighbour
    _, round_mm = _ellipse(np.where(seen, border, 0.0), seen.astype(np.float64), terms=3)
    closed = _fitted(course, np.where(neighbour, round_mm, border), found, mask_mm)
    return replace(closed, seen=seen, whole=whole)


def fit(course: Course, radii_mm: NDArray[np.float64]) -> Borders:
    """Take borders as they are given, ``(n, rays)`` in mm, such as those of a mask."""
    shape, fitted = _ellipse(radii_mm, np.ones_like(radii_mm))
    return Borders(course, shape, np.zeros(len(radii_mm)), fitted, radii_mm, np.zeros(radii_mm.shape, dtype=bool))


def _fitted(
    course: Course, border: NDArray[np.float64], found: NDArray[np.bool_], mask_mm: NDArray[np.float64]
) -> Borders:
    offset = np.where(found, border - mask_mm, np.nan)
    # what the mask is wrong where it can be checked it is probably wrong elsewhere too
    known = found.mean(axis=1) >= _KNOWN_SHARE
    shift = np.array([np.median(row[ok]) if good else 0.0 for row, ok, good in zip(offset, found, known, strict=True)])
    elsewhere = mask_mm + shift[:, None]
    # a circle through the borders that were seen; the mask may differ from it only a little where none was
    circle, _ = _ellipse(np.where(found, border, elsewhere), np.where(found, 1.0, 1e-3), terms=3)
    round_mm = circle @ _basis().T
    near = np.clip(elsewhere, round_mm - _MASK_ALLOWANCE_MM, round_mm + _MASK_ALLOWANCE_MM)
    elsewhere = np.where(known[:, None], near, elsewhere)
    values = np.where(found, border, elsewhere)
    shape, fitted = _ellipse(values, np.where(found, 1.0, _MASK_WEIGHT))
    return Borders(course, shape, found.mean(axis=1), fitted, np.where(found, border, mask_mm), found)


def _basis() -> NDArray[np.float64]:
    angle = angles()
    rows = [np.ones(_RAYS), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)]
    return np.column_stack(rows)


def _ellipse(
    values: NDArray[np.float64], weights: NDArray[np.float64], terms: int = 5
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit radius, middle and ellipse to each row, robustly: what lies 1 mm off counts half as much.

    With three ``terms`` a circle.
    """
    basis = _basis()[:, :terms]
    current = weights
    shape = np.zeros((len(values), 5))
    for _ in range(6):
        normal = np.einsum("nr,ri,rj->nij", current, basis, basis) + 1e-6 * np.eye(terms)
        target = np.einsum("nr,ri,nr->ni", current, basis, values)
        shape[:, :terms] = np.linalg.solve(normal, target[:, :, None])[:, :, 0]
        residual = np.abs(values - shape[:, :terms] @ basis.T)
        current = weights / (1.0 + residual**2)
    fitted: NDArray[np.float64] = shape[:, :terms] @ basis.T
    return shape, fitted


def _sample(
    array: NDArray[np.generic], affine: NDArray[np.float64], course: Course, radii: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Interpolate linearly along every ray, ``(n, rays, samples)``; beyond the ends the last value goes on."""
    from scipy import ndimage

    to_index = np.linalg.inv(affine[:3, :3])
    middles = (course.points_mm - affine[:3, 3]) @ to_index.T
    first, second = course.axes()
    angle = angles()
    direction = first[:, None, :] * np.cos(angle)[None, :, None] + second[:, None, :] * np.sin(angle)[None, :, None]
    direction = direction @ to_index.T
    places = np.empty((3, *direction.shape[:2], len(radii)), dtype=np.float32)
    for axis in range(3):
        places[axis] = direction[:, :, None, axis] * radii + middles[:, None, None, axis]
    sampled: NDArray[np.float32] = ndimage.map_coordinates(array, places, output=np.float32, order=1, mode="nearest")
    return sampled


def _first_crossing(
    profiles: NDArray[np.float32],
    beyond: NDArray[np.bool_],
    radii: NDArray[np.float64],
    level: NDArray[np.float64],
    missing: float,
) -> NDArray[np.float64]:
    """Radius at which each profile first passes ``level`` into ``beyond``, between samples."""
    index = np.argmax(beyond, axis=2)
    met = np.take_along_axis(beyond, index[:, :, None], axis=2)[:, :, 0] & (index > 0)
    before = np.maximum(index - 1, 0)
    after_value = np.take_along_axis(profiles, index[:, :, None], axis=2)[:, :, 0].astype(np.float64)
    before_value = np.take_along_axis(profiles, before[:, :, None], axis=2)[:, :, 0].astype(np.float64)
    gap = after_value - before_value
    part = np.clip((level[:, None] - before_value) / np.where(np.abs(gap) < 1e-6, 1.0, gap), 0.0, 1.0)
    step = radii[1] - radii[0]
    result: NDArray[np.float64] = np.where(met, radii[before] + part * step, missing)
    return result


def _at(
    profiles: NDArray[np.float32], place_mm: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    index = np.clip(np.rint(place_mm / (radii[1] - radii[0])).astype(int), 0, len(radii) - 1)
    values = np.take_along_axis(profiles, index[:, :, None], axis=2)[:, :, 0]
    return values.astype(np.float64)


def _lumen_hu(
    profiles: NDArray[np.float32], radii: NDArray[np.float64], mask_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Median of the inner half of each plane, smoothed along the course; calcified walls lie outside it."""
    from scipy import ndimage

    inner = radii[None, :] <= 0.5 * mask_mm.mean(axis=1)[:, None]
    medians = np.array([np.median(plane[:, used]) for plane, used in zip(profiles, inner, strict=True)])
    smooth: NDArray[np.float64] = ndimage.median_filter(medians.astype(np.float64), 9, mode="nearest")
    return smooth


def _fat_hu(
    profiles: NDArray[np.float32], radii: NDArray[np.float64], mask_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Density of the fat around the whole vessel, the same for all planes."""
    place = radii[None, None, :]
    around = (place > mask_mm[:, :, None]) & (place <= mask_mm[:, :, None] + _SEARCH_MM + _BEYOND_MM)
    values = profiles[around & (profiles > -140.0) & (profiles < -70.0)]
    level = float(np.median(values)) if values.size >= 200 else _FAT_HU
    return np.full(len(profiles), level)
