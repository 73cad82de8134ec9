import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from appliance.inference.resample import (
    apply_weights,
    canonical_grid,
    nearest_axes,
    nearest_weights,
    spline_weights,
    to_canonical,
    triangle_weights,
)
from appliance.scan import Volume

CANONICAL = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)


def affine(spacing, origin=(0.0, 0.0, 0.0)):
    result = CANONICAL @ np.diag([*spacing, 1.0])
    result[:3, 3] = origin
    return result


def smooth_volume(shape, seed=0):
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    field = ndimage.gaussian_filter(noise, 4)
    return (field / np.abs(field).max() * 900).astype(np.int16)


@given(
    count=st.integers(1, 60),
    first=st.floats(-3, 3),
    step=st.floats(0.2, 5),
    out=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_weights_sum_to_one(count, first, step, out):
    weights = triangle_weights(count, first, step, out)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert (weights >= 0).all()


def test_interpolation_equals_scipy_when_the_grid_gets_finer():
    array = smooth_volume((12, 14, 16)).astype(np.float32)
    positions = [np.arange(20) * 0.5 + 0.7, np.arange(24) * 0.5 + 0.3, np.arange(20) * 0.7 + 0.1]
    weights = [triangle_weights(n, p[0], p[1] - p[0], len(p)) for n, p in zip(array.shape, positions, strict=True)]
    ours = apply_weights(array, weights)
    reference = ndimage.map_coordinates(array, np.meshgrid(*positions, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(ours, reference, atol=0.01)


def test_a_coarser_grid_equals_filtering_before_sampling():
    array = smooth_volume((30, 33, 36)).astype(np.float32)
    weights = [triangle_weights(n, 3.0, 3.0, 8) for n in array.shape]
    ours = apply_weights(array, weights)
    kernel = np.array([1, 2, 3, 2, 1]) / 9
    filtered = array
    for axis in range(3):
        filtered = ndimage.convolve1d(filtered, kernel, axis=axis)
    np.testing.assert_allclose(ours, filtered[3:25:3, 3:25:3, 3:25:3], atol=0.01)


def test_a_constant_stays_constant():
    volume = Volume(np.full((20, 30, 40), -733, np.int16), affine((1.25, 0.7, 0.7)))
    hu, _ = to_canonical(volume, (3.0, 3.0, 3.0))
    assert (hu == -733).all()


def test_the_grid_covers_the_volume_and_shares_its_centre():
    grid = canonical_grid((51, 64, 70), affine((1.25, 0.7, 0.9), (3, 4, 5)), (3.0, 3.0, 3.0))
    assert all(n * 3.0 >= size - 1e-6 for n, size in zip(grid.shape, (51 * 1.25, 64 * 0.7, 70 * 0.9), strict=True))
    middle = (np.array([*grid.shape, 3]) - 1) / 2
    middle[3] = 1
    centre = np.array([25.0, 31.5, 34.5, 1])
    np.testing.assert_allclose(grid.affine @ middle, affine((1.25, 0.7, 0.9), (3, 4, 5)) @ centre, atol=1e-6)


def test_a_linear_ramp_keeps_its_place_in_the_patient():
    shape, matrix = (40, 50, 60), affine((1.5, 0.8, 0.8), (-20, 10, -300))
    index = np.indices(shape).reshape(3, -1)
    position = matrix[:3, :3] @ index + matrix[:3, 3:]
    ramp = (position[0] * 3 + position[1] * 5 + (position[2] + 270) * 7).reshape(shape)
    hu, grid = to_canonical(Volume(np.rint(ramp).astype(np.int16), matrix), (3.0, 3.0, 3.0))
    inner = (slice(2, -2),) * 3
    places = np.indices(hu.shape)[(slice(None), *inner)].reshape(3, -1)
    at = grid.affine[:3, :3] @ places + grid.affine[:3, 3:]
    np.testing.assert_allclose(hu[inner].ravel(), at[0] * 3 + at[1] * 5 + (at[2] + 270) * 7, atol=1.5)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (True, True, True)])
def test_any_axis_order_and_flip_gives_the_same_canonical_volume(order, flips):
    array, matrix = smooth_volume((20, 24, 28)), affine((2.0, 1.5, 1.25), (7, -9, 11))
    expected, expected_grid = to_canonical(Volume(array.copy(), matrix.copy()), (3.0, 3.0, 3.0))
    turned, columns, origin = array, matrix.copy(), matrix[:3, 3].copy()
    for axis, flip in enumerate(flips):
        if flip:
            turned = np.flip(turned, axis)
            origin = origin + columns[:3, axis] * (array.shape[axis] - 1)
            columns[:3, axis] *= -1
    turned = np.ascontiguousarray(turned.transpose(order))
    columns[:3, :3] = columns[:3, list(order)]
    columns[:3, 3] = origin
    found, grid = to_canonical(Volume(turned, columns), (3.0, 3.0, 3.0))
    np.testing.assert_allclose(grid.affine, expected_grid.affine, atol=1e-9)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_oblique_axes_go_to_the_nearest_anatomical_ones():
    angle = np.deg2rad(25)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = affine((1.0, 1.0, 1.0))
    matrix[:3, :3] = turn @ matrix[:3, :3]
    assert nearest_axes(matrix) == ((0, 1, 2), (False, False, False))


def test_full_resolution_is_never_held_in_float():
    import tracemalloc

    volume = Volume(np.zeros((120, 256, 256), np.int16), affine((1.0, 0.8, 0.8)))
    tracemalloc.start()
    to_canonical(volume, (3.0, 3.0, 3.0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < volume.hu.size * 4 * 0.6


@pytest.mark.parametrize("method", ["area", "nnunet"])
def test_not_even_a_grid_as_fine_as_the_scan_is_held_in_float(method):
    import tracemalloc

    volume = Volume(np.zeros((600, 96, 96), np.int16), affine((1.0, 0.8, 0.8)))
    tracemalloc.start()
    hu, _ = to_canonical(volume, (0.9, 0.8, 0.8), method=method)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - hu.nbytes < volume.hu.size * 4 * 0.6


@given(count=st.integers(1, 70), out=st.integers(1, 90), method=st.sampled_from(["spline", "nearest", "triangle"]))
@settings(max_examples=40, deadline=None)
def test_slab_by_slab_equals_the_whole_product(count, out, method):
    array = np.random.default_rng(count).normal(0, 300, (count, 3, 4)).astype(np.float32)
    along = {
        "spline": lambda: spline_weights(count, out),
        "nearest": lambda: nearest_weights(count, out),
        "triangle": lambda: triangle_weights(count, 0.5 * (count - 1) / max(out, 1), count / out, out),
    }[method]()
    weights = [along, np.eye(3, dtype=np.float32), np.eye(4, dtype=np.float32)]
    np.testing.assert_allclose(apply_weights(array, weights), np.tensordot(along, array, 1), atol=0.01)
