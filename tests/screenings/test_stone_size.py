"""The size of small dense balls and rods, blurred and sampled as a scanner does it, at any place between the voxels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from appliance.screenings.stone_size import stone_size

_FINE_MM = 0.2


def scanned(diameter_mm, slice_mm, pixel_mm, *, height_hu=700, phase=(0.0, 0.0, 0.0), stretch=(1.0, 1.0, 1.0)):
    """An ellipsoid in tissue of 30 HU: box of the slice, Gaussian of 0.6 mm in plane, noise of 12 HU."""
    reach = 0.5 * diameter_mm * max(stretch) + 2.5 * max(slice_mm, 3.0)
    count = 2 * int(reach / _FINE_MM) + 1
    place = (np.arange(count) - count // 2) * _FINE_MM
    axes = [(place - shift) / along for shift, along in zip(phase, stretch, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    filled = np.clip(0.5 - (np.sqrt(z * z + y * y + x * x) - 0.5 * diameter_mm) / _FINE_MM, 0.0, 1.0)
    image = 30.0 + filled.astype(np.float32) * (height_hu - 30.0)
    image = ndimage.gaussian_filter(image, (0.0, 0.6 / _FINE_MM, 0.6 / _FINE_MM))
    image = ndimage.uniform_filter1d(image, round(slice_mm / _FINE_MM) | 1, axis=0)
    samples = [np.arange(-int(reach / step) + 1, int(reach / step)) * step for step in (slice_mm, pixel_mm, pixel_mm)]
    at = np.meshgrid(*[part / _FINE_MM + count // 2 for part in samples], indexing="ij")
    seen = ndimage.map_coordinates(image, at, order=1)
    seen += np.random.default_rng(1).normal(0.0, 12.0, seen.shape)
    return np.rint(seen).astype(np.int16)


def measured(diameter_mm, slice_mm, pixel_mm, **how):
    hu = scanned(diameter_mm, slice_mm, pixel_mm, **how)
    parts, _ = ndimage.label(hu >= 130, np.ones((3, 3, 3)))
    found = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    spacing_mm = (slice_mm, pixel_mm, pixel_mm)
    return stone_size(hu, found, (parts > 0) & ~found, spacing_mm, slice_mm)


BALLS = [(5, 1.0, 0.8, 700), (5, 1.5, 0.8, 1000), (8, 1.5, 0.8, 400), (8, 3.0, 0.7, 700), (10, 5.0, 0.8, 700)]


@pytest.mark.parametrize("phase", [(0.0, 0.0, 0.0), (0.5, 0.3, -0.2), (0.25, -0.4, 0.4)])
@pytest.mark.parametrize(("diameter_mm", "slice_mm", "pixel_mm", "height_hu"), BALLS)
def test_a_ball(diameter_mm, slice_mm, pixel_mm, height_hu, phase):
    shift = tuple(part * step for part, step in zip(phase, (slice_mm, pixel_mm, pixel_mm), strict=True))
    size = measured(diameter_mm, slice_mm, pixel_mm, height_hu=height_hu, phase=shift)
    assert size.diameter_mm == pytest.approx(diameter_mm, abs=1.0)
    assert size.volume_mm3 == pytest.approx(np.pi * diameter_mm**3 / 6.0, rel=0.10)


@pytest.mark.parametrize("stretch", [(2.0, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.0, 2.0)])
def test_a_long_stone_is_measured_along_itself(stretch):
    size = measured(6.0, 1.5, 0.7, stretch=stretch)
    assert size.diameter_mm == pytest.approx(12.0, abs=1.0)
    assert size.volume_mm3 == pytest.approx(2.0 * np.pi * 6.0**3 / 6.0, rel=0.10)


def test_a_stone_of_three_millimetres():
    assert measured(3.0, 0.6, 0.7).diameter_mm == pytest.approx(3.0, abs=0.5)


def test_a_stone_thinner_than_a_slice_is_taken_for_a_ball():
    size = measured(6.0, 5.0, 0.8, phase=(1.5, 0.0, 0.0))
    assert size.diameter_mm == pytest.approx(6.0, abs=1.0)
    assert size.volume_mm3 == pytest.approx(np.pi * 36.0, rel=0.25)


def test_the_mask_is_what_was_found_and_dense():
    hu = scanned(8.0, 2.0, 0.8)
    found = hu >= 130
    mask = stone_size(hu, found, np.zeros_like(found), (2.0, 0.8, 0.8), 2.0).mask
    assert mask.any()
    assert (found | ~mask).all()
    assert hu[mask].min() > 300
