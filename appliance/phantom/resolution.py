"""How sharply the digital scanner sees, so that what is chosen is also what a noise-free scan shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from appliance.phantom.grid import Floats, Grid

# Gaussian blur (mm) and unsharp amount of each kernel family, beyond the grid's own softness.
KERNEL_BLUR = {"soft": (0.45, 0.0), "medium": (0.0, 0.0), "sharp": (0.9, 0.7)}


def spread_mm(weights: Floats, places_mm: Floats, targets_mm: Floats) -> float:
    """Return the standard deviation of an interpolation's weights around their targets, mm, averaged over targets.

    Parameters
    ----------
    weights
        One row per target, one column per place; each row sums to one.
    places_mm, targets_mm
        Where the samples and the targets lie on the axis.
    """
    moment = (weights * (places_mm[None, :] - targets_mm[:, None]) ** 2).sum(axis=1)
    return float(np.sqrt(max(float(moment.mean()), 0.0)))


def softened(hu: Floats, grid: Grid, blur_mm: tuple[float, float]) -> Floats:
    """Return densities on ``grid`` as the scanner sees them before noise."""
    if max(blur_mm) == 0.0:
        return hu
    from scipy.ndimage import gaussian_filter

    sigma = tuple(b / s for b, s in zip((blur_mm[0], blur_mm[1], blur_mm[1]), grid.spacing_mm, strict=True))
    return np.asarray(gaussian_filter(hu, sigma, truncate=3.0), dtype=np.float32)
