from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from appliance.phantom import PhantomOptions, WedgeFracture, random_options


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"slice_spacing_mm": 0.0}, "spacing"),
        ({"pixel_spacing_mm": -1.0}, "spacing"),
        ({"coverage_low_mm": 300.0}, "coverage"),
        ({"emphysema_fraction": 0.95}, "emphysema"),
        ({"gantry_tilt_degrees": 45.0}, "tilt"),
        ({"gantry_tilt_degrees": 10.0, "oblique_degrees": 5.0}, "tilt"),
        ({"multi_frame": True, "missing_slice": 3}, "multi-frame"),
        ({"wedge_fracture": WedgeFracture("L9", 20.0)}, "vertebra"),
        ({"circular_padding_hu": -2000}, "padding"),
        ({"patient_name": "张^三"}, "gb18030"),
    ],
)
def test_impossible_options_are_refused_with_a_sentence(changes, word):
    with pytest.raises(ValueError, match=word):
        PhantomOptions(**changes)


def test_options_are_frozen():
    with pytest.raises(FrozenInstanceError):
        PhantomOptions().kvp = 80.0


def test_density_of_one_vertebra_can_differ():
    options = PhantomOptions(trabecular_hu=150.0, trabecular_hu_by_vertebra=(("L1", 80.0),))
    assert options.trabecular("L1") == 80.0
    assert options.trabecular("L2") == 150.0


def test_random_options_follow_the_generator():
    first = [random_options(np.random.default_rng(5)) for _ in range(2)]
    assert first[0] == first[1]


def test_random_options_are_valid_and_varied():
    rng = np.random.default_rng(11)
    drawn = [random_options(rng) for _ in range(200)]
    assert len({replace(o) for o in drawn}) == 200
    assert {o.contrast_in_image for o in drawn} == {True, False}
    assert any(o.missing_organs for o in drawn)
    assert any(o.effusion_left_ml > 0 for o in drawn)
