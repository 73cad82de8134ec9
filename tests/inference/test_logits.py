"""What is read and written by the bits is what NumPy reads and writes number by number."""

import numpy as np
import pytest

from appliance.inference.logits import from_half, labels_of, largest, single, to_half

HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE = HALVES[np.isfinite(HALVES)]


def bf16(values):
    """Bits of numbers that bf16 holds exactly."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def test_every_finite_half_is_read_exactly():
    found, expected = from_half(FINITE), FINITE.astype(np.float32)
    assert np.array_equal(found, expected)
    assert np.array_equal(np.signbit(found), np.signbit(expected))


def test_every_normal_half_is_written_as_itself_and_what_is_smaller_stays_small():
    normal = np.abs(FINITE.astype(np.float32)) >= 2.0**-14
    assert np.array_equal(to_half(FINITE[normal].astype(np.float32)), FINITE[normal])
    assert np.abs(from_half(to_half(FINITE[~normal].astype(np.float32)))).max() <= 2.0**-14


def test_what_lies_between_two_halves_becomes_the_nearer_one():
    singles = np.random.default_rng(0).normal(0, 50, 100_000).astype(np.float32)
    singles = singles[np.abs(singles) > 2.0**-13]
    found, expected = from_half(to_half(singles)), singles.astype(np.float16).astype(np.float32)
    assert np.array_equal(np.abs(found - singles), np.abs(expected - singles))  # ties may go the other way


def test_parts_that_do_not_lie_side_by_side_are_read_too():
    halves = np.arange(60, dtype=np.float16).reshape(3, 4, 5)[:, 1:, ::2]
    assert np.array_equal(from_half(halves), halves.astype(np.float32))


def test_bf16_is_read_exactly_and_single_precision_left_alone():
    values = np.array([0.0, -0.0, 1.0, -2.5, 3.0e38, 1e-38], np.float32)
    exact = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert np.array_equal(single(bf16(exact)), exact)
    assert single(values).base is values or single(values) is values


def test_labels_of_bf16_are_those_of_its_numbers():
    logits = np.array([[-1.0, 4.0], [-8.0, 2.0], [-0.5, -16.0]], np.float32)
    assert labels_of(logits).tolist() == [2, 0]
    assert labels_of(bf16(logits)).tolist() == [2, 0]


@pytest.mark.parametrize("of", [np.float32, bf16])
@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, -3.0], 3.0), ([2.0, -1.0], 2.0), ([1.0, np.nan], np.inf), ([-np.inf, 0.0], np.inf), ([np.nan], np.inf)],
)
def test_the_largest_magnitude(of, values, expected):
    assert largest(of(values) if of is bf16 else np.array(values, of)) == expected
