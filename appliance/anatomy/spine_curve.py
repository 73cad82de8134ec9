"""The spine laid out straight: a curve through the vertebral bodies, and the scan sampled along and across it.

Everything that is asked of vertebrae (where the discs are, how high a body is) becomes a question about straight
profiles, whatever the patient's posture and the scan's orientation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Volume

#: Distance between samples along the curve, mm.
STEP_MM = 0.5
#: How far the curve goes on, straight, beyond the last body that the map shows, mm.
_BEYOND_MM = 12.0
#: Pieces of the map smaller than this are not bodies, mL.
_CRUMB_ML = 1.0
#: HU of samples outside the scan.
OUTSIDE_HU = -4000.0


@dataclass(frozen=True, slots=True, eq=False)
class SpineCurve:
    """A smooth curve through the middles of the vertebral bodies, from the feet to the head.

    Attributes
    ----------
    points_mm
        float64 ``(n, 3)``, LPS, ``STEP_MM`` apart.
    up, back, left
        float64 ``(n, 3)``, unit vectors across and along the curve: along it towards the head, towards the patient's
        back, towards the patient's left.
    """

    points_mm: NDArray[np.float64]
    up: NDArray[np.float64]
    back: NDArray[np.float64]
    left: NDArray[np.float64]

    @property
    def length_mm(self) -> float:
        """Length of the curve."""
        return (len(self.points_mm) - 1) * STEP_MM

    def place(self, along_mm: NDArray[np.float64], back_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return LPS positions ``(…, 3)`` of points in the curve's own middle plane, mm."""
        at = np.clip(np.asarray(along_mm) / STEP_MM, 0.0, len(self.points_mm) - 1.0)
        grid = np.arange(len(self.points_mm))

        def between(table: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack([np.interp(at, grid, table[:, axis]) for axis in range(3)], axis=-1)

        return between(self.points_mm) + np.asarray(back_mm)[..., None] * between(self.back)

    def lattice(self, back_mm: NDArray[np.float64], left_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return LPS positions ``(n, back, left, 3)`` across the curve."""
        return (
            self.points_mm[:, None, None, :]
            + back_mm[None, :, None, None] * self.back[:, None, None, :]
            + left_mm[None, None, :, None] * self.left[:, None, None, :]
        )


def curve_through(mask: NDArray[np.bool_], organs: OrganMap) -> SpineCurve | None:
    """Lay a curve through vertebral bodies.

    Parameters
    ----------
    mask
        Boolean, shape of the organ map: bodies without their arches.
    organs
        The map, for its geometry.

    Returns
    -------
    SpineCurve or None
        ``None`` where less than about one body is seen.
    """
    places, areas = _middles(without_crumbs(mask, organs), organs)
    if len(places) < 5:
        return None
    along = places @ _direction(places)
    fitted = _smooth(along, places, areas)
    return _resampled(fitted)


def without_crumbs(mask: NDArray[np.bool_], organs: OrganMap) -> NDArray[np.bool_]:
    """Return the mask without pieces that are too small for a vertebral body."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 0:
        return mask
    keep = np.bincount(parts.ravel()) * organs.voxel_ml >= _CRUMB_ML
    keep[0] = False
    kept: NDArray[np.bool_] = keep[parts]
    return kept


def _middles(mask: NDArray[np.bool_], organs: OrganMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle of the mask in every slice of the map that shows whole cross-sections, LPS mm, and their size.

    Between two leaning bodies a slice cuts corners of both; their middle says nothing of the curve.
    """
    from scipy import ndimage

    places, areas = [], []
    sizes = mask.sum(axis=(1, 2)).astype(np.float64)
    around = 2 * round(20.0 / organs.spacing_mm[0]) + 1
    enough = 200.0 / (organs.spacing_mm[1] * organs.spacing_mm[2])  # mm²
    whole = np.maximum(0.7 * ndimage.maximum_filter1d(sizes, around), enough)
    for index in np.flatnonzero(sizes >= whole):
        rows, columns = np.nonzero(mask[index])
        places.append((float(index), rows.mean(), columns.mean()))
        areas.append(float(len(rows)))
    if not places:
        return np.empty((0, 3)), np.empty(0)
    positions = np.array(places) @ organs.affine[:3, :3].T + organs.affine[:3, 3]
    return positions, np.array(areas)


def _direction(places: NDArray[np.float64]) -> NDArray[np.float64]:
    chord: NDArray[np.float64] = places[-1] - places[0]
    return chord / max(float(np.linalg.norm(chord)), 1e-6)


def _smooth(along: NDArray[np.float64], places: NDArray[np.float64], areas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Follow the middles within about 2 mm: the curve of a spine bends over two vertebrae, not within one."""
    from scipy.interpolate import UnivariateSpline

    order = np.argsort(along)
    along, places = along[order], places[order]
    keep = np.concatenate(([True], np.diff(along) > 0.1))
    along, places = along[keep], places[keep]
    weights = np.sqrt(np.clip(areas[order][keep] / np.median(areas), 0.3, 1.0))
    degree = 3 if along[-1] - along[0] > 60.0 else 1
    inner = np.arange(along[0], along[-1], 1.0)
    columns = []
    for axis in range(3):
        spline = UnivariateSpline(along, places[:, axis], w=weights, k=degree, s=len(along) * 2.0**2)
        columns.append(spline(inner))
    return np.stack(columns, axis=1)


def _resampled(points: NDArray[np.float64]) -> SpineCurve:
    # the spline's very ends are loose: straight on from 8 mm further in
    trim = min(8, len(points) // 4)
    core = points[trim : len(points) - trim]
    reach = _BEYOND_MM + trim
    first = core[0] - core[min(10, len(core) - 1)]
    last = core[-1] - core[-min(11, len(core))]
    first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
    points = np.vstack([core[0] + first * reach, core, core[-1] + last * reach])
    lengths = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
    at = np.arange(0.0, lengths[-1], STEP_MM)
    points = np.stack([np.interp(at, lengths, points[:, axis]) for axis in range(3)], axis=1)
    up = np.gradient(points, axis=0)
    up = _rolling_mean(up, 61)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    back = np.array([0.0, 1.0, 0.0]) - up[:, 1:2] * up
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    return SpineCurve(points, up, back, np.cross(back, up))


def _rolling_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    from scipy import ndimage

    smoothed: NDArray[np.float64] = ndimage.uniform_filter1d(values, size=width, axis=0, mode="nearest")
    return smoothed


def sampled(volume: Volume, places_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the scan's HU at LPS positions ``(…, 3)``, linear between voxels; ``OUTSIDE_HU`` outside the scan."""
    from scipy import ndimage

    index = np.moveaxis(volume.to_index(places_mm), -1, 0)
    values: NDArray[np.float32] = ndimage.map_coordinates(
        volume.hu, index, order=1, output=np.float32, mode="constant", cval=OUTSIDE_HU
    )
    # beyond half a voxel outside the interpolation would mix with nothing
    shape = np.asarray(volume.shape, dtype=np.float64).reshape(3, *(1,) * (index.ndim - 1))
    values[((index < 0) | (index > shape - 1)).any(axis=0)] = OUTSIDE_HU
    return values


def sampled_labels(labels: NDArray[np.uint8], organs: OrganMap, places_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return values of an array on the organ map's grid at LPS positions ``(…, 3)``; zero outside."""
    inverse = np.linalg.inv(organs.affine)
    index = np.rint(places_mm @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
    inside = ((index >= 0) & (index < np.asarray(labels.shape))).all(axis=-1)
    values = np.zeros(index.shape[:-1], dtype=np.uint8)
    values[inside] = labels[tuple(index[inside].T)]
    return values
