"""The designed grid of lumbar spines on which the screenings of vertebrae and body composition are judged."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from appliance.anatomy.derived import Anatomy
from appliance.phantom import PhantomOptions, WedgeFracture
from tests.screenings.patients import patient

#: From the lower part of L4 to the lower lobes: T12 to L3 whole, with ribs, kidneys and lung bases to count by.
BASE = PhantomOptions(
    coverage_low_mm=-200.0,
    coverage_high_mm=-5.0,
    rows=384,
    columns=448,
    slice_thickness_mm=1.5,
    slice_spacing_mm=1.5,
    wedge_fracture=WedgeFracture("L2", 30.0),
    trabecular_hu_by_vertebra=(("T12", 150.0), ("L1", 120.0), ("L3", 95.0)),
)
_SOUND = replace(BASE, wedge_fracture=None)
GRID = {
    "base": BASE,
    "2.0 mm, osteoporotic": replace(
        _SOUND, slice_thickness_mm=2.0, slice_spacing_mm=2.0, trabecular_hu=60.0, trabecular_hu_by_vertebra=(), seed=2
    ),
    "3.0 mm": replace(_SOUND, slice_thickness_mm=3.0, slice_spacing_mm=3.0, seed=3),
    "noise 30, medium kernel": replace(
        BASE, noise_hu=30.0, kernel="medium", wedge_fracture=WedgeFracture("T12", 25.0), seed=5
    ),
    "oblique": replace(
        BASE,
        oblique_degrees=10.0,
        coverage_low_mm=-225.0,
        coverage_high_mm=25.0,
        wedge_fracture=WedgeFracture("L2", 40.0),
    ),
    "small, dense bone": replace(
        BASE,
        patient_height_m=1.52,
        width_scale=0.88,
        depth_scale=0.9,
        subcutaneous_fat_mm=8.0,
        trabecular_hu=230.0,
        trabecular_hu_by_vertebra=(),
        sex="F",
        wedge_fracture=WedgeFracture("L1", 50.0),
        seed=6,
    ),
    "large": replace(
        _SOUND,
        patient_height_m=1.9,
        width_scale=1.15,
        depth_scale=1.15,
        subcutaneous_fat_mm=34.0,
        pixel_spacing_mm=1.0,
        columns=500,
        seed=7,
    ),
}


@cache
def spine_patient(name: str):
    """A scan of the grid, its anatomy with the true organ map, and the truth."""
    scan, organs, truth = patient(GRID[name])
    return scan, Anatomy(scan.volume, organs), truth
