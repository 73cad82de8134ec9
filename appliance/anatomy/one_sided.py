"""What stands out to one side of a round vessel is a neighbour: the far side of one that an organ map took in.

The oesophagus above the diaphragm, a crus at the hiatus and the azygos vein touch the aorta, and on a plain scan look
like it. A map that takes one in leads the search for a border to its far side, where fat ends it as clearly as it ends
the aorta. The rest of the border still lies on a circle, which tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What lies this far outside the circle stands out, mm: several times the error of one ray.
_OUT_MM = 1.5
#: A ray beside one that stands out sees the corner between vessel and neighbour.
_BESIDE_RAYS = 2
#: More than this share of the border is no neighbour but the vessel's own shape; so much must lie on the circle.
_MOST_SHARE, _LEAST_REST = 1.0 / 3.0, 0.5
#: How far the rest of the border lies from the circle where it is one, root of the mean square, mm.
_ROUND_MM = 0.6
#: An oval stands out to two opposite sides. A ray is met by its opposite that stands out by this, mm; by this share of
#: them the section is an oval.
_OPPOSITE_MM, _OVAL_SHARE = 0.75, 0.4
#: Residuals that count half in the circle: outside it, where neighbours lie, and inside, mm.
_OUTSIDE_MM, _INSIDE_MM = 0.5, 1.0


def standing_out(border_mm: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which rays end at the far side of a neighbour.

    Parameters
    ----------
    border_mm
        ``(n, rays)``: distance from a plane's middle to the border along evenly spaced rays; any value where not seen.
    seen
        Boolean, ``(n, rays)``: where a border was seen.

    Returns
    -------
    ndarray
        Boolean, ``(n, rays)``; nothing in planes whose border is oval, or no circle.
    """
    radii = np.where(seen, border_mm, 0.0)
    residual = _from_circle(radii, seen)
    out = seen & (residual > _OUT_MM)
    beside = out.copy()
    for turn in range(1, _BESIDE_RAYS + 1):
        beside |= np.roll(out, turn, axis=1) | np.roll(out, -turn, axis=1)
    beside &= seen
    rest = seen & ~beside
    count = np.maximum(rest.sum(axis=1), 1)
    spread_mm = np.sqrt(np.where(rest, residual**2, 0.0).sum(axis=1) / count)
    opposite = np.roll(seen & (residual > _OPPOSITE_MM), border_mm.shape[1] // 2, axis=1)
    oval = (out & opposite).sum(axis=1) > _OVAL_SHARE * out.sum(axis=1)
    told = (out.mean(axis=1) <= _MOST_SHARE) & (rest.mean(axis=1) >= _LEAST_REST) & (spread_mm <= _ROUND_MM) & ~oval
    found: NDArray[np.bool_] = beside & told[:, None]
    return found


def _from_circle(radii_mm: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far each ray ends outside a circle that what stands out does not draw to itself."""
    angle = np.arange(radii_mm.shape[1]) * (2.0 * np.pi / radii_mm.shape[1])
    basis = np.column_stack([np.ones_like(angle), np.cos(angle), np.sin(angle)])
    weights = seen.astype(np.float64)
    current = weights
    residual = np.zeros_like(radii_mm)
    for _ in range(15):
        normal = np.einsum("nr,ri,rj->nij", current, basis, basis) + 1e-6 * np.eye(3)
        target = np.einsum("nr,ri,nr->ni", current, basis, radii_mm)
        circle = np.linalg.solve(normal, target[:, :, None])[:, :, 0]
        residual = radii_mm - circle @ basis.T
        scale = np.where(residual > 0.0, _OUTSIDE_MM, _INSIDE_MM)
        current = weights / (1.0 + (residual / scale) ** 2)
    return residual
