"""What a network trained by nnU-Net needs around it: its windows, its mirrorings, its grid and its spline."""

import numpy as np
import pytest
from scipy import ndimage

from appliance.inference.resample import canonical_grid, nearest_weights, spline_weights, thick_axis, to_canonical
from appliance.inference.tiling import gaussian_window, label_tiles, mirrorings
from appliance.packs.manifest import NetworkInput
from appliance.scan import Volume


def test_the_gaussian_window_peaks_at_nnunets_middle_and_is_never_zero():
    weights = gaussian_window((16, 24, 33))
    assert np.unravel_index(weights.argmax(), weights.shape) == (8, 12, 16)
    assert weights.max() == 1
    assert weights.min() > 0


def test_the_gaussian_window_is_a_filtered_impulse():
    impulse = np.zeros((16, 24, 32))
    impulse[8, 12, 16] = 1
    expected = ndimage.gaussian_filter(impulse, [2, 3, 4], mode="constant")
    assert np.allclose(gaussian_window((16, 24, 32)), expected / expected.max(), atol=1e-3)


def lopsided(tile):
    """Answers that depend on where in the tile a voxel lies, as a real network's do."""
    place = np.linspace(0, 1, tile.shape[2], dtype=np.float32)
    return np.stack([tile.astype(np.float32) * place, tile.astype(np.float32) * (0.9 - place)])


def test_mirroring_makes_an_answer_symmetric():
    tile = np.random.default_rng(3).integers(-50, 50, (4, 5, 6)).astype(np.int16)
    options = {"patch": (4, 5, 6), "overlap": 0.5, "fill_hu": 0, "mirror_axes": (0, 2)}
    turned = label_tiles(np.ascontiguousarray(tile[:, :, ::-1]), lopsided, **options)
    assert np.array_equal(label_tiles(tile, lopsided, **options), turned[..., ::-1])


def test_each_mirrored_axis_doubles_the_answers():
    assert mirrorings(()) == [()]
    assert mirrorings((0, 2)) == [(), (0,), (2,), (0, 2)]


def test_gaussian_tiles_label_a_voxelwise_network_exactly():
    hu = np.random.default_rng(2).integers(-1000, 1000, (37, 41, 50)).astype(np.int16)

    def run(tile):
        return np.stack([-tile.astype(np.float32), tile.astype(np.float32)])

    found = label_tiles(hu, run, patch=(16, 24, 32), overlap=0.5, fill_hu=0, weighting="gaussian", mirror_axes=(1,))
    assert np.array_equal(found == 1, hu > 0)


@pytest.mark.parametrize(("before", "after"), [(40, 27), (27, 40), (33, 33), (100, 31)])
def test_spline_weights_are_a_cubic_zoom(before, after):
    line = np.random.default_rng(4).normal(0, 300, before)
    expected = ndimage.zoom(line, after / before, order=3, mode="nearest", grid_mode=True)
    assert np.allclose(spline_weights(before, after) @ line, expected, atol=0.01)


def test_nearest_weights_pick_one_sample_each():
    weights = nearest_weights(5, 13)
    assert np.array_equal(weights.sum(axis=1), np.ones(13))
    centres = (np.arange(13) + 0.5) * 5 / 13 - 0.5
    expected = ndimage.map_coordinates(np.arange(5.0), [centres], order=0, mode="nearest")
    assert np.array_equal(weights @ np.arange(5), expected)


@pytest.mark.parametrize(
    ("spacing", "new", "axis"),
    [
        ((5, 0.7, 0.7), (1, 1, 1), 0),
        ((1, 1, 1), (1, 1, 4), 2),
        ((3, 1, 1), (1, 1, 1), None),
        ((4, 4, 1), (1, 1, 1), None),
    ],
)
def test_thick_axis(spacing, new, axis):
    assert thick_axis(spacing, new) == axis


def test_a_fitted_grid_fills_the_volume_exactly():
    affine = np.diag([1.25, 0.7, 0.7, 1.0])[[2, 1, 0, 3]]
    grid = canonical_grid((50, 64, 70), affine, (3.0, 3.0, 3.0), fitted=True)
    assert grid.shape == (21, 15, 16)
    assert np.allclose(np.array(grid.shape) * np.linalg.norm(grid.affine[:3, :3], axis=0), [62.5, 44.8, 49.0])


def test_clipping_comes_before_the_spline():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]]
    hu = np.zeros((30, 30, 30), np.int16)
    hu[15:] = 3000
    found, _ = to_canonical(Volume(hu, affine), (3.0, 3.0, 3.0), method="nnunet", clip_hu=(-100.0, 200.0))
    assert found.min() >= -100
    assert found.max() == 200


def wanted(**changes):
    return NetworkInput(
        **{
            "orientation": "head-back-left",
            "spacing_mm": (3, 3, 3),
            "patch": (8, 8, 8),
            "overlap": 0.5,
            "fill_hu": -1024,
            **changes,
        }
    )


def test_orientation_is_read_as_axes():
    assert wanted().axes == ((0, 1, 2), (False, False, False))
    assert wanted(orientation="right-head-front").axes == ((2, 0, 1), (True, False, True))


@pytest.mark.parametrize("orientation", ["head-feet-left", "head-back", "up-back-left"])
def test_an_orientation_without_three_axes_is_refused(orientation):
    with pytest.raises(ValueError, match="does not name three axes"):
        wanted(orientation=orientation)
