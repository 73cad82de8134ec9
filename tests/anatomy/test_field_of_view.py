"""Scanners fill what lies outside their round field of view; an organ may run into that filling."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.field_of_view import filled_edge_cm2, filling
from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.phantom import PhantomOptions, label_map, render


def anatomy(**options) -> Anatomy:
    chosen = PhantomOptions(
        slice_thickness_mm=5.0,
        slice_spacing_mm=5.0,
        coverage_low_mm=40.0,
        coverage_high_mm=160.0,
        **{"rows": 128, "columns": 128, "pixel_spacing_mm": 3.0, **options},
    )
    volume, _ = render(chosen)
    _, labels, affine, values = label_map(chosen, 3.0)
    return Anatomy(volume, OrganMap(labels, affine, values, PackUse("truth", "0", "sha256:0", "f32", "CPU", "none")))


def test_a_picture_that_is_not_filled_has_no_filling():
    assert not filling(anatomy()).any()


@pytest.mark.parametrize("padding_hu", [-1024, -2000])
def test_filling_lies_outside_the_circle(padding_hu):
    found = filling(anatomy(circular_padding_hu=padding_hu, unsigned_pixels=False))
    assert 0.15 < found.mean() < 0.26  # 1 − π/4 of a square
    middle = found.shape[1] // 2
    assert not found[:, middle, middle].any()


def test_lungs_inside_the_circle_are_not_cut():
    whole = anatomy(circular_padding_hu=-1024, columns=160, rows=160)
    assert filled_edge_cm2(whole, "lung_left", "lung_right") == 0.0


def test_lungs_that_run_out_of_the_circle_are_cut():
    narrow = anatomy(circular_padding_hu=-1024, rows=128, columns=128, pixel_spacing_mm=1.8)
    labels = narrow.organs.mask("lung_left", "lung_right")
    # inside the square the picture's edge is not reached by them everywhere that the circle cuts them
    assert labels.any()
    assert filled_edge_cm2(narrow, "lung_left", "lung_right") > 20.0


def test_air_that_flickers_is_a_picture():
    scan = anatomy()
    hu = scan.volume.hu.copy()
    hu[:, :, :] = np.random.default_rng(3).integers(-1010, -990, hu.shape)
    assert not filling(Anatomy(type(scan.volume)(hu, scan.volume.affine), scan.organs)).any()
