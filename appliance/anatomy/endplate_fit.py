"""The fit of a disc with both endplates that enclose it, to the scan's own voxels.

Each endplate is a thin dense sheet before the marrow, blurred by what is known of the scanner. A sheet keeps its place
under blur where the half-maximum of its flank would move outwards with thicker slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.scan import Volume

#: Thickness of an endplate or a wall, mm: 0.5 to 1.5 in adults.
_SHEET_MM = 1.0
#: Blur of the scanner within its slices, standard deviation, mm.
_IN_PLANE_MM = 0.65
#: Half width of the sagittal slab that is averaged, and the part of the depth that is fitted, in half depths.
SLAB_MM = 6.0
DEPTHS = (-0.88, 0.82)
#: How far the fit reaches into the bodies, mm, and at most how many voxels it takes.
_INTO_BODY_MM = 5.5
_VOXELS = 3000
#: Usual depth of an endplate's dish and how much that varies, mm.
DISH_MM, _DISH_SPREAD_MM = 1.2, 0.7
# Neighbours resemble each other: marrow within about 40 HU, endplates within 80; an endplate is about 300 ± 200 HU
# denser than marrow. Functions: disc, marrow and endplate below, marrow and endplate above.
_ALIKE = np.array(
    [
        [0.0, 1.0 / 40.0, 0.0, -1.0 / 40.0, 0.0],
        [0.0, 0.0, 1.0 / 80.0, 0.0, -1.0 / 80.0],
        [0.0, 0.0, 1.0 / 200.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0 / 200.0],
    ]
)
_ALIKE_AIM = np.array([0.0, 0.0, 1.5, 1.5])
#: An endplate less certain than this at its edges is not measured, mm.
_UNCERTAIN_MM = 0.6
#: A fit that explains nearly as much and lies this far off leaves the endplate open.
_AS_GOOD, _ELSEWHERE_MM = 0.01, 1.2
#: What a dish that is one spread away from the usual costs, as a share of the variance.
_UNUSUAL = 0.003
#: On slices thinner than this one start finds the endplates; on slices thicker than that rivals count more, mm.
_THIN_MM, _THICK_MM = 1.75, 2.75
#: A disc thinner than this many slices cannot be told from its endplates; where slices are thin, the disc's blur within
#: them matters less, and healthy discs of the upper chest are 2 mm high.
_SLICES_PER_DISC, _THIN_SLICES_PER_DISC = 1.9, 1.3
#: Share of the variance that a fit must explain: real endplates are rough, and neighbours' osteophytes lie beside them.
_EXPLAINED, _THIN_EXPLAINED = 0.3, 0.25
#: Voxels of a disc that tell something of their own.
_INDEPENDENT = 300.0


#: Middle, and the directions up, back and left of a disc, LPS.
Frame = tuple["NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.float64]"]


def _voxels(
    volume: Volume, frame: Frame, theta: NDArray[np.float64], middle: float, half: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Voxels of a disc and its endplates: relative depth, height, HU; ``None`` where the scan does not hold them all.

    The scan's own voxels, not interpolated ones: between thick slices interpolation would make steps of a slope.
    """
    origin, up, back, left = frame
    x = np.array(DEPTHS)
    low, high = np.polyval(theta[:3], x) - _INTO_BODY_MM, np.polyval(theta[3:], x) + _INTO_BODY_MM
    corners = [
        origin + height * up + (middle + half * x[end]) * back + side * left
        for end in (0, 1)
        for height in (low[end], high[end])
        for side in (-SLAB_MM, SLAB_MM)
    ]
    index = volume.to_index(np.array(corners))
    first, last = np.floor(index.min(axis=0)).astype(int), np.ceil(index.max(axis=0)).astype(int)
    if (first < 0).any() or (last >= np.array(volume.shape)).any():
        return None
    grid = np.stack(np.meshgrid(*[np.arange(a, b + 1) for a, b in zip(first, last, strict=True)], indexing="ij"), -1)
    places = volume.to_patient_mm(grid.reshape(-1, 3).astype(np.float64)) - origin
    x, height = (places @ back - middle) / half, places @ up
    keep = (x > DEPTHS[0]) & (x < DEPTHS[1]) & (np.abs(places @ left) <= SLAB_MM)
    keep &= (height > np.polyval(theta[:3], x) - _INTO_BODY_MM) & (height < np.polyval(theta[3:], x) + _INTO_BODY_MM)
    chosen = np.flatnonzero(keep)
    if len(chosen) > _VOXELS:
        # evenly by place, so that the order in which the scan is stored does not matter
        by_place = np.lexsort(np.round(np.stack([places[chosen] @ left, x[chosen], height[chosen]]), 3))
        chosen = chosen[by_place[np.linspace(0, len(chosen) - 1, _VOXELS).astype(np.intp)]]
    hu = volume.hu[tuple(grid.reshape(-1, 3)[chosen].T)].astype(np.float64)
    return x[chosen], height[chosen], hu


def fit_disc(
    volume: Volume, frame: Frame, theta: NDArray[np.float64], size: tuple[float, float]
) -> NDArray[np.float64] | None:
    """Fit from several starts: in thick slices the first guess may lie a slice off, where a fit can get stuck."""
    voxels = _voxels(volume, frame, theta, *size)
    if voxels is None or len(voxels[0]) < 60:
        return None
    blur = blur_mm(volume, frame[1])
    first_apart = np.polyval(theta[3:], 0.0) - np.polyval(theta[:3], 0.0)
    thin = volume.spacing_mm[0] < _THIN_MM
    thinnest = (_THIN_SLICES_PER_DISC if thin else _SLICES_PER_DISC) * blur[0]
    if first_apart < thinnest - 1.5:
        return None
    limits = (_THIN_EXPLAINED if thin else _EXPLAINED, max(1.0, thinnest))
    offsets = ((0.0, 0.0),) if thin else ((0.0, 0.0), (-1.5, 0.0), (1.5, 0.0), (0.0, -1.5), (0.0, 1.5))
    found = []
    for below, above in offsets:
        fitted = _fit(voxels, blur, theta + np.array([0.0, 0.0, below, 0.0, 0.0, above]), limits)
        if fitted is not None:
            found.append(fitted)
    return _agreed(found, _AS_GOOD if volume.spacing_mm[0] < _THICK_MM else 4.0 * _AS_GOOD)


def _agreed(found: list[tuple[NDArray[np.float64], float]], as_good: float) -> NDArray[np.float64] | None:
    """Best of several fits; ``None`` where another explains the voxels as well and lies elsewhere."""
    if not found:
        return None
    best, share = max(found, key=lambda item: item[1])
    x = np.array([-0.9, 0.0, 0.9])
    for theta, other in found:
        apart = max(
            float(np.abs(np.polyval(theta[part], x) - np.polyval(best[part], x)).max())
            for part in (slice(0, 3), slice(3, 6))
        )
        if other > share - as_good and apart > _ELSEWHERE_MM:
            return None
    return best


def _fit(
    voxels: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    blur: tuple[float, float],
    theta: NDArray[np.float64],
    limits: tuple[float, float],
) -> tuple[NDArray[np.float64], float] | None:
    """Gauss-Newton fit of both endplates' parabolas, with the five densities solved for at every step.

    Parameters
    ----------
    voxels
        Relative depth, height and HU.
    blur
        See :func:`blur_mm`.
    theta
        Where to begin.
    limits
        The least share of the variance that must be explained, and the least height of the disc, mm.

    Returns
    -------
    theta, share
        The six coefficients, and the share of the variance that they explain; ``None`` where the fit is unsure.
    """
    x, height, hu = voxels
    usual = np.array([DISH_MM, -DISH_MM])
    powers = np.stack([x**2, x, np.ones_like(x)], axis=1)
    weight, noise = np.ones_like(hu), 20.0
    # what the model does not explain is no noise of single voxels: neighbours err alike
    correlated = np.sqrt(max(1.0, len(hu) / _INDEPENDENT))
    covariance = np.eye(6)
    share = 0.0
    for _ in range(12):
        parts = [sheet(powers @ theta[:3] - height, blur), sheet(height - powers @ theta[3:], blur)]
        design = np.stack([np.ones_like(x), parts[0][0], parts[0][1], parts[1][0], parts[1][1]], axis=1)
        weighted = design * (weight / noise)[:, None]
        densities = np.linalg.solve(
            weighted.T @ weighted + _ALIKE.T @ _ALIKE + 1e-12 * np.eye(5),
            weighted.T @ (hu * weight / noise) + _ALIKE.T @ _ALIKE_AIM,
        )
        residual = hu - design @ densities
        noise = max(1.4826 * float(np.median(np.abs(residual))), 4.0)
        weight = 1.0 / np.sqrt(np.maximum(1.0, np.abs(residual) / (2.0 * noise)))
        share = 1.0 - float(np.abs(residual).sum() / np.abs(hu - np.median(hu)).sum())
        slopes = np.hstack(
            [
                powers * (densities[1] * parts[0][2] + densities[2] * parts[0][3])[:, None],
                -powers * (densities[3] * parts[1][2] + densities[4] * parts[1][3])[:, None],
            ]
        )
        scale = weight / (noise * correlated)
        whole = np.hstack([slopes, design]) * scale[:, None]
        prior = np.zeros((2 + len(_ALIKE), whole.shape[1]))
        prior[0, 0] = prior[1, 3] = 1.0 / _DISH_SPREAD_MM
        prior[2:, 6:] = _ALIKE
        aims = np.concatenate(
            [
                residual * scale,
                (usual - theta[[0, 3]]) / _DISH_SPREAD_MM,
                _ALIKE_AIM - _ALIKE @ densities,
            ]
        )
        normal = np.vstack([whole, prior])
        covariance = np.linalg.pinv(normal.T @ normal)
        move = (covariance @ (normal.T @ aims))[:6]
        theta = theta + np.clip(move, -1.0, 1.0)
        if np.abs(move).max() < 0.02:
            break
    # of two fits that explain the voxels alike the one with usual dishes is the likelier
    share -= _UNUSUAL * float((((usual - theta[[0, 3]]) / _DISH_SPREAD_MM) ** 2).sum())
    edges = np.array([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    doubt = max(float(np.sqrt(np.einsum("ij,jk,ik->i", edges, c, edges).max())) for c in _blocks(covariance))
    apart = float((np.polyval(theta[3:], [-0.8, 0.0, 0.8]) - np.polyval(theta[:3], [-0.8, 0.0, 0.8])).min())
    return (theta, share) if share > limits[0] and doubt < _UNCERTAIN_MM and apart > limits[1] else None


def _blocks(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return covariance[:3, :3], covariance[3:6, 3:6]


def blur_mm(volume: Volume, direction: NDArray[np.float64]) -> tuple[float, float]:
    """Blur along a direction: the width of the slice's box, and the standard deviation of the scanner's own, mm."""
    normal = volume.affine[:3, 0] / volume.spacing_mm[0]
    return max(volume.spacing_mm[0] * abs(float(direction @ normal)), 0.1), _IN_PLANE_MM


def sheet(away: NDArray[np.float64], blur: tuple[float, float]) -> tuple[NDArray[np.float64], ...]:
    """Blurred step and blurred sheet of bone at a distance into it, and the derivatives of both."""
    from scipy.special import erf

    box, sigma = blur

    def smooth(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Normal distribution function and its integral."""
        z = x / sigma
        below = 0.5 * (1.0 + erf(z / np.sqrt(2.0)))
        return below, sigma * (z * below + np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi))

    def step(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        high, low = smooth(x + 0.5 * box), smooth(x - 0.5 * box)
        return (high[1] - low[1]) / box, (high[0] - low[0]) / box

    outer, inner = step(away), step(away - _SHEET_MM)
    return outer[0], outer[0] - inner[0], outer[1], outer[1] - inner[1]
