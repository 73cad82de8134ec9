"""Liver and spleen of known density, with vessels, lesions, cuts and maps that are wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from appliance.anatomy.derived import Anatomy
from appliance.reasons import Reason, ReasonCode
from appliance.scan import Volume
from appliance.screenings.contract import Status
from appliance.screenings.liver_fat import SCREENING, LiverFatSettings, grade
from tests.screenings.abdomens import GRID, healthy, rendered, stony
from tests.screenings.example_abdomen import example_abdomen
from tests.screenings.patients import value, with_voxels

SETTINGS = LiverFatSettings()


def run(scan, organs, settings: LiverFatSettings = SETTINGS, doubts=None):
    return SCREENING.run(scan, Anatomy(scan.volume, organs, doubts), settings)


def liver_hu(outcome) -> float:
    return value(outcome, "liver_mean_hu", "liver")


def cut(organs, below: int):
    """The organ map of a scan that ends so many working slices higher."""
    affine = organs.affine.copy()
    affine[:3, 3] += affine[:3, 0] * below
    return replace(organs, labels=np.ascontiguousarray(organs.labels[below:]), affine=affine)


def without(organs, name):
    labels = organs.labels.copy()
    labels[organs.mask(name)] = organs.values["body"]
    return replace(organs, labels=labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRID)
def test_liver_and_spleen_have_their_density(name):
    scan, organs, truth = rendered(name)
    outcome = run(scan, organs)
    liver, spleen = truth.hu["liver"], truth.hu["spleen"]
    assert liver_hu(outcome) == pytest.approx(liver, abs=3.0)
    assert value(outcome, "spleen_mean_hu", "spleen") == pytest.approx(spleen, abs=3.0)
    assert value(outcome, "liver_spleen_difference_hu") == pytest.approx(liver - spleen, abs=4.0)
    assert value(outcome, "liver_spleen_ratio") == pytest.approx(liver / spleen, abs=0.08)
    fatty = liver < 40.0 or liver / spleen <= 1.0
    assert outcome.status is (Status.FINDING if fatty else Status.NORMAL)


@pytest.mark.parametrize(
    ("ratio", "name"), [(1.1, "none"), (1.0, "mild"), (0.7, "moderate"), (0.6, "moderate"), (0.5, "severe")]
)
def test_grades(ratio, name):
    assert grade(ratio, SETTINGS) == name


@pytest.mark.slow
def test_a_fatty_liver_is_a_finding_with_its_grade():
    outcome = run(*stony()[:2])
    assert outcome.status is Status.FINDING
    assert "moderate" in outcome.summary
    assert outcome.findings[0].site == "liver"


@pytest.mark.slow
def test_thresholds_are_the_configuration_s():
    scan, organs, _ = healthy()
    assert run(scan, organs).status is Status.NORMAL
    assert run(scan, organs, LiverFatSettings(mild_ratio=1.2)).status is Status.FINDING


@pytest.mark.slow
def test_vessels_and_lesions_are_left_out():
    scan, organs, truth = healthy()
    places = np.argwhere(ndimage.binary_erosion(organs.mask("liver"), iterations=4))
    chosen = places[np.random.default_rng(1).choice(len(places), 12, replace=False)]
    at = np.rint(scan.volume.to_index(chosen @ organs.affine[:3, :3].T + organs.affine[:3, 3])).astype(int)

    def change(hu):
        for z, y, x in at:  # cysts of 2 cm
            hu[z - 3 : z + 4, y - 11 : y + 12, x - 11 : x + 12] = 5

    assert liver_hu(run(with_voxels(scan, change), organs)) == pytest.approx(truth.hu["liver"], abs=3.0)


@pytest.mark.slow
def test_a_map_that_takes_in_what_lies_around_the_liver_changes_little():
    scan, organs, truth = healthy()
    labels = organs.labels.copy()
    labels[ndimage.binary_dilation(organs.mask("liver"), iterations=2)] = organs.values["liver"]
    assert liver_hu(run(scan, replace(organs, labels=labels))) == pytest.approx(truth.hu["liver"], abs=3.0)


@pytest.mark.slow
@pytest.mark.parametrize("flips", [(0,), (1, 2), (0, 1, 2)])
def test_the_order_of_slices_rows_and_columns_changes_nothing(flips):
    scan, organs, _ = healthy()
    affine = scan.volume.affine.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (scan.volume.shape[axis] - 1)
        affine[:3, axis] *= -1
    flipped = replace(scan, volume=Volume(np.ascontiguousarray(np.flip(scan.volume.hu, flips)), affine))
    assert liver_hu(run(flipped, organs)) == pytest.approx(liver_hu(run(scan, organs)), abs=0.3)


@pytest.mark.slow
def test_without_a_spleen_the_liver_stands_alone():
    scan, organs, _ = healthy()
    outcome = run(scan, without(organs, "spleen"))
    assert "liver_spleen_ratio" not in {item.name for item in outcome.measurements}
    assert any("no spleen" in caveat for caveat in outcome.caveats)


@pytest.mark.slow
def test_an_implausible_spleen_is_not_compared_with():
    scan, organs, _ = healthy()
    doubts = {"spleen": Reason(ReasonCode.ORGAN_IMPLAUSIBLE, "the spleen is on the right")}
    assert any("implausible" in caveat for caveat in run(scan, organs, doubts=doubts).caveats)


@pytest.mark.slow
def test_a_spleen_of_another_density_is_not_compared_with():
    scan, organs, _ = healthy()
    outcome = run(scan, organs, LiverFatSettings(highest_spleen_hu=50, lowest_spleen_hu=55))
    assert any("not compared" in caveat for caveat in outcome.caveats)


@pytest.mark.slow
def test_a_third_of_the_liver_is_enough_and_less_is_not():
    scan, organs, truth = healthy()
    liver = np.count_nonzero(organs.mask("liver"), axis=(1, 2))
    from_above = np.cumsum(liver[::-1])[::-1] * organs.voxel_ml
    enough = int(np.flatnonzero(from_above > 600.0)[-1])
    assert liver_hu(run(scan, cut(organs, enough))) == pytest.approx(truth.hu["liver"], abs=3.0)
    outcome = run(scan, cut(organs, int(np.flatnonzero(from_above > 300.0)[-1])))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "region_not_covered")
    assert "bottom" in outcome.reason.text


@pytest.mark.slow
def test_noise_that_decides_gives_no_number():
    scan, organs, _ = healthy()
    noise = np.random.default_rng(1).normal(0.0, 80.0, scan.volume.shape)

    def change(hu):
        hu += np.rint(noise).astype(np.int16)

    outcome = run(with_voxels(scan, change), organs)
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "noise_too_high")


@pytest.mark.slow
def test_a_dense_liver_and_another_voltage_get_their_caveats():
    scan, organs, _ = healthy()
    scan = with_voxels(scan, lambda hu: np.add(hu, 25, out=hu))
    scan = replace(scan, acquisition=replace(scan.acquisition, kvp=100.0))
    caveats = run(scan, organs).caveats
    assert any("denser" in caveat for caveat in caveats)
    assert any("100 kV" in caveat for caveat in caveats)


def test_a_real_plain_liver_reads_what_a_person_read():
    outcome = run(*example_abdomen())
    assert liver_hu(outcome) == pytest.approx(46.0, abs=3.0)
    assert outcome.status is Status.NORMAL
