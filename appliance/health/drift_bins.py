"""The bins of the drift histograms: fixed, so that boxes can be compared with one another and with last year.

A value belongs to the bin above the last edge that it reaches; below the first edge lies one more bin. Edges of a name
are never moved: that would be :data:`BINS_VERSION` 2. They are also in ``docs/fleet.md``.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BINS_VERSION = 1


class InputName(StrEnum):
    """A property of the input that has a histogram."""

    SLICE_THICKNESS_MM = "slice_thickness_mm"
    KVP = "kvp"
    NOISE_HU = "noise_hu"
    AIR_HU = "air_hu"
    AGE_DECADE = "age_decade"
    TOTAL_S = "total_s"


INPUT_EDGES: dict[InputName, tuple[float, ...]] = {
    InputName.SLICE_THICKNESS_MM: (0.7, 1.0, 1.3, 2.0, 2.6, 3.1, 5.0, 5.1, 8.0),
    InputName.KVP: (75.0, 85.0, 95.0, 105.0, 115.0, 125.0, 135.0, 145.0),
    InputName.NOISE_HU: (5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0),
    InputName.AIR_HU: (-1020.0, -1010.0, -1000.0, -990.0, -980.0, -950.0),
    InputName.AGE_DECADE: (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0),
    InputName.TOTAL_S: (5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0),
}

_HEIGHT_MM = (10.0, 14.0, 18.0, 22.0, 26.0, 30.0, 34.0)
_EFFUSION_ML = (50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0)

MEASUREMENT_EDGES: dict[str, tuple[float, ...]] = {
    "laa950_percent": (0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0),
    "perc15_hu": (-990.0, -970.0, -950.0, -930.0, -910.0, -890.0, -870.0, -850.0),
    "lung_volume_ml": (1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 7000.0, 8000.0),
    "agatston_score": (1.0, 10.0, 100.0, 300.0, 400.0, 1000.0),
    "calcium_volume_mm3": (1.0, 10.0, 100.0, 300.0, 1000.0),
    "calcium_mass_mg": (1.0, 10.0, 50.0, 100.0, 300.0),
    "liver_mean_hu": (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0),
    "spleen_mean_hu": (20.0, 30.0, 40.0, 50.0, 60.0, 70.0),
    "liver_spleen_difference_hu": (-40.0, -20.0, -10.0, 0.0, 10.0, 20.0),
    "liver_spleen_ratio": (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4),
    "kidney_stone_count": (1.0, 2.0, 3.0, 5.0, 10.0),
    "kidney_stone_max_mm": (2.0, 4.0, 6.0, 10.0, 20.0),
    "kidney_stone_volume_mm3": (10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0),
    "kidney_stone_mean_hu": (200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0, 1500.0),
    "ascending_aorta_diameter_mm": (20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0),
    "descending_aorta_diameter_mm": (15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 50.0),
    "abdominal_aorta_diameter_mm": (10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 55.0),
    "pulmonary_trunk_diameter_mm": (20.0, 23.0, 26.0, 29.0, 32.0, 35.0, 40.0),
    "pa_to_aorta_ratio": (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2),
    "pleural_effusion_left_ml": _EFFUSION_ML,
    "pleural_effusion_right_ml": _EFFUSION_ML,
    "vertebra_trabecular_hu": (50.0, 80.0, 100.0, 120.0, 135.0, 160.0, 200.0, 250.0),
    "vertebral_height_loss_percent": (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0),
    "vertebra_anterior_height_mm": _HEIGHT_MM,
    "vertebra_middle_height_mm": _HEIGHT_MM,
    "vertebra_posterior_height_mm": _HEIGHT_MM,
    "skeletal_muscle_area_cm2": (60.0, 80.0, 100.0, 120.0, 140.0, 160.0, 180.0, 220.0),
    "skeletal_muscle_hu": (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    "skeletal_muscle_index": (20.0, 30.0, 35.0, 40.0, 45.0, 50.0, 60.0),
    "visceral_fat_area_cm2": (25.0, 50.0, 100.0, 150.0, 200.0, 300.0),
    "subcutaneous_fat_area_cm2": (50.0, 100.0, 150.0, 200.0, 300.0, 400.0),
    "intermuscular_fat_area_cm2": (5.0, 10.0, 15.0, 20.0, 30.0, 40.0),
}
"""Edges by measurement name; a measurement that is not here is not published."""


def count(values: Iterable[float], edges: tuple[float, ...]) -> tuple[int, ...]:
    """Return how many values fall into each bin: one more than there are edges."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_right(edges, value)] += 1
    return tuple(counts)
