"""Trabecular density against spines whose every body is known, over a designed grid of scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.organ_map import OrganMap
from appliance.reasons import ReasonCode
from appliance.scan import Volume
from appliance.screenings.bone_density import SCREENING
from appliance.screenings.contract import Status
from tests.screenings.example_abdomen import example_abdomen
from tests.screenings.patients import value
from tests.screenings.spines import GRID, spine_patient

pytestmark = pytest.mark.slow

SETTINGS = SCREENING.settings_model()


def run(scan, anatomy, settings=SETTINGS):
    return SCREENING.run(scan, anatomy, settings)


def changed(scan, organs, hu=None, affine=None):
    volume = Volume(
        np.array(scan.volume.hu if hu is None else hu), np.array(scan.volume.affine if affine is None else affine)
    )
    return replace(scan, volume=volume), Anatomy(volume, organs)


def densities(outcome):
    return {item.site: item.value for item in outcome.measurements if item.site}


@pytest.mark.parametrize("name", GRID)
def test_every_body_within_3_hu(name):
    # the phantom's spongy bone has a texture of ±6 HU whose own mean in a body differs a little from the chosen density
    scan, anatomy, truth = spine_patient(name)
    expected = {f"vertebra_{body.name}": body.trabecular_hu for body in truth.vertebrae}
    measured = densities(run(scan, anatomy))
    assert len(measured) >= 3
    for site, hu in measured.items():
        assert hu == pytest.approx(expected[site], abs=3.3), site


def test_l1_speaks_for_the_spine():
    outcome = run(*spine_patient("base")[:2])
    assert value(outcome, "vertebra_trabecular_hu") == value(outcome, "vertebra_trabecular_hu", "vertebra_L1")
    assert "(L1)" in outcome.summary


def test_low_density_is_a_finding():
    outcome = run(*spine_patient("2.0 mm, osteoporotic")[:2])
    assert outcome.status is Status.FINDING
    assert outcome.findings[0].site == "vertebra_L1"


def test_a_fractured_body_is_left_out_and_the_others_stand_for_it():
    outcome = run(*spine_patient("small, dense bone")[:2])
    assert "vertebra_L1" not in densities(outcome)
    assert "mean of" in outcome.summary
    assert any("L1" in caveat and "height" in caveat for caveat in outcome.caveats)


def test_metal_in_a_body_leaves_it_out():
    scan, anatomy, truth = spine_patient("3.0 mm")
    hu = np.array(scan.volume.hu)
    centre = next(body.centre_mm for body in truth.vertebrae if body.name == "L2")
    z, y, x = (round(float(i)) for i in scan.volume.to_index(np.array(centre)))
    hu[z - 2 : z + 3, y - 12 : y + 8, x - 6 : x + 7] = 2500
    outcome = run(*changed(scan, anatomy.organs, hu))
    assert "vertebra_L2" not in densities(outcome)
    assert densities(outcome).keys() >= {"vertebra_L1", "vertebra_L3"}


def test_slices_the_other_way_round_give_the_same():
    scan, anatomy, _ = spine_patient("3.0 mm")
    affine = np.array(scan.volume.affine)
    affine[:3, 3] += affine[:3, 0] * (scan.volume.shape[0] - 1)
    affine[:3, 0] *= -1
    again = densities(run(*changed(scan, anatomy.organs, scan.volume.hu[::-1].copy(), affine)))
    before = densities(run(scan, anatomy))
    assert again.keys() == before.keys()
    assert [again[site] for site in before] == pytest.approx(list(before.values()), abs=0.7)


def test_a_scan_without_these_vertebrae_says_which_it_shows():
    scan, anatomy, _ = spine_patient("3.0 mm")
    organs = anatomy.organs
    labels = organs.labels.copy()
    labels[labels == organs.values["vertebral_bodies"]] = organs.values["body"]
    outcome = run(scan, Anatomy(scan.volume, replace(organs, labels=labels)))
    assert outcome.reason.code is ReasonCode.REGION_NOT_COVERED


def test_nothing_to_count_by_gives_no_number():
    scan, anatomy, _ = spine_patient("3.0 mm")
    organs = anatomy.organs
    labels = np.where(organs.labels == organs.values["vertebral_bodies"], 2, (organs.labels > 0).astype(np.uint8))
    bare = OrganMap(labels.astype(np.uint8), organs.affine, {"body": 1, "vertebral_bodies": 2}, organs.pack)
    outcome = run(scan, Anatomy(scan.volume, bare))
    assert outcome.reason.code is ReasonCode.LEVELS_UNCERTAIN


def test_noise_above_the_limit_gives_no_number():
    scan, anatomy, _ = spine_patient("3.0 mm")
    noise = np.random.default_rng(1).normal(0.0, 130.0, scan.volume.shape)
    outcome = run(*changed(scan, anatomy.organs, (scan.volume.hu + noise).astype(np.int16)))
    assert outcome.reason.code is ReasonCode.NOISE_TOO_HIGH


def test_the_picture_is_sagittal_and_shows_what_was_measured():
    scan, anatomy, _ = spine_patient("base")
    evidence = run(scan, anatomy).evidence
    assert evidence.axis == 2
    assert evidence.mask.shape == scan.volume.shape[:2]
    assert evidence.mask.any()


def test_a_real_plain_abdomen():
    scan, organs = example_abdomen()
    outcome = run(scan, Anatomy(scan.volume, organs))
    assert densities(outcome).keys() <= {f"vertebra_{level}" for level in ("T12", "L1", "L2", "L3")}
    assert 60.0 < value(outcome, "vertebra_trabecular_hu") < 160.0
