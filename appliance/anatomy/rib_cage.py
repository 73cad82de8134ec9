"""The inside of the rib cage on each side, at working resolution: where pleural fluid can be.

No network labels the pleura. The ribs' inner surface is met by rays from the middle of each half of the chest, slice
by slice; between the ribs it is interpolated from the ribs above and below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.derived import derived

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Volume

#: Working spacing, mm.
SPACING_MM = 3.0
_LUNGS = ("lung_left", "lung_right")
#: Depth of what cannot be within.
_FAR_MM = -1e3
#: From the lungs' tops down the shoulder blades and arms stand around the cage; there it ends this far from the lung.
_APEX_MM = 60.0
_APEX_MARGIN_MM = 12.0
_RAYS = 120
_REACH_MM = 190.0
_STEP_MM = 1.5
#: The next rib above or below lies within this distance, mm.
_NEXT_RIB_MM = 15.0
_NEXT_RIB_RAYS = 2
#: What lies this far behind the nearest rib around is a shoulder blade or an arm seen between two ribs, mm.
_BEHIND_MM = 9.0
_BESIDE_MM = 9.0
#: Width over which the surface is smoothed: along the body, mm, and around it, rays.
_SMOOTH_MM, _SMOOTH_RAYS = 6.0, 1.5
#: Least share of the directions in which ribs are met in a slice or those beside it.
_RINGED_SHARE = 0.3
#: Below the lungs' lowest point the recess goes on at most this far, mm.
_BELOW_LUNG_MM = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class RibCage:
    """The chest at working resolution.

    Attributes
    ----------
    volume
        The scan resampled to ``SPACING_MM`` in canonical axes (to the head, the back, the left), noise averaged.
    organs
        The organ map on the same grid.
    depth_mm
        ``"left"`` and ``"right"`` to float32, shape of the volume: how far a voxel lies within the ribs' inner surface
        along the ray from the middle of that half of the chest. Negative is outside, and the other half is far outside.
    """

    volume: Volume
    organs: OrganMap
    depth_mm: dict[str, NDArray[np.float32]]


@derived
def rib_cage(anatomy: Anatomy) -> RibCage | None:
    """Find the inside of the rib cage; ``None`` where the map shows no lung, no spine or no ribs."""
    volume, organs = _working(anatomy)
    bone, spine = organs.mask("bone"), organs.mask("vertebral_bodies")
    lungs = organs.mask("lung_left", "lung_right")
    if not (lungs.any() and spine.any() and bone.any()):
        return None
    spine_column, spine_row = _spine_line(spine)
    top = int(np.flatnonzero(lungs.any(axis=(1, 2)))[-1]) - round(_APEX_MM / SPACING_MM)
    near_apex = _near(lungs[max(top, 0) :])
    depth = {}
    for side, sign in (("left", 1), ("right", -1)):
        middle = _middles(bone, spine_column, spine_row, sign)
        depth[side] = _depth(bone | spine, middle, spine_column, sign)
        # among the shoulders the cage is not closed: there nothing far from the lung is within it
        depth[side][max(top, 0) :][~near_apex] = _FAR_MM
    return RibCage(volume, organs, depth)


def _working(anatomy: Anatomy) -> tuple[Volume, OrganMap]:
    """The chest's slices at working resolution, with the map on the same grid."""
    from appliance.anatomy.organ_map import OrganMap
    from appliance.inference.resample import to_canonical
    from appliance.scan import Volume

    organs = anatomy.organs
    hu, grid = to_canonical(anatomy.volume, (SPACING_MM, SPACING_MM, SPACING_MM))
    labels = _on_grid(organs, grid.shape, grid.affine)
    lungs = np.flatnonzero(OrganMap(labels, grid.affine, organs.values, organs.pack).mask(*_LUNGS).any(axis=(1, 2)))
    low, high = 0, grid.shape[0]
    if lungs.size:
        low = max(0, int(lungs[0]) - round(_BELOW_LUNG_MM / SPACING_MM))
        high = min(high, int(lungs[-1]) + 4)
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, 0] * low
    chest = OrganMap(np.ascontiguousarray(labels[low:high]), affine, organs.values, organs.pack)
    return Volume(np.ascontiguousarray(hu[low:high]), affine), chest


def _on_grid(organs: OrganMap, shape: tuple[int, int, int], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The label nearest to each point of another grid; nothing beyond the map."""
    from scipy import ndimage

    to_map = np.linalg.inv(organs.affine) @ affine
    labels: NDArray[np.uint8] = ndimage.affine_transform(
        organs.labels, to_map[:3, :3], to_map[:3, 3], output_shape=shape, order=0, mode="nearest"
    )
    return labels


def _near(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    wide = ndimage.binary_dilation(lungs, np.ones((1, 3, 3)), iterations=round(_APEX_MARGIN_MM / SPACING_MM))
    return np.asarray(wide)


def _spine_line(spine: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row of the middle of the vertebral bodies in every slice."""
    slices = np.flatnonzero(spine.any(axis=(1, 2)))
    middles = np.array([np.argwhere(spine[index]).mean(axis=0) for index in slices])
    every = np.arange(spine.shape[0])
    return np.interp(every, slices, middles[:, 1]), np.interp(every, slices, middles[:, 0])


def _middles(
    bone: NDArray[np.bool_], spine_column: NDArray[np.float64], spine_row: NDArray[np.float64], sign: int
) -> NDArray[np.float64]:
    """Row and column of the middle of one half of the chest in every slice, ``(slices, 2)``.

    Half way from the spine to the side, a little in front of the spine: such a point sees the whole wall of its half.
    """
    from scipy import ndimage

    sides = np.full(bone.shape[0], np.nan)
    for index, plane in enumerate(bone):
        rows, columns = np.nonzero(plane)
        out = sign * (columns - spine_column[index])
        # ribs beside the spine; shoulder blades and arms lie farther out or farther back
        near = (np.abs(rows - spine_row[index]) < 40.0 / SPACING_MM) & (out > 0) & (out < 160.0 / SPACING_MM)
        if np.count_nonzero(near) >= 3:
            sides[index] = np.percentile(out[near], 85)
    known = np.flatnonzero(np.isfinite(sides))
    if not known.size:
        return np.column_stack([spine_row - 30.0 / SPACING_MM, spine_column + sign * 60.0 / SPACING_MM])
    width = ndimage.median_filter(np.interp(np.arange(len(sides)), known, sides[known]), 15, mode="nearest")
    width = ndimage.gaussian_filter1d(width, 3.0, mode="nearest")
    return np.column_stack([spine_row - 25.0 / SPACING_MM, spine_column + sign * 0.55 * width])


def _depth(
    hard: NDArray[np.bool_], middle: NDArray[np.float64], spine_column: NDArray[np.float64], sign: int
) -> NDArray[np.float32]:
    """How far each voxel lies within the ribs' inner surface, along the ray from its slice's middle, mm."""
    from scipy import ndimage

    surface = _surface_mm(hard, middle)
    wrapped = np.concatenate([surface, surface[:, :1]], axis=1)
    depth = np.full(hard.shape, _FAR_MM, dtype=np.float32)
    row = np.arange(hard.shape[1], dtype=np.float32)[:, None]
    column = np.arange(hard.shape[2], dtype=np.float32)[None, :]
    for index in range(hard.shape[0]):
        if not surface[index].any():
            continue
        half = np.flatnonzero(sign * (column[0] - spine_column[index]) > 0)
        down = (row - middle[index, 0]) * SPACING_MM
        across = (column[:, half] - middle[index, 1]) * SPACING_MM
        ray = np.arctan2(across, down) % (2.0 * np.pi) * (_RAYS / (2.0 * np.pi))
        limit = ndimage.map_coordinates(wrapped[index], [ray], order=1, mode="nearest")
        depth[index][:, half] = limit - np.hypot(down, across)
    return depth


def _surface_mm(hard: NDArray[np.bool_], middle: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distance from each slice's middle to the ribs' inner surface in every direction, ``(slices, rays)``."""
    from scipy import ndimage

    radii = np.arange(6.0, _REACH_MM, _STEP_MM)
    angle = np.arange(_RAYS) * (2.0 * np.pi / _RAYS)
    met = np.full((hard.shape[0], _RAYS), np.inf, dtype=np.float32)
    for index, plane in enumerate(hard):
        rows = middle[index, 0] + np.cos(angle)[:, None] * radii / SPACING_MM
        columns = middle[index, 1] + np.sin(angle)[:, None] * radii / SPACING_MM
        inside = (rows >= 0) & (rows < plane.shape[0] - 0.5) & (columns >= 0) & (columns < plane.shape[1] - 0.5)
        hit = (
            inside
            & plane[
                np.clip(np.rint(rows).astype(np.intp), 0, plane.shape[0] - 1),
                np.clip(np.rint(columns).astype(np.intp), 0, plane.shape[1] - 1),
            ]
        )
        first = np.argmax(hit, axis=1)
        met[index] = np.where(hit.any(axis=1), radii[first], np.inf)
    reach = 2 * round(_NEXT_RIB_MM / SPACING_MM) + 1
    nearest = ndimage.minimum_filter(met, (reach, 2 * _NEXT_RIB_RAYS + 1), mode=("nearest", "wrap"))
    valid = np.isfinite(met) & (met <= nearest + _BEHIND_MM)
    # the wall is where the ribs beside stand farthest out: their heads and the spine's processes stand into the gutter
    window = (2 * round(_BESIDE_MM / SPACING_MM) + 1, 2 * _NEXT_RIB_RAYS + 1)
    outermost = ndimage.maximum_filter(np.where(valid, met, 0.0), window, mode=("nearest", "wrap"))
    met = np.where(outermost > 0.0, outermost, met)
    valid = outermost > 0.0
    surface = np.zeros_like(met)
    # first far, for the gaps of the costal cartilages and the midriff, then near
    for widen in (4.0, 1.0):
        sigma = (_SMOOTH_MM / SPACING_MM * min(widen, 2.0), _SMOOTH_RAYS * widen)
        weight = ndimage.gaussian_filter(valid.astype(np.float32), sigma, mode=("nearest", "wrap"))
        total = ndimage.gaussian_filter(np.where(valid, met, 0.0).astype(np.float32), sigma, mode=("nearest", "wrap"))
        surface = np.where(weight > 0.02, total / np.maximum(weight, 1e-6), surface)
    # a slice that meets no ribs around has no wall; the spine alone is none
    ringed = ndimage.maximum_filter1d(valid.mean(axis=1), reach, mode="nearest") >= _RINGED_SHARE
    walls: NDArray[np.float32] = (surface * ringed[:, None]).astype(np.float32)
    return walls
