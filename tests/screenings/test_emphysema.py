"""Emphysema against a chest whose every voxel is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from appliance.anatomy.derived import Anatomy
from appliance.scan import KernelFamily, Volume
from appliance.screenings.contract import Status
from appliance.screenings.emphysema import SCREENING, EmphysemaSettings
from tests.screenings.chest import Chest, make

SETTINGS = EmphysemaSettings()
LUNG_ML = 4 / 3 * np.pi * 52 * 72 * 115 / 1000


def run_on(scan, organs, settings: EmphysemaSettings = SETTINGS):
    return SCREENING.run(scan, Anatomy(scan.volume, organs), settings)


def run(chest: Chest, settings: EmphysemaSettings = SETTINGS):
    return run_on(*make(chest), settings)


def value(outcome, name, site=None) -> float:
    return next(item.value for item in outcome.measurements if (item.name, item.site) == (name, site))


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.08, 0.30])
def test_laa950_is_the_fraction_that_was_put_in(fraction):
    assert value(run(Chest(low_fraction=fraction)), "laa950_percent") == pytest.approx(100 * fraction, abs=0.3)


def test_finding_from_the_threshold_on():
    assert run(Chest(low_fraction=0.04)).status is Status.NORMAL
    assert run(Chest(low_fraction=0.06)).status is Status.FINDING


def test_the_threshold_is_the_configuration_s():
    assert run(Chest(low_fraction=0.06), EmphysemaSettings(finding_percent=10)).status is Status.NORMAL


def test_lung_volumes_per_side():
    outcome = run(Chest())
    for side in ("lung_left", "lung_right"):
        assert value(outcome, "lung_volume_ml", side) == pytest.approx(LUNG_ML, rel=0.03)
    assert value(outcome, "lung_volume_ml") == pytest.approx(2 * LUNG_ML, rel=0.03)


def test_perc15_is_the_density_when_the_lung_is_even():
    assert value(run(Chest(lung_hu=-870)), "perc15_hu") == -870


def test_moderate_noise_moves_laa950_less_than_one_point():
    outcome = run(Chest(low_fraction=0.08, noise_hu=22.0))
    assert value(outcome, "laa950_percent") == pytest.approx(8.0, abs=1.0)


def test_strong_noise_is_smoothed_and_said():
    outcome = run(Chest(noise_hu=45.0, spacing_mm=(2.0, 0.8, 0.8)))
    assert any("smoothed" in caveat for caveat in outcome.caveats)
    assert value(outcome, "laa950_percent") < 1.0


def test_excessive_noise_abstains():
    outcome = run(Chest(noise_hu=90.0))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "noise_too_high")


@pytest.mark.parametrize(("cut_mm", "where"), [((60.0, 0.0), "lowest"), ((0.0, 60.0), "highest")])
def test_lungs_cut_off_abstain_and_name_the_end(cut_mm, where):
    outcome = run(Chest(cut_mm=cut_mm))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "organ_cut_off")
    assert where in outcome.reason.text


def test_lungs_cut_by_the_field_of_view_abstain():
    outcome = run(Chest(width_mm=230.0))
    assert outcome.reason.code == "organ_cut_off"
    assert "field of view" in outcome.reason.text


def test_small_lungs_are_not_an_inspiration():
    assert run(Chest(lung_scale=0.75)).reason.code == "not_inspiratory"


def test_dense_lungs_are_not_an_inspiration():
    assert run(Chest(lung_hu=-650)).reason.code == "not_inspiratory"


def test_thick_slices_within_the_limit_get_a_caveat():
    scan, organs = make(Chest())
    scan = replace(scan, acquisition=replace(scan.acquisition, slice_thickness_mm=2.5))
    assert any("2.5 mm" in caveat for caveat in run_on(scan, organs).caveats)


def test_unknown_kernel_gets_a_caveat():
    outcome = run(Chest().with_acquisition(kernel_family=KernelFamily.UNKNOWN))
    assert any("kernel" in caveat for caveat in outcome.caveats)


@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_the_order_of_slices_rows_and_columns_changes_nothing(plain, flips):
    scan, organs = plain
    affine = scan.volume.affine.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (scan.volume.shape[axis] - 1)
        affine[:3, axis] *= -1
    flipped = replace(scan, volume=Volume(np.ascontiguousarray(np.flip(scan.volume.hu, flips)), affine))
    before, after = (run_on(one, organs) for one in (scan, flipped))
    for one, other in zip(before.measurements, after.measurements, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-3)


def test_the_key_slice_shows_what_was_counted(plain):
    scan, organs = plain
    evidence = run_on(scan, organs).evidence
    assert evidence.mask.any()
    assert (scan.volume.hu[evidence.key_slice][evidence.mask] < -950).all()


def test_the_finding_lies_in_the_lung(plain):
    scan, organs = plain
    finding = run_on(scan, organs).findings[0]
    low, high = np.sort(np.array(finding.box_mm), axis=0)
    assert finding.site in {"lung_left", "lung_right"}
    assert low[2] >= -117
    assert high[2] <= 117


@pytest.mark.parametrize("side", ["lung_left", "lung_right"])
def test_what_the_map_leaves_out_at_a_lung_s_border_stays_on_its_side(side):
    scan, organs = make(Chest(spacing_mm=(2.0, 1.0, 1.0)))
    labels = organs.labels.copy()
    own = labels == organs.values[side]
    labels[own & ~ndimage.binary_erosion(own)] = organs.values["body"]
    before, after = run_on(scan, organs), run_on(scan, replace(organs, labels=labels))
    for name in ("lung_left", "lung_right"):
        kept = value(after, "lung_volume_ml", name) / value(before, "lung_volume_ml", name)
        assert kept == pytest.approx(1.0, abs=0.01) if name != side else 0.9 < kept <= 1.0
