"""Kidney stones of known size, and what must not be taken for one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.plausibility import implausible
from appliance.scan import Volume
from appliance.screenings.contract import Status
from appliance.screenings.kidney_stone import SCREENING, KidneyStoneSettings
from tests.screenings.abdomens import GRID, healthy, rendered, stony
from tests.screenings.example_abdomen import example_abdomen
from tests.screenings.patients import value, with_block, with_voxels

SETTINGS = KidneyStoneSettings()


def run(scan, organs, settings: KidneyStoneSettings = SETTINGS):
    return SCREENING.run(scan, Anatomy(scan.volume, organs), settings)


def centre_mm(organs, name):
    return organs.affine[:3, :3] @ np.argwhere(organs.mask(name)).mean(axis=0) + organs.affine[:3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", GRID)
def test_a_stone_has_its_size(name):
    scan, organs, truth = rendered(name)
    diameter_mm = truth.kidney_stone_diameter_mm
    outcome = run(scan, organs)
    assert outcome.status is Status.FINDING
    assert value(outcome, "kidney_stone_count") == 1
    assert value(outcome, "kidney_stone_max_mm") == pytest.approx(diameter_mm, abs=1.0)
    assert value(outcome, "kidney_stone_volume_mm3") == pytest.approx(np.pi * diameter_mm**3 / 6.0, rel=0.10)


@pytest.mark.slow
def test_no_stone():
    scan, organs, _ = healthy()
    outcome = run(scan, organs)
    assert outcome.status is Status.NORMAL
    assert outcome.summary == "no kidney stone"
    assert value(outcome, "kidney_stone_count") == 0


@pytest.mark.slow
def test_the_stone_is_found_on_its_side_and_in_its_place():
    scan, organs, truth = stony()
    outcome = run(scan, organs)
    finding = outcome.findings[0]
    low, high = np.sort(np.array(finding.box_mm), axis=0)
    assert finding.site == "kidney_left"
    assert (low - 2.0 <= truth.kidney_stone_centre_mm).all()
    assert (high + 2.0 >= truth.kidney_stone_centre_mm).all()
    assert value(outcome, "kidney_stone_count", "kidney_right") == 0
    assert value(outcome, "kidney_stone_mean_hu", "kidney_left") > 400
    assert (scan.volume.hu[outcome.evidence.key_slice][outcome.evidence.mask] > 130).all()


@pytest.mark.slow
def test_the_threshold_is_the_configuration_s():
    scan, organs, _ = stony()
    outcome = run(scan, organs, KidneyStoneSettings(finding_mm=12))
    assert outcome.status is Status.NORMAL
    assert value(outcome, "kidney_stone_count") == 1


@pytest.mark.slow
@pytest.mark.parametrize("flips", [(0,), (2,), (0, 1, 2)])
def test_the_order_of_slices_rows_and_columns_changes_nothing(flips):
    scan, organs, _ = stony()
    affine = scan.volume.affine.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (scan.volume.shape[axis] - 1)
        affine[:3, axis] *= -1
    flipped = replace(scan, volume=Volume(np.ascontiguousarray(np.flip(scan.volume.hu, flips)), affine))
    for before, after in zip(run(scan, organs).measurements, run(flipped, organs).measurements, strict=True):
        assert after.value == pytest.approx(before.value, rel=0.05)


@pytest.mark.slow
def test_a_stone_in_the_pelvis_beside_the_map_s_kidney_is_found():
    scan, organs, truth = stony()
    labels = organs.labels.copy()
    at = np.linalg.inv(organs.affine) @ (*truth.kidney_stone_centre_mm, 1.0)
    z, y, x = np.rint(at[:3]).astype(int)
    part = labels[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3]
    part[part == organs.values["kidney_left"]] = organs.values["body"]
    assert value(run(scan, replace(organs, labels=labels)), "kidney_stone_count") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aorta", "vertebral_bodies", "liver"])
def test_calcium_elsewhere_is_no_stone(name):
    scan, organs, _ = healthy()
    assert value(run(with_block(scan, centre_mm(organs, name), 8.0, 600), organs), "kidney_stone_count") == 0


@pytest.mark.slow
def test_one_bright_voxel_is_no_stone():
    scan, organs, _ = healthy()
    assert value(run(with_block(scan, centre_mm(organs, "kidney_left"), 0.1, 600), organs), "kidney_stone_count") == 0


@pytest.mark.slow
def test_metal_gives_no_size():
    scan, organs, _ = healthy()
    outcome = run(with_block(scan, centre_mm(organs, "kidney_right"), 6.0, 3000), organs)
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "metal_in_organ")


@pytest.mark.slow
def test_noise_that_decides_gives_no_number():
    scan, organs, _ = healthy()
    noise = np.random.default_rng(1).normal(0.0, 55.0, scan.volume.shape)

    def change(hu):
        hu += np.rint(noise).astype(np.int16)

    outcome = run(with_voxels(scan, change), organs)
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "noise_too_high")


@pytest.mark.slow
def test_kidneys_that_light_up_were_given_contrast():
    scan, organs, _ = healthy()

    def change(hu):
        hu[(hu > 0) & (hu < 70)] += 80

    outcome = run(with_voxels(scan, change), organs)
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "contrast_disagrees")


@pytest.mark.slow
def test_a_kidney_that_is_cut_gives_no_number():
    scan, organs, _ = healthy()
    middle = int(np.argwhere(organs.mask("kidney_right"))[:, 0].mean())
    affine = organs.affine.copy()
    affine[:3, 3] += affine[:3, 0] * middle
    outcome = run(scan, replace(organs, labels=np.ascontiguousarray(organs.labels[middle:]), affine=affine))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "organ_cut_off")
    assert "bottom" in outcome.reason.text


@pytest.mark.slow
@pytest.mark.parametrize("doubted", [True, False])
def test_a_patient_with_one_kidney_gets_an_answer_for_that_one(doubted):
    scan, organs, _ = stony()
    labels = organs.labels.copy()
    right = labels == organs.values["kidney_right"]
    if doubted:  # a few voxels where a kidney was
        slices = np.flatnonzero(right.any(axis=(1, 2)))
        right[slices[len(slices) // 2]] = False
    labels[right] = organs.values["body"]
    organs = replace(organs, labels=labels)
    outcome = SCREENING.run(scan, Anatomy(scan.volume, organs, implausible(organs)), SETTINGS)
    assert outcome.status is Status.FINDING
    assert "in the left kidney" in outcome.summary
    assert "right kidney" in outcome.caveats[0]
    assert {item.site for item in outcome.measurements} == {None, "kidney_left"}


def test_a_real_plain_abdomen_has_stones_on_both_sides():
    outcome = run(*example_abdomen())
    assert outcome.status is Status.FINDING
    for side in ("kidney_left", "kidney_right"):
        assert value(outcome, "kidney_stone_count", side) >= 1
    assert 3.0 < value(outcome, "kidney_stone_max_mm") < 20.0
