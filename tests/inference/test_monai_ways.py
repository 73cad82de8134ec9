"""MONAI's grid, tiles and windows, held against what its documentation says of them, without MONAI."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.inference.corner_grid import corner_grid, linear_weights, to_corner_grid
from appliance.inference.tiling import label_tiles
from appliance.inference.windows import centred_gaussian_window, constant_window, stepped_starts
from appliance.scan import Volume

HEAD_BACK_LEFT = np.array([[0, 0, 2.0, -10], [0, 3.0, 0, 20], [4.0, 0, 0, 5], [0, 0, 0, 1]])


@given(st.integers(1, 400), st.integers(1, 128), st.floats(0, 0.9))
def test_steps_cover_the_axis(length, tile, overlap):
    starts = stepped_starts(length, tile, overlap)
    assert starts == sorted(set(starts))
    assert starts[0] <= 0
    assert starts[-1] + tile >= length
    assert all(b - a <= max(1, int(tile * (1 - overlap))) for a, b in pairwise(starts))
    assert length <= tile or (starts[0] == 0 and starts[-1] + tile == length)


def test_the_last_step_is_drawn_back():
    assert stepped_starts(100, 40, 0.25) == [0, 30, 60]
    assert stepped_starts(105, 40, 0.25) == [0, 30, 60, 65]
    assert stepped_starts(30, 41, 0.5) == [-5]


def test_the_gaussian_is_even_and_never_below_a_thousandth():
    found = centred_gaussian_window((8, 9, 10))
    assert np.allclose(found, found[::-1, ::-1, ::-1])
    assert found.min() >= np.float32(1e-3)
    assert np.all(constant_window((2, 3, 4)) == 1)


@pytest.mark.parametrize("weighting", ["constant", "gaussian-centred"])
def test_labels_of_a_network_that_copies_are_the_scan(weighting):
    hu = np.random.default_rng(1).integers(0, 2, (21, 17, 30)).astype(np.int16)

    def run(tile):
        return np.stack([1.0 - tile, tile]).astype(np.float32)

    found = label_tiles(hu, run, patch=(8, 9, 16), overlap=0.3, fill_hu=0, weighting=weighting, tiling="stepped")
    assert np.array_equal(found, hu)


def test_the_grid_begins_at_the_first_voxel_along_the_networks_axes():
    forward = corner_grid((10, 11, 12), HEAD_BACK_LEFT, (4.0, 4.0, 5.0), (False, False, False))
    assert forward.shape == (10, 8, 5)
    assert np.allclose(forward.affine[:3, 3], [-10, 20, 5])
    ras = corner_grid((10, 11, 12), HEAD_BACK_LEFT, (4.0, 4.0, 5.0), (False, True, True))
    last = ras.affine @ [0, 7, 4, 1]
    assert np.allclose(last[:3], [-10 + 2 * 11, 20 + 3 * 10, 5])


def test_the_same_spacing_changes_nothing():
    hu = np.random.default_rng(2).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    found, grid = to_corner_grid(Volume(hu, HEAD_BACK_LEFT), (4.0, 3.0005, 2.0), (False, True, True))
    assert np.array_equal(found, hu)
    assert np.allclose(grid.affine, HEAD_BACK_LEFT)


@given(st.integers(1, 40), st.floats(-1, 3), st.floats(0.2, 4), st.integers(1, 40))
def test_weights_sum_to_one(count_in, first, step, count_out):
    assert np.allclose(linear_weights(count_in, first, step, count_out).sum(axis=1), 1, atol=1e-5)


def test_a_ramp_stays_a_ramp():
    found = linear_weights(20, 0.0, 1.7, 11) @ np.arange(20, dtype=np.float32)
    assert np.allclose(found, np.arange(11) * 1.7, atol=1e-5)
