"""Labels made tile by tile equal those of the plain way, which holds every sum of the whole volume."""

import json
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import InferenceError
from appliance.inference.sums import Axis, most_held, tile_order
from appliance.inference.tiling import gaussian_window, label_tiles, mirrorings, reflected, tile_starts, window


def plain(hu, run, *, patch, overlap, fill_hu, weighting="ramp", mirror_axes=()):
    """Sum every answer over the whole padded volume, then take the largest; also by how much it is the largest."""
    starts = [tile_starts(length, size, overlap) for length, size in zip(hu.shape, patch, strict=True)]
    margin = max(patch)
    padded = np.pad(hu, margin, constant_values=fill_hu)
    weights = (gaussian_window if weighting == "gaussian" else window)(patch).astype(np.float64)
    total = norm = None
    for start in product(*starts):
        place = tuple(slice(margin + s, margin + s + p) for s, p in zip(start, patch, strict=True))
        for flip in mirrorings(mirror_axes):
            answer = np.flip(run(np.ascontiguousarray(np.flip(padded[place], flip))), [axis + 1 for axis in flip])
            if total is None:
                total, norm = np.zeros((len(answer), *padded.shape)), np.zeros(padded.shape)
            total[(slice(None), *place)] += answer * weights
            norm[place] += weights
    inner = (slice(margin, -margin),) * 3
    mean = total[(slice(None), *inner)] / norm[inner]
    ordered = np.sort(mean, axis=0)
    return mean.argmax(axis=0), ordered[-1] - ordered[-2]


def network(channels, seed=0):
    """Answers that depend on the voxel, on its place in the tile, and on its neighbours."""
    rng = np.random.default_rng(seed)
    slopes, offsets = rng.normal(0, 1, channels), rng.normal(0, 1, channels)

    def run(tile):
        values = tile.astype(np.float32) / 1000
        values = values + 0.3 * np.roll(values, 1, axis=2)
        place = np.indices(tile.shape).sum(axis=0) / sum(tile.shape)
        return np.stack([a * values + b * place for a, b in zip(slopes, offsets, strict=True)]).astype(np.float32)

    return run


@given(
    shape=st.tuples(*[st.integers(1, 24)] * 3),
    patch=st.tuples(*[st.integers(2, 10)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    weighting=st.sampled_from(["ramp", "gaussian"]),
    mirror_axes=st.sampled_from([(), (1,), (0, 2)]),
)
@settings(max_examples=40, deadline=None)
def test_every_cut_of_a_volume_gives_the_plain_labels(shape, patch, overlap, weighting, mirror_axes):
    hu = np.random.default_rng(sum(shape)).integers(-1000, 1000, shape).astype(np.int16)
    options = {"overlap": overlap, "weighting": weighting, "mirror_axes": mirror_axes, "fill_hu": -1024, "patch": patch}
    expected, lead = plain(hu, network(4), **options)
    found = label_tiles(hu, network(4), **options)
    assert np.array_equal(found[lead > 1e-5], expected[lead > 1e-5])


def test_answers_in_bf16_give_the_labels_of_their_numbers():
    hu = np.random.default_rng(3).integers(-1000, 1000, (30, 40, 50)).astype(np.int16)
    options = {"patch": (16, 24, 32), "overlap": 0.5, "fill_hu": -1024}

    def bits(tile):
        return (network(6)(tile).view(np.uint32) >> 16).astype(np.uint16)

    def cut_off(tile):
        return (network(6)(tile).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)

    expected, lead = plain(hu, cut_off, **options)
    found = label_tiles(hu, bits, **options)
    assert np.array_equal(found[lead > 0.005], expected[lead > 0.005])
    assert (found == expected).mean() > 0.995


@pytest.mark.parametrize("weighting", ["ramp", "gaussian"])
def test_half_precision_differs_only_where_two_classes_are_as_good_as_equal(weighting):
    hu = np.random.default_rng(3).integers(-1000, 1000, (30, 40, 50)).astype(np.int16)
    options = {"patch": (16, 24, 32), "overlap": 0.5, "fill_hu": -1024, "weighting": weighting}
    expected, lead = plain(hu, network(6), **options)
    found = label_tiles(hu, network(6), most_held_bytes=0, **options)
    assert (lead > 0.02).mean() > 0.8
    assert np.array_equal(found[lead > 0.02], expected[lead > 0.02])
    assert (found == expected).mean() > 0.995


def test_sums_in_half_precision_keep_the_corners_of_a_gaussian():
    hu = np.ones((64, 64, 64), np.int16)

    def run(tile):
        return np.stack([np.zeros(tile.shape, np.float32), np.ones(tile.shape, np.float32)])

    found = label_tiles(hu, run, patch=(48, 48, 48), overlap=0.5, fill_hu=0, weighting="gaussian", most_held_bytes=0)
    assert (found == 1).all()


def axes_of(shape, patch, overlap):
    return [Axis(n, p, tile_starts(n, p, overlap)) for n, p in zip(shape, patch, strict=True)]


def test_no_order_of_the_axes_holds_less_than_the_one_taken():
    axes = axes_of((200, 133, 90), (64, 64, 64), 0.5)
    held = {order: most_held(axes, order) for order in permutations(range(3))}
    assert held[tile_order(axes)] == min(held.values())


def test_one_tile_holds_nothing():
    assert most_held(axes_of((20, 20, 20), (32, 32, 32), 0.5), (0, 1, 2)) == 0


def test_far_less_than_the_volume_is_held():
    axes = axes_of((330, 166, 166), (128, 112, 160), 0.25)
    assert most_held(axes, tile_order(axes)) < 0.35 * 330 * 166 * 166


@given(index=st.lists(st.integers(-50, 50), min_size=1), length=st.integers(1, 9))
def test_reflection_is_numpys(index, length):
    padded = np.pad(np.arange(length), 50, mode="reflect") if length > 1 else np.zeros(101, int)
    expected = [padded[50 + i] for i in index if 50 + i < len(padded)]
    assert list(reflected(np.array([i for i in index if 50 + i < len(padded)], int), length)) == expected


def test_mirrored_padding_shows_the_network_the_scan_again():
    seen = []

    def run(tile):
        seen.append(tile.copy())
        return np.zeros((2, *tile.shape), np.float32)

    hu = np.arange(4, dtype=np.int16).reshape(4, 1, 1) * np.ones((1, 3, 3), np.int16)
    label_tiles(hu, run, patch=(8, 3, 3), overlap=0.5, fill_hu=-1024, padding="mirror")
    assert seen[0][:, 1, 1].tolist() == [2, 1, 0, 1, 2, 3, 2, 1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("most_held_bytes", [0, 1 << 30])
def test_an_answer_that_is_no_number_gives_no_label(value, most_held_bytes):
    def run(tile):
        logits = np.zeros((3, *tile.shape), np.float32)
        logits[2, 1, 2, 3] = value
        return logits

    with pytest.raises(InferenceError, match="not finite"):
        label_tiles(
            np.zeros((9, 9, 9), np.int16),
            run,
            patch=(8, 8, 8),
            overlap=0.5,
            fill_hu=0,
            most_held_bytes=most_held_bytes,
        )


def test_more_channels_than_labels_are_refused():
    with pytest.raises(InferenceError, match="300 channels"):
        label_tiles(
            np.zeros((4, 4, 4), np.int16),
            lambda tile: np.zeros((300, *tile.shape), np.float32),
            patch=(4, 4, 4),
            overlap=0.5,
            fill_hu=0,
        )


@given(
    patch=st.tuples(*[st.integers(3, 12)] * 3), overlap=st.floats(0, 0.6), padding=st.sampled_from(["fill", "mirror"])
)
@settings(max_examples=30, deadline=None)
def test_a_network_that_knows_no_place_leaves_no_seam(patch, overlap, padding):
    """One that answers each voxel alone is equivariant to every shift: no tile's border may show."""
    hu = np.random.default_rng(5).integers(-1000, 1000, (14, 17, 20)).astype(np.int16)

    def run(tile):
        values = tile.astype(np.float32)
        return np.stack([np.zeros_like(values), values, 2 * values - 500])

    found = label_tiles(hu, run, patch=patch, overlap=overlap, fill_hu=-1024, padding=padding)
    assert np.array_equal(found, run(hu).argmax(axis=0))


@pytest.mark.slow
def test_a_thousand_slices_and_118_classes_stay_within_their_memory():
    """The bounds are the box's; summing every class over a trunk in single precision took 1.6 GB before."""
    command = [sys.executable, Path(__file__).parents[1] / "benchmarks" / "bench_memory.py", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peaks_mib = json.loads(done.stdout.splitlines()[-1])
    assert peaks_mib["screening"] < 2500 / 1.048576
    assert peaks_mib["tiles"] < 500
