"""The Agatston score against plaques whose score is known, and what must not be counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from appliance.anatomy.derived import Anatomy
from appliance.scan import KernelFamily, Volume
from appliance.screenings.agatston import category, shown
from appliance.screenings.contract import Status, Urgency
from appliance.screenings.coronary_calcium import SCREENING, CoronaryCalciumSettings
from appliance.screenings.guards import sample_hu
from tests.screenings.hearts import PLAQUES, heart, usual
from tests.screenings.patients import patient, value, with_block, with_voxels

SETTINGS = CoronaryCalciumSettings()


def run(scan, organs, settings: CoronaryCalciumSettings = SETTINGS):
    return SCREENING.run(scan, Anatomy(scan.volume, organs), settings)


def score(scan, organs, settings: CoronaryCalciumSettings = SETTINGS) -> float:
    return value(run(scan, organs, settings), "agatston_score")


def reference_score(scan, truth) -> float:
    """Agatston's sum, straight from the voxels of each plaque that are known to be calcium."""
    from scipy import ndimage

    spacing = scan.volume.spacing_mm
    total = 0.0
    for lesion in truth.lesions:
        middle = np.rint(scan.volume.to_index(np.array(lesion.centre_mm))).astype(int)
        part = tuple(slice(max(0, at - 12), at + 13) for at in middle)
        labels, _ = ndimage.label(scan.volume.hu[part] >= 130, np.ones((3, 3, 3)))
        plaque = labels == labels[tuple(at - side.start for at, side in zip(middle, part, strict=True))]
        for plane, hu in zip(plaque, scan.volume.hu[part], strict=True):
            area_mm2 = np.count_nonzero(plane) * spacing[1] * spacing[2]
            if area_mm2 >= 1.0:
                total += area_mm2 * min(int(hu[plane].max()) // 100, 4) * spacing[0] / 3.0
    return total


# --- exactness ------------------------------------------------------------------------------------------------------
#: A guard; `make accuracy` has the whole grid.
GRID = {
    "1 mm, noisy": heart(1.0, noise_hu=16.0),
    "1.25 mm apart, 2.5 mm thick, medium kernel": heart(
        1.25, slice_thickness_mm=2.5, kernel="medium", pixel_spacing_mm=0.9
    ),
    "2 mm, oblique": heart(2.0, oblique_degrees=8.0, coverage_low_mm=-35.0, coverage_high_mm=160.0),
    "3 mm, large heart": heart(3.0, heart_scale=1.15, coverage_low_mm=-30.0, coverage_high_mm=150.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", GRID.values(), ids=GRID.keys())
def test_agatston_is_that_of_the_plaques(options):
    scan, organs, truth = patient(options)
    outcome = run(scan, organs)
    assert value(outcome, "agatston_score") == pytest.approx(truth.agatston_score, rel=0.05)
    assert value(outcome, "calcium_volume_mm3") == pytest.approx(truth.calcium_volume_mm3, rel=0.05)


@pytest.mark.slow
def test_thin_slices_too_noisy_are_averaged_and_said():
    plaques = tuple(replace(plaque, height_mm=12.0) for plaque in PLAQUES)
    scan, organs, truth = patient(heart(1.0, plaques, noise_hu=36.0))
    outcome = run(scan, organs)
    assert any("averaged" in caveat for caveat in outcome.caveats)
    assert value(outcome, "agatston_score") == pytest.approx(truth.agatston_score, rel=0.10)


@pytest.mark.slow
@pytest.mark.parametrize("slice_mm", [1.25, 3.0])
def test_noise_alone_is_no_calcium(slice_mm):
    scan, organs, _ = patient(heart(slice_mm, (), noise_hu=25.0))
    outcome = run(scan, organs)
    assert (outcome.status, value(outcome, "agatston_score")) == (Status.NORMAL, 0.0)
    assert "A0" in outcome.summary


def test_agatston_is_the_straightforward_sum_over_the_true_plaques():
    scan, organs, truth = usual()
    assert score(scan, organs) == pytest.approx(reference_score(scan, truth), rel=1e-6)
    assert score(scan, organs) == pytest.approx(truth.agatston_score, rel=0.05)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "A0"), (0.9, "A0"), (1, "A1"), (99.9, "A1"), (100, "A2"), (300, "A3")]
)
def test_categories(number, name):
    assert category(number) == name


# --- what is said ---------------------------------------------------------------------------------------------------
def test_calcium_is_a_finding_in_the_heart_on_a_slice_that_shows_it():
    scan, organs, _ = usual()
    outcome = run(scan, organs)
    assert outcome.status is Status.FINDING
    assert outcome.evidence.mask.any()
    assert (scan.volume.hu[outcome.evidence.key_slice][outcome.evidence.mask] >= 130).all()
    assert outcome.findings[0].key_slice == outcome.evidence.key_slice


def test_the_finding_s_box_holds_the_plaques():
    scan, organs, truth = usual()
    low, high = np.sort(np.array(run(scan, organs).findings[0].box_mm), axis=0)
    for lesion in truth.lesions:
        assert (np.array(lesion.centre_mm) >= low - 3.0).all()
        assert (np.array(lesion.centre_mm) <= high + 3.0).all()


def test_thresholds_are_the_configuration_s():
    scan, organs, _ = usual()
    assert run(scan, organs, CoronaryCalciumSettings(finding_score=900)).status is Status.NORMAL
    assert run(scan, organs, CoronaryCalciumSettings(soon_score=50)).urgency is Urgency.SOON
    assert run(scan, organs).urgency is Urgency.ROUTINE


def test_it_asks_for_120_kv_and_an_adult():
    needs = SCREENING.needs(CoronaryCalciumSettings())
    assert needs.kvp_range == (120.0, 120.0)
    assert needs.age_range_years[0] == 30.0
    assert KernelFamily.SHARP not in needs.kernels


def test_an_estimate_is_called_one():
    scan, organs, _ = usual()
    assert any("non-gated" in caveat for caveat in run(scan, organs).caveats)


# --- what must not change the score ---------------------------------------------------------------------------------
@pytest.mark.parametrize("flips", [(0,), (1, 2), (0, 1, 2)])
def test_the_order_of_slices_rows_and_columns_changes_nothing(flips):
    scan, organs, _ = usual()
    affine = scan.volume.affine.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (scan.volume.shape[axis] - 1)
        affine[:3, axis] *= -1
    flipped = replace(scan, volume=Volume(np.ascontiguousarray(np.flip(scan.volume.hu, flips)), affine))
    assert score(flipped, organs) == pytest.approx(score(scan, organs), rel=1e-6)


def test_a_smaller_field_of_view_changes_nothing():
    scan, organs, _ = usual()
    affine = scan.volume.affine.copy()
    affine[:3, 3] += affine[:3, 1] * 30 + affine[:3, 2] * 30
    hu = np.ascontiguousarray(scan.volume.hu[:, 30:-30, 30:-30])
    assert score(replace(scan, volume=Volume(hu, affine)), organs) == pytest.approx(score(scan, organs))


def test_a_map_that_holds_the_muscle_only_still_finds_the_arteries():
    from scipy import ndimage

    scan, organs, _ = usual()
    labels = organs.labels.copy()
    shrunk = ndimage.binary_erosion(organs.mask("heart"))
    labels[organs.mask("heart") & ~shrunk] = organs.values["body"]
    assert score(scan, replace(organs, labels=labels)) == pytest.approx(score(scan, organs), rel=0.02)


# --- what is not coronary calcium -----------------------------------------------------------------------------------
def test_calcium_of_the_aorta_s_wall_is_not_counted():
    scan, organs, _ = usual()
    inside = organs.mask("aorta")
    z, y, x = next(place for place in np.argwhere(inside) if organs.mask("heart")[place[0]].any())
    position = organs.affine[:3, :3] @ (z, y, x) + organs.affine[:3, 3]
    assert score(with_block(scan, position, 4.0, 500), organs) == pytest.approx(score(scan, organs))


def test_calcium_against_the_aorta_is_left_out_with_what_it_would_score():
    """An artery that touches the aorta cannot be told from its wall: nobody is left to guess that it is missing."""
    scan, organs, truth = usual()
    lesion = next(lesion for lesion in truth.lesions if lesion.vessel == "LAD")  # the map has an aorta just behind it
    z, y, x = np.rint(np.linalg.inv(organs.affine) @ (*lesion.centre_mm, 1.0))[:3].astype(int)
    labels = organs.labels.copy()
    labels[z - 2 : z + 3, y + 1 : y + 4, x - 2 : x + 3] = organs.values["aorta"]
    settings = CoronaryCalciumSettings(aorta_margin_mm=4.0)
    outcome = run(scan, replace(organs, labels=labels), settings)
    missing = score(scan, organs, settings) - value(outcome, "agatston_score")
    assert missing == pytest.approx(lesion.agatston_score, rel=0.05)
    said = next(caveat for caveat in outcome.caveats if "against the aorta" in caveat)
    assert f"they would score {missing:.0f})" in said


def test_bone_is_not_counted():
    scan, organs, truth = usual()
    labels = organs.labels.copy()
    lesion = next(lesion for lesion in truth.lesions if lesion.vessel == "LAD")  # the map calls it bone
    at = np.linalg.inv(organs.affine) @ (*lesion.centre_mm, 1.0)
    z, y, x = np.rint(at[:3]).astype(int)
    labels[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] = organs.values["bone"]
    assert score(scan, replace(organs, labels=labels)) == pytest.approx(
        score(scan, organs) - lesion.agatston_score, rel=0.05
    )


def test_calcium_deep_in_muscle_is_taken_for_a_valve_and_said():
    from scipy import ndimage

    scan, organs, _ = usual()
    depth = ndimage.distance_transform_edt(organs.mask("heart"), sampling=organs.spacing_mm)
    deepest = organs.affine[:3, :3] @ np.unravel_index(depth.argmax(), depth.shape) + organs.affine[:3, 3]
    outcome = run(with_block(scan, deepest, 5.0, 600), organs)
    assert value(outcome, "agatston_score") == pytest.approx(score(scan, organs))
    assert any("valves" in caveat and "1" in caveat for caveat in outcome.caveats)


def test_metal_gives_no_score():
    scan, organs, truth = usual()
    outcome = run(with_block(scan, truth.lesions[0].centre_mm, 3.0, 3000), organs)
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "metal_in_organ")


@pytest.mark.parametrize("end", ["bottom", "top"])
def test_a_heart_that_is_cut_gives_no_score(end):
    scan, organs, _ = usual()
    half = organs.labels.shape[0] // 2
    part = slice(half, None) if end == "bottom" else slice(0, half)
    affine = organs.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (part.start or 0)
    outcome = run(scan, replace(organs, labels=np.ascontiguousarray(organs.labels[part]), affine=affine))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "organ_cut_off")
    assert end in outcome.reason.text


def test_too_much_noise_gives_no_score():
    scan, organs, _ = usual()
    noise = np.random.default_rng(1).normal(0.0, 45.0, scan.volume.shape)

    def change(hu):
        hu += np.rint(noise).astype(np.int16)

    outcome = run(with_voxels(scan, change), organs)
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "noise_too_high")


def test_a_plaque_hardly_denser_than_noise_is_not_counted():
    scan, organs, _ = usual()
    assert score(scan, organs, CoronaryCalciumSettings(noise_multiple=15)) < score(scan, organs)


def test_calcium_of_a_bronchus_is_not_a_plaque():
    """A speck against the heart's border that lies in lung, as calcified nodes of the hilum do."""
    scan, organs, _ = usual()
    box, region = Anatomy(scan.volume, organs).native("heart", margin_mm=2.0)
    lung = scan.volume.hu[box] < -600
    places = np.argwhere(region & lung)
    middle = scan.volume.to_patient_mm(places[len(places) // 2] + [part.start for part in box])
    before, after = run(scan, organs), run(with_block(scan, middle, 3.0, 350), organs)
    assert value(after, "agatston_score") == pytest.approx(value(before, "agatston_score"), rel=0.01)
    assert any("beside lung or bronchi, not counted: 1 (they would score" in caveat for caveat in after.caveats)


def with_streak(scan, organs, peak_hu: float):
    """Muscle that moved against the left lung: a bright ridge along the heart's border that fades out into blood."""
    from scipy import ndimage

    heart = organs.mask("heart")
    lung = organs.mask("lung_left")
    muscle = ndimage.uniform_filter(sample_hu(scan, organs).astype(np.float32), 3) > 25
    edge = heart & muscle & ndimage.binary_dilation(lung, iterations=3)
    slices = np.flatnonzero(edge.any(axis=(1, 2)))
    place = np.argwhere(edge[slices[len(slices) // 2]])
    middle = np.array([slices[len(slices) // 2], *place[len(place) // 2]])
    centre = scan.volume.to_index(organs.affine[:3, :3] @ middle + organs.affine[:3, 3])
    index = np.indices(scan.volume.shape, dtype=np.float32)
    away = [(index[axis] - centre[axis]) * scan.volume.spacing_mm[axis] for axis in range(3)]
    ridge = np.exp(-np.sqrt((away[0] / 5.0) ** 2 + (away[1] / 9.0) ** 2 + (away[2] / 7.0) ** 2))

    def change(hu):
        tissue = hu > -50
        hu[tissue] += np.rint((peak_hu - 40.0) * ridge[tissue]).astype(np.int16)

    return with_voxels(scan, change)


def test_a_streak_of_the_heart_s_motion_is_not_counted_and_said():
    scan, organs, _ = usual()
    outcome = run(with_streak(scan, organs, 220.0), organs, CoronaryCalciumSettings(streak_score=1000))
    assert any("motion, not counted: 1" in caveat for caveat in outcome.caveats)
    assert value(outcome, "agatston_score") == pytest.approx(score(scan, organs), rel=0.02)


def test_streaks_that_outweigh_the_calcium_give_no_number():
    scan, organs, _ = usual()
    outcome = run(with_streak(scan, organs, 240.0), organs, CoronaryCalciumSettings(streak_score=50))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "motion_artifacts")


@pytest.mark.parametrize(("score", "words"), [(0.0, "0"), (0.4, "below 1"), (1.0, "1"), (312.4, "312")])
def test_a_trace_is_called_neither_one_nor_none(score, words):
    assert shown(score) == words
