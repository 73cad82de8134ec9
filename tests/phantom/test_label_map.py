from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from appliance.phantom import PhantomOptions, label_map, random_options
from appliance.phantom.tissues import STRUCTURE_VALUES, Tissue, structure_table


@pytest.fixture(scope="module")
def labelled():
    return label_map(PhantomOptions(coverage_low_mm=-90.0, coverage_high_mm=250.0), spacing_mm=4.0)


def test_types_and_shapes(labelled):
    hu, labels, affine, values = labelled
    assert hu.dtype == np.int16
    assert labels.dtype == np.uint8
    assert hu.shape == labels.shape
    assert values == STRUCTURE_VALUES
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx([4.0, 4.0, 4.0])


def test_axes_are_canonical(labelled):
    _, labels, affine, values = labelled
    centre = {name: affine @ np.r_[np.argwhere(labels == value).mean(axis=0), 1.0] for name, value in values.items()}
    assert centre["lung_left"][0] > 20.0 > -20.0 > centre["lung_right"][0]  # LPS: left is +x
    assert centre["bone"][1] > centre["lung_left"][1]  # the spine lies behind
    windpipe = np.argwhere(labels == values["airways"])
    lungs = np.argwhere(labels == values["lung_left"])
    assert windpipe[:, 0].max() > lungs[:, 0].max()  # slices grow towards the head


def test_each_structure_has_a_human_size(labelled):
    _, labels, _, values = labelled
    ml = {name: np.count_nonzero(labels == value) * 0.064 for name, value in values.items()}
    assert 1500 < ml["lung_left"] < 4000
    assert ml["lung_left"] < ml["lung_right"] < 4500
    assert 30 < ml["airways"] < 150
    assert 500 < ml["bone"] < 2500


def test_labels_agree_with_densities(labelled):
    hu, labels, _, values = labelled
    assert np.median(hu[labels == values["lung_left"]]) == pytest.approx(-855, abs=25)
    assert np.median(hu[labels == values["airways"]]) < -900
    assert np.median(hu[labels == values["bone"]]) > 120
    assert np.median(hu[labels == 0]) < -950


def test_the_table_is_not_the_body():
    table = structure_table()
    assert table[Tissue.TABLE] == 0
    assert table[Tissue.AIR] == 0
    assert table[Tissue.EFFUSION_LEFT] == STRUCTURE_VALUES["body"]
    assert table[Tissue.VERTEBRA_LAST] == STRUCTURE_VALUES["vertebral_bodies"]


def test_levels_can_be_told_apart():
    options = PhantomOptions(coverage_low_mm=-90.0, coverage_high_mm=-30.0)
    _, labels, _, values = label_map(options, 4.0, levels=True)
    lowest, highest = (np.argwhere(labels == values[name])[:, 0].mean() for name in ("vertebra_L1", "vertebra_T12"))
    assert lowest < highest
    assert "vertebral_bodies" not in values


def test_the_heart_is_what_the_pericardium_holds():
    hu, labels, _, values = label_map(PhantomOptions(coverage_low_mm=0.0, coverage_high_mm=125.0, noise_hu=0.0), 3.0)
    inside = hu[labels == values["heart"]]
    assert 0.05 < np.mean(inside < -30) < 0.5  # fat around the coronary arteries belongs to it


def test_field_of_view_cuts_the_body():
    options = PhantomOptions(rows=200, columns=200, pixel_spacing_mm=1.0, coverage_low_mm=0.0, coverage_high_mm=60.0)
    hu, labels, _, _ = label_map(options, spacing_mm=4.0)
    assert hu.shape == (15, 50, 50)
    assert labels[:, 25, 0].all()


def test_missing_organs_are_missing():
    options = PhantomOptions(coverage_low_mm=-80.0, coverage_high_mm=-20.0, noise_hu=0.0)
    with_liver = label_map(options, 5.0)[0]
    without = label_map(replace(options, missing_organs=frozenset({"liver"})), 5.0)[0]
    assert np.count_nonzero(with_liver > 40) > 1.3 * np.count_nonzero(without > 40)


@pytest.mark.parametrize("seed", [3, 8, 21])
def test_random_patients_are_drawn_whole(seed):
    hu, labels, _, values = label_map(random_options(np.random.default_rng(seed)), spacing_mm=8.0)
    assert hu.min() >= -3024
    assert np.count_nonzero(labels == values["body"]) > 100
