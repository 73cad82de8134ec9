"""How large a stone is: a small dense body in surroundings of another density, seen through a scanner's blur.

It is measured at half its height above what surrounds it (full width at half maximum), on a grid finer than the
scan's, and what blur takes from so small a body is put back. It knows nothing of kidneys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A stone's surroundings: nearer is its own blur, farther is another tissue.
AROUND_MM = (1.5, 4.0)
# Finest and largest grid on which a stone is measured.
_FINE_MM, _MOST_POINTS = 0.4, 160
# On fewer slices a stone's largest diameter is taken across the body; one that is less wide than so many slices is
# taken for a ball; and the most of its radius that blur may have hidden.
_RESOLVED, _BALL, _MOST_LOST = 4, 1.6, 0.2


@dataclass(frozen=True, slots=True, eq=False)
class StoneSize:
    """What a stone measures.

    Attributes
    ----------
    diameter_mm
        Largest distance between two of its ends; of one that few slices show, across the body.
    volume_mm3
        Volume.
    mask
        Boolean, the scan's voxels that are at least half filled.
    mean_hu
        Mean density of its core, the voxels that are at least three quarters filled, HU.
    """

    diameter_mm: float
    volume_mm3: float
    mask: NDArray[np.bool_]
    mean_hu: float


def stone_size(
    hu: NDArray[np.int16],
    found: NDArray[np.bool_],
    others: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    thickness_mm: float,
) -> StoneSize:
    """Measure one stone.

    Parameters
    ----------
    hu
        Shape ``(slices, rows, columns)``, HU: the stone with at least 4 mm around it where the scan has them.
    found, others
        Boolean, same shape: the voxels by which it was found, at least one, and those of other stones near it.
    spacing_mm
        Distance between voxels along the three axes, mm.
    thickness_mm
        Thickness of a slice, mm.
    """
    from scipy import ndimage

    away_mm = ndimage.distance_transform_edt(~found, sampling=spacing_mm)
    shell = hu[(away_mm > AROUND_MM[0]) & (away_mm <= AROUND_MM[1]) & ~others]
    around_hu = float(np.median(shell)) if shell.size else 0.0
    within = np.sort(hu[found])
    peak_hu = float(within[-max(1, within.size // 8) :].mean())
    half_hu = 0.5 * (peak_hu + around_hu)
    fine_mm = max(_FINE_MM, max(np.array(hu.shape) * spacing_mm) / _MOST_POINTS)
    fine = _refined(hu.astype(np.float32), spacing_mm, fine_mm)
    densest = np.unravel_index(np.argmax(np.where(found, hu, -np.inf)), hu.shape)
    seed = np.rint(np.array(densest) * spacing_mm / fine_mm).astype(int)
    body = _connected_to(fine >= half_hu, tuple(np.minimum(seed, np.array(fine.shape) - 1)))
    mask: NDArray[np.bool_] = found & (hu >= half_hu)
    slices = int(np.count_nonzero(mask.any(axis=(1, 2))))
    along = _Along(slices, spacing_mm[0], thickness_mm)
    diameter_mm, volume_mm3 = _size(body, fine, peak_hu - around_hu, fine_mm, along)
    core = hu[found & (hu >= 0.5 * (half_hu + peak_hu))]
    return StoneSize(diameter_mm, volume_mm3, mask, float(core.mean()))


@dataclass(frozen=True, slots=True)
class _Along:
    """How a stone is seen along the body: on how many slices, how far apart and how thick they are."""

    slices: int
    spacing_mm: float
    thickness_mm: float


def _size(
    body: NDArray[np.bool_], fine: NDArray[np.float32], height_hu: float, fine_mm: float, along: _Along
) -> tuple[float, float]:
    """Return largest diameter, mm, and volume, mm³, of a stone on the fine grid.

    Blur with variance s² pulls the half level of a ball of radius r inwards by s² / r, which is put back. The blur in
    plane is told from the steepness of the edge, along the body it is the slice's box.
    """
    volume_mm3 = max(float(np.count_nonzero(body)), 1.0) * fine_mm**3
    widest = int(np.argmax(np.count_nonzero(body, axis=(1, 2))))
    in_plane_mm2 = _edge_blur_mm2(fine[widest], body[widest], height_hu, fine_mm)
    blur_mm2 = (2.0 * in_plane_mm2 + along.thickness_mm**2 / 12.0) / 3.0
    area_mm2 = max(float(np.count_nonzero(body[widest])), 1.0) * fine_mm**2
    flat_mm = float(np.sqrt(area_mm2 / np.pi))
    if 2.0 * flat_mm < _BALL * along.thickness_mm:
        volume_mm3 = 4.0 / 3.0 * np.pi * flat_mm**3  # its height is not seen: taken for a ball
    radius_mm = float((0.75 * volume_mm3 / np.pi) ** (1.0 / 3.0))
    lost_mm = min(blur_mm2 / radius_mm, _MOST_LOST * radius_mm)
    volume_mm3 *= (1.0 + lost_mm / radius_mm) ** 3
    if along.slices >= _RESOLVED:
        return _caliper_mm(body, fine_mm) + 2.0 * lost_mm, volume_mm3
    across_mm = _caliper_mm(body[widest : widest + 1], fine_mm) + 2.0 * lost_mm
    return max(across_mm, (along.slices - 1) * along.spacing_mm), volume_mm3


def _edge_blur_mm2(plane: NDArray[np.float32], body: NDArray[np.bool_], height_hu: float, fine_mm: float) -> float:
    """Return the variance of the Gaussian that makes an edge as steep as a stone's edge is in this plane."""
    from scipy import ndimage

    rim = body & ~ndimage.binary_erosion(body)
    slope = np.hypot(*np.gradient(plane, fine_mm))[rim].mean()
    return float((height_hu / max(float(slope), 1.0)) ** 2 / (2.0 * np.pi))


def _refined(hu: NDArray[np.float32], spacing_mm: tuple[float, float, float], fine_mm: float) -> NDArray[np.float32]:
    """Interpolate by cubic splines, one axis after the other, on a grid of ``fine_mm`` from the same first voxel."""
    for axis, spacing in enumerate(spacing_mm):
        hu = np.moveaxis(np.tensordot(_splines(hu.shape[axis], fine_mm / spacing), hu, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(hu, dtype=np.float32)


def _splines(size: int, step: float) -> NDArray[np.float32]:
    """Return the matrix that interpolates ``size`` samples at every ``step`` of their distance."""
    from scipy import ndimage

    points = int((size - 1) / step) + 1
    units = [
        ndimage.affine_transform(unit, np.array([step]), output_shape=(points,), order=3, mode="nearest")
        for unit in np.eye(size, dtype=np.float32)
    ]
    return np.stack(units, axis=1)


def _connected_to(mask: NDArray[np.bool_], seed: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the connected part of a mask that holds the seed, or its largest part."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask)
    label = parts[seed] or int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    connected: NDArray[np.bool_] = parts == label
    return connected


def _caliper_mm(mask: NDArray[np.bool_], step_mm: float) -> float:
    """Return the largest distance between two ends of a mask."""
    from scipy import ndimage
    from scipy.spatial.distance import pdist

    rim = np.argwhere(mask & ~ndimage.binary_erosion(mask, np.ones((3, 3, 3))))
    reach = rim @ _directions().T
    ends = np.unique(np.concatenate([rim[reach.argmax(axis=0)], rim[reach.argmin(axis=0)]]), axis=0)
    apart = float(pdist(ends.astype(np.float64)).max()) if len(ends) > 1 else 0.0
    return apart * step_mm


def _directions() -> NDArray[np.float64]:
    """Return unit vectors spread evenly over the sphere (a golden spiral)."""
    count = 200
    index = np.arange(count) + 0.5
    polar, turn = np.arccos(1.0 - 2.0 * index / count), np.pi * (1.0 + np.sqrt(5.0)) * index
    return np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
