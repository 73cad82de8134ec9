import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from appliance.inference.tiling import label_tiles, tile_starts, window


@given(length=st.integers(1, 400), tile=st.integers(8, 160), overlap=st.floats(0, 0.6))
@settings(max_examples=100, deadline=None)
def test_tiles_cover_and_overlap(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    covered = np.zeros(length, int)
    for start in starts:
        covered[max(0, start) : start + tile] += 1
    assert covered.min() >= 1
    steps = np.diff(starts)
    assert (steps <= np.ceil(tile * (1 - overlap))).all()


def test_the_window_is_never_zero():
    assert window((8, 12, 16)).min() > 0


def blurred(hu):
    """A stand-in network with a receptive field of 13 voxels: logits from a blurred image."""
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 2, truncate=3, mode="nearest")
    return np.stack([-smooth, smooth, 2 * smooth - 300])


@pytest.mark.parametrize("shape", [(50, 40, 60), (20, 90, 33), (33, 33, 33)])
def test_tiles_equal_the_whole(shape):
    rng = np.random.default_rng(1)
    hu = ndimage.gaussian_filter(rng.normal(0, 9000, shape), 3).astype(np.int16)
    padded = np.pad(hu, 10, constant_values=-1024)
    whole = blurred(padded).argmax(axis=0)[10:-10, 10:-10, 10:-10]
    tiled = label_tiles(hu, blurred, patch=(32, 32, 32), overlap=0.5, fill_hu=-1024)
    inner = (slice(6, -6),) * 3
    assert (tiled[inner] == whole[inner]).mean() > 0.995


def test_a_voxelwise_network_is_tiled_exactly():
    hu = np.random.default_rng(2).integers(-1000, 1000, (37, 41, 70)).astype(np.int16)

    def run(tile):
        return np.stack([-tile.astype(np.float32), tile.astype(np.float32)])

    tiled = label_tiles(hu, run, patch=(16, 24, 32), overlap=0.25, fill_hu=-1024)
    assert np.array_equal(tiled == 1, hu > 0)


def test_progress_reaches_its_end():
    seen = []
    label_tiles(
        np.zeros((20, 20, 20), np.int16),
        lambda tile: np.zeros((2, *tile.shape), np.float32),
        patch=(16, 16, 16),
        overlap=0.25,
        fill_hu=-1024,
        on_tile=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (8, 8)
    assert len(seen) == 8
