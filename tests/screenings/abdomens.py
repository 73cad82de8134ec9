"""Phantom scans of the abdomen, shared by the screenings of liver and kidneys; rendered once per test run."""

from __future__ import annotations

from functools import cache

from appliance.phantom import PhantomOptions
from tests.screenings.patients import patient


def abdomen(slice_mm: float = 3.0, **options: object) -> PhantomOptions:
    """A scan from the dome of the liver to below the kidneys."""
    chosen = {
        "slice_thickness_mm": slice_mm,
        "slice_spacing_mm": slice_mm,
        "pixel_spacing_mm": 0.9,
        "rows": 280,
        "columns": 400,
        "coverage_low_mm": -178.0,
        "coverage_high_mm": 38.0,
        **options,
    }
    return PhantomOptions(**chosen)  # type: ignore[arg-type]


#: Slices, pixels, kernels, noise, orientation, organs' sizes and densities, each with a stone that the slices can show.
GRID = {
    "1.5 mm, medium kernel, noisy": abdomen(
        1.5,
        liver_hu=5.0,
        kernel="medium",
        noise_hu=25.0,
        pixel_spacing_mm=0.8,
        rows=320,
        columns=450,
        kidney_stone_diameter_mm=8.0,
        kidney_stone_hu=400.0,
        kidney_stone_side="right",
    ),
    "2.5 mm, oblique": abdomen(
        2.5,
        oblique_degrees=8.0,
        liver_hu=45.0,
        kidney_stone_diameter_mm=7.0,
        kidney_stone_hu=1000.0,
        coverage_low_mm=-205.0,
        coverage_high_mm=65.0,
    ),
    "3 mm, feet first, small organs": abdomen(
        3.0, patient_position="FFS", liver_hu=72.0, liver_scale=0.85, spleen_scale=0.8, kidney_stone_diameter_mm=10.0
    ),
    "5 mm, low dose": abdomen(5.0, liver_hu=25.0, spleen_hu=52.0, noise_hu=30.0, kidney_stone_diameter_mm=12.0),
}


@cache
def rendered(name: str):
    """One scan of the grid with its true organ map and its truth."""
    return patient(GRID[name])


@cache
def healthy():
    """No stone, no fat; 3 mm slices."""
    return patient(abdomen(3.0))


@cache
def stony():
    """A stone of 8 mm on the left and a fatty liver; 2 mm slices."""
    return patient(abdomen(2.0, liver_hu=30.0, kidney_stone_diameter_mm=8.0))
