"""What lies around a bright spot tells what it is: small worlds of which every voxel is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from appliance.screenings.plaque_surroundings import surroundings

SPACING_MM = (1.0, 1.0, 1.0)
BLOOD = (40.0, 12.0)
SHAPE = (31, 31, 31)
MIDDLE = (15, 15, 15)


def away_mm() -> np.ndarray:
    """Distance of each voxel from the middle."""
    return np.sqrt(sum((axis - 15.0) ** 2 for axis in np.indices(SHAPE)))


def judged(hu: np.ndarray):
    """Blurred as a scanner would; the spot is what reaches 130 HU around the middle."""
    image = np.rint(ndimage.gaussian_filter(hu.astype(np.float64), 0.7)).astype(np.int16)
    parts, _ = ndimage.label(image >= 130)
    return surroundings(image, parts == parts[MIDDLE], SPACING_MM, BLOOD, 130)


def world(around_hu: float, peak_hu: float = 400.0) -> np.ndarray:
    hu = np.full(SHAPE, around_hu)
    hu[away_mm() <= 2.0] = peak_hu
    return hu


def test_an_artery_runs_in_fat():
    found = judged(world(-90.0))
    assert (found.in_fat, found.in_air, found.in_streak) == (True, False, False)


def test_an_artery_in_fat_just_below_the_lung_is_no_bronchus():
    hu = world(-90.0)
    hu[:, :, 19:] = -850.0
    found = judged(hu)
    assert (found.in_fat, found.in_air) == (True, False)


def test_a_calcified_node_lies_in_lung():
    assert judged(world(-850.0)).in_air


def test_a_valve_lies_in_blood():
    found = judged(world(40.0))
    assert (found.in_fat, found.in_air, found.in_streak) == (False, False, False)


def test_what_lung_half_fills_is_no_fat():
    hu = world(40.0)
    hu[:, :, 18:] = -850.0
    assert not judged(hu).in_fat


@pytest.mark.parametrize(("peak_hu", "streak"), [(160.0, True), (180.0, True), (600.0, False)])
def test_a_streak_fades_out_over_millimetres_and_is_not_dense(peak_hu, streak):
    hu = 40.0 + (peak_hu - 40.0) * np.exp(-away_mm() / 5.0) * 1.15
    hu[:, :, 22:] = -850.0
    assert judged(hu).in_streak is streak


def test_noise_that_hides_streaks_calls_nothing_one():
    hu = 40.0 + 160.0 * np.exp(-away_mm() / 5.0)
    image = np.rint(hu).astype(np.int16)
    assert not surroundings(image, image >= 130, SPACING_MM, (40.0, 25.0), 130).in_streak
