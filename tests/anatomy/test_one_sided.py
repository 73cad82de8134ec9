"""Which rays end at the far side of a neighbour: outlines of which every radius is known."""

from __future__ import annotations

import numpy as np

from appliance.anatomy.one_sided import standing_out

RAYS = 72
ANGLE = np.arange(RAYS) * (2.0 * np.pi / RAYS)
NOISE = 0.25 * np.random.default_rng(1).standard_normal(RAYS)


def told(radii_mm: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    everything = np.ones(RAYS, dtype=bool) if seen is None else seen
    return standing_out(radii_mm[None], everything[None])[0]


def with_neighbour(radius_mm: float = 12.5, size_mm: float = 6.0) -> np.ndarray:
    """A round vessel with a smaller one against it in front: both outlines as one."""
    away = np.abs(np.angle(np.exp(1j * (ANGLE - np.pi / 2.0))))
    apart = radius_mm + size_mm
    inside = size_mm**2 - (apart * np.sin(away)) ** 2
    far = np.where((inside > 0.0) & (away < 1.0), apart * np.cos(away) + np.sqrt(np.maximum(inside, 0.0)), 0.0)
    return np.maximum(radius_mm, np.minimum(far, radius_mm + 8.0)) + NOISE


def test_a_neighbour_is_told_and_the_rest_kept():
    found = told(with_neighbour())
    out = with_neighbour() > 12.5 + 2.0
    assert out.any()
    assert found[out].all()
    assert found.mean() < 1.0 / 3.0


def test_a_circle_off_its_middle_has_no_neighbour():
    assert not told(12.5 + 3.0 * np.cos(ANGLE) + NOISE).any()


def test_an_oval_vessel_is_its_own():
    assert not told(12.5 + 2.0 * np.cos(2.0 * ANGLE) + NOISE).any()


def test_a_wide_pouch_is_the_vessel_s_own_shape():
    pouch = np.where(np.abs(np.angle(np.exp(1j * ANGLE))) < np.radians(75.0), 6.0, 0.0)
    assert not told(12.5 + pouch + NOISE).any()


def test_a_border_that_is_mostly_hidden_tells_nothing():
    seen = np.abs(np.angle(np.exp(1j * (ANGLE - np.pi / 2.0)))) < np.radians(80.0)
    assert not told(with_neighbour(), seen).any()
