"""Short phantom scans of the heart, with plaques that keep their weight under noise."""

from __future__ import annotations

from functools import cache

from appliance.phantom import Calcification, PhantomOptions
from tests.screenings.patients import patient

LEFT_MAIN = Calcification("LM", 0.8, 350.0, 3.0, 6.0)
PLAQUES = (
    Calcification("LAD", 0.3, 450.0, 4.0, 6.0),
    Calcification("LCX", 0.3, 250.0, 3.5, 6.0),
    Calcification("RCA", 0.5, 165.0, 5.0, 12.0),
)


def heart(slice_mm: float = 1.5, plaques: tuple[Calcification, ...] = PLAQUES, **options: object) -> PhantomOptions:
    """A scan from below the heart to above the aorta's root, 250 mm wide."""
    chosen = {
        "slice_thickness_mm": slice_mm,
        "slice_spacing_mm": slice_mm,
        "pixel_spacing_mm": 0.7,
        "rows": 300,
        "columns": 360,
        "centre_posterior_mm": -10.0,
        "coverage_low_mm": -18.0,
        "coverage_high_mm": 140.0,
        "calcifications": plaques,
        **options,
    }
    return PhantomOptions(**chosen)  # type: ignore[arg-type]


@cache
def usual():
    """The scan that most tests share: 3 mm slices, four plaques."""
    return patient(heart(3.0, (LEFT_MAIN, *PLAQUES)))
