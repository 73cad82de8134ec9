"""Aorta and pulmonary trunk against a phantom whose every diameter is known."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.vessels import Branch, Stretch, aorta, hiatus
from appliance.phantom import PhantomOptions
from appliance.reasons import Reason, ReasonCode
from appliance.scan import Volume
from appliance.screenings.aorta import SCREENING as AORTA
from appliance.screenings.aorta import AortaSettings, _beside, _Segment, _supported
from appliance.screenings.contract import Status, Urgency
from appliance.screenings.pulmonary_artery import SCREENING as TRUNK
from appliance.screenings.pulmonary_artery import _doubtful, _measured
from tests.screenings.example_abdomen import example_abdomen
from tests.screenings.patients import patient as make_patient
from tests.screenings.patients import value

if TYPE_CHECKING:
    from appliance.anatomy.organ_map import OrganMap

# A narrow field of view: the vessels, the heart and the spine are in it.
BASE = PhantomOptions(
    slice_thickness_mm=3.0,
    slice_spacing_mm=3.0,
    pixel_spacing_mm=0.9,
    rows=224,
    columns=224,
    coverage_low_mm=-200.0,
    coverage_high_mm=205.0,
)
#: Slice, spacing, noise, kernel, orientation, size of the vessels and of the patient, density of blood: a guard;
#: `make accuracy` has the whole grid.
#: From 30 mm on the phantom's descending aorta overlaps its oesophagus above the diaphragm: none is larger here.
GRID = {
    "plain": {},
    "thick and oblique": {
        "slice_thickness_mm": 5.0,
        "slice_spacing_mm": 5.0,
        "oblique_degrees": 12.0,
        "noise_hu": 25.0,
        "ascending_aorta_diameter_mm": 46.0,
        "descending_aorta_diameter_mm": 28.0,
        "abdominal_aorta_diameter_mm": 27.0,
        "pulmonary_trunk_diameter_mm": 33.0,
    },
    "oblique the other way": {
        "slice_thickness_mm": 5.0,
        "slice_spacing_mm": 4.0,
        "oblique_degrees": -15.0,
        "ascending_aorta_diameter_mm": 40.0,
        "descending_aorta_diameter_mm": 29.0,
        "abdominal_aorta_diameter_mm": 28.0,
        "pulmonary_trunk_diameter_mm": 30.0,
    },
    "small patient": {
        "slice_thickness_mm": 2.0,
        "slice_spacing_mm": 2.0,
        "blood_hu": 35.0,
        "noise_hu": 20.0,
        "kernel": "medium",
        "patient_height_m": 1.6,
        "width_scale": 0.92,
        "depth_scale": 0.92,
        "ascending_aorta_diameter_mm": 36.0,
        "descending_aorta_diameter_mm": 26.0,
        "abdominal_aorta_diameter_mm": 24.0,
        "pulmonary_trunk_diameter_mm": 28.0,
        "sex": "F",
    },
}


@lru_cache(maxsize=len(GRID))
def person(name: str):
    return make_patient(replace(BASE, **GRID[name]))


def run(screening, scan, organs, settings=None):
    return screening.run(scan, Anatomy(scan.volume, organs), settings or screening.settings_model())


@lru_cache(maxsize=2 * len(GRID))
def result(name: str, screening):
    """An answer even beside a threshold: what is tested is the measurement, not whether it is believed there."""
    scan, organs, _ = person(name)
    return run(screening, scan, organs, screening.settings_model(unseen_border_mm=0.0))


def relabelled(organs: OrganMap, mask, name: str | None = None) -> OrganMap:
    labels = organs.labels.copy()
    labels[mask] = organs.values[name] if name else organs.values["body"]
    return replace(organs, labels=labels)


def below(organs: OrganMap, height_mm: float):
    heights = organs.affine[2, 0] * np.arange(organs.labels.shape[0]) + organs.affine[2, 3]
    return heights < height_mm


@pytest.mark.slow
def test_what_lies_against_the_vessel_does_not_decide_beside_a_threshold():
    scan, organs, _ = person("oblique the other way")
    settings = AortaSettings(ascending_dilated_mm=39.0, clear_border_percent=100.0)
    outcome = run(AORTA, scan, organs, settings)
    assert "ascending_aorta_diameter_mm" not in {item.name for item in outcome.measurements}
    assert any("too uncertain" in text for text in outcome.caveats)


@pytest.mark.slow
def test_an_unseen_border_of_the_trunk_does_not_decide_beside_the_threshold():
    scan, organs, _ = person("plain")
    measured = _measured(Anatomy(scan.volume, organs), TRUNK.settings_model())
    unseen = replace(measured, diameter_mm=30.0, doubt_mm=2.0, aorta_mm=None)
    assert _doubtful(scan, unseen, TRUNK.settings_model()).code.value == "organ_implausible"
    assert _doubtful(scan, replace(unseen, diameter_mm=26.5), TRUNK.settings_model()) is None
    assert _doubtful(scan, replace(unseen, doubt_mm=0.0), TRUNK.settings_model()) is None


# --- exactness --------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name", list(GRID))
@pytest.mark.parametrize("part", ["ascending_aorta", "descending_aorta", "abdominal_aorta"])
def test_aortic_diameters_within_a_millimetre(name, part):
    truth = person(name)[2].diameters_mm[part]
    assert value(result(name, AORTA), f"{part}_diameter_mm") == pytest.approx(truth, abs=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(GRID))
def test_pulmonary_trunk_within_a_millimetre(name):
    truth = person(name)[2].diameters_mm["pulmonary_trunk"]
    assert value(result(name, TRUNK), "pulmonary_trunk_diameter_mm") == pytest.approx(truth, abs=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(GRID))
def test_ratio_to_the_aorta(name):
    diameters = person(name)[2].diameters_mm
    ratio = diameters["pulmonary_trunk"] / diameters["ascending_aorta"]
    assert value(result(name, TRUNK), "pa_to_aorta_ratio") == pytest.approx(ratio, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [(0, 1, 0), (0, 0, -1)])
def test_a_map_that_is_a_voxel_off_moves_the_diameters_little(shift):
    scan, organs, truth = person("plain")
    moved = replace(organs, labels=np.roll(organs.labels, shift, axis=(0, 1, 2)))
    for part in ("ascending_aorta", "descending_aorta", "abdominal_aorta"):
        measured = value(run(AORTA, scan, moved), f"{part}_diameter_mm")
        assert measured == pytest.approx(truth.diameters_mm[part], abs=1.3)


@pytest.mark.slow
@pytest.mark.parametrize("flips", [(0,), (1, 2), (0, 1, 2)])
def test_the_order_of_slices_rows_and_columns_changes_nothing(flips):
    scan, organs, _ = person("plain")
    affine = scan.volume.affine.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (scan.volume.shape[axis] - 1)
        affine[:3, axis] *= -1
    flipped = replace(scan, volume=Volume(np.ascontiguousarray(np.flip(scan.volume.hu, flips)), affine))
    for screening in (AORTA, TRUNK):
        for one, other in zip(
            result("plain", screening).measurements, run(screening, flipped, organs).measurements, strict=True
        ):
            assert one.value == pytest.approx(other.value, abs=0.02)


# --- a map that takes in the oesophagus -------------------------------------------------------------
@lru_cache(maxsize=1)
def with_oesophagus() -> OrganMap:
    """The true map, but above the diaphragm the oesophagus, which lies against the aorta there, is called aorta."""
    _, organs, _ = person("plain")
    beside = below(organs, 40.0) & ~below(organs, 12.0)
    return relabelled(organs, organs.mask("esophagus") & beside[:, None, None], "aorta")


@pytest.mark.slow
def test_a_neighbour_that_the_map_takes_in_is_no_part_of_the_diameter():
    scan, _, truth = person("plain")
    measured = value(run(AORTA, scan, with_oesophagus()), "descending_aorta_diameter_mm")
    assert measured == pytest.approx(truth.diameters_mm["descending_aorta"], abs=1.0)


@pytest.mark.slow
def test_what_stands_out_past_the_threshold_gives_no_number():
    scan, organs, _ = person("plain")
    settings = AortaSettings(descending_dilated_mm=27.0)
    assert "descending_aorta_diameter_mm" in {item.name for item in run(AORTA, scan, organs, settings).measurements}
    outcome = run(AORTA, scan, with_oesophagus(), settings)
    assert "descending_aorta_diameter_mm" not in {item.name for item in outcome.measurements}
    assert any("stands out to one side" in caveat for caveat in outcome.caveats)


def segment(diameter_mm: float) -> _Segment:
    return _Segment(Stretch.DESCENDING, diameter_mm, Branch(None, (), (False, False)), 0)


def test_what_stands_out_never_makes_a_finding_smaller_than_its_grade():
    settings = AortaSettings()
    assert _beside(segment(25.0), segment(29.0), settings).diameter_mm == 25.0
    assert _beside(segment(25.0), segment(31.0), settings).code.value == "organ_implausible"
    assert _beside(segment(32.0), segment(36.0), settings).diameter_mm == 32.0
    wider = _beside(segment(38.0), segment(44.0), settings)
    assert (wider.diameter_mm, "a pouch of its wall" in wider.note) == (44.0, True)
    assert _beside(segment(52.0), segment(58.0), settings).diameter_mm == 58.0
    doubt = Reason(ReasonCode.ORGAN_IMPLAUSIBLE, "hidden")
    assert _beside(segment(25.0), doubt, settings) is doubt


# --- thresholds -------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_healthy_aorta_is_normal():
    outcome = result("plain", AORTA)
    assert (outcome.status, outcome.urgency, outcome.findings) == (Status.NORMAL, Urgency.ROUTINE, ())


@pytest.mark.slow
def test_an_ascending_aneurysm_is_found_soon():
    outcome = result("thick and oblique", AORTA)
    assert (outcome.status, outcome.urgency) == (Status.FINDING, Urgency.SOON)
    assert outcome.findings[0].code == "SCT:67362008"


@pytest.mark.slow
def test_the_urgent_threshold_is_the_configuration_s():
    scan, organs, _ = person("thick and oblique")
    assert run(AORTA, scan, organs, AortaSettings(urgent_mm=45.0)).urgency is Urgency.URGENT


@pytest.mark.slow
def test_women_have_the_lower_threshold():
    scan, organs, _ = person("small patient")
    as_man = replace(scan, acquisition=replace(scan.acquisition, patient_sex="M"))
    assert run(TRUNK, scan, organs).status is Status.FINDING
    assert run(TRUNK, as_man, organs).status is Status.NORMAL


@pytest.mark.slow
def test_an_unknown_sex_takes_the_higher_threshold_and_says_so():
    scan, organs, _ = person("small patient")
    outcome = run(TRUNK, replace(scan, acquisition=replace(scan.acquisition, patient_sex=None)), organs)
    assert outcome.status is Status.NORMAL
    assert any("sex is not known" in caveat for caveat in outcome.caveats)


def test_a_plane_whose_neighbours_are_not_trusted_gives_no_maximum():
    trusted = np.array([True, True, False, True, True, True, False, True])
    assert _supported(trusted).nonzero()[0].tolist() == [0, 4]


# --- where the aorta is what ------------------------------------------------------------------------
@pytest.mark.slow
def test_the_hiatus_lies_between_the_twelfth_thoracic_and_the_first_lumbar_vertebra():
    scan, organs, truth = person("plain")
    centre = {vertebra.name: vertebra.centre_mm[2] for vertebra in truth.vertebrae}
    assert centre["L1"] < hiatus(Anatomy(scan.volume, organs)) < centre["T12"]


@pytest.mark.slow
def test_a_pack_that_names_the_vertebrae_gives_the_hiatus():
    scan, organs, truth = make_patient(replace(BASE, **GRID["plain"]), levels=True)
    body = next(item for item in truth.vertebrae if item.name == "T12")
    found = hiatus(Anatomy(scan.volume, organs))
    assert found == pytest.approx(body.centre_mm[2] - body.posterior_height_mm / 2, abs=5.0)


@pytest.mark.slow
def test_the_segments_follow_each_other():
    scan, organs, _ = person("plain")
    (branch,) = aorta(Anatomy(scan.volume, organs))
    order = list(dict.fromkeys(branch.stretches))
    assert order == [Stretch.ROOT, Stretch.ASCENDING, Stretch.ARCH, Stretch.DESCENDING, Stretch.ABDOMINAL]


@pytest.mark.slow
def test_the_centreline_is_worked_out_once_for_both_screenings():
    scan, organs, _ = person("plain")
    anatomy = Anatomy(scan.volume, organs)
    for screening in (AORTA, TRUNK):
        screening.run(scan, anatomy, screening.settings_model())
    assert anatomy.computed["aorta"] == 1


# --- what must not give a number --------------------------------------------------------------------
def cut(name: str, low: int, high: int):
    """Keep only some slices of the map and of the scan (both have 3 mm slices that rise)."""
    scan, organs, _ = person(name)
    affine = organs.affine.copy()
    affine[:3, 3] += affine[:3, 0] * low
    part = replace(organs, labels=np.ascontiguousarray(organs.labels[low:high]), affine=affine)
    from_mm, to_mm = affine[2, 3], affine[2, 3] + 3.0 * (high - low)
    heights = scan.volume.affine[2, 0] * np.arange(scan.volume.shape[0]) + scan.volume.affine[2, 3]
    kept = np.flatnonzero((heights >= from_mm - 1.5) & (heights <= to_mm - 1.5))
    moved = scan.volume.affine.copy()
    moved[:3, 3] += moved[:3, 0] * kept[0]
    hu = np.ascontiguousarray(scan.volume.hu[kept[0] : kept[-1] + 1])
    return replace(scan, volume=Volume(hu, moved)), part


@pytest.mark.slow
def test_a_scan_of_the_chest_gives_no_abdominal_diameter_and_says_so():
    outcome = run(AORTA, *cut("plain", 35, 135))
    names = {item.name for item in outcome.measurements}
    assert "abdominal_aorta_diameter_mm" not in names
    assert "ascending_aorta_diameter_mm" in names
    assert any("abdominal aorta" in caveat for caveat in outcome.caveats)


@pytest.mark.slow
def test_a_scan_below_the_arch_gives_neither_thoracic_diameter():
    outcome = run(AORTA, *cut("plain", 0, 100))
    names = {item.name for item in outcome.measurements}
    assert names == {"abdominal_aorta_diameter_mm"}
    assert any("ascending aorta" in caveat for caveat in outcome.caveats)
    assert any("descending thoracic aorta is not seen whole" in caveat for caveat in outcome.caveats)


@pytest.mark.slow
def test_a_scan_without_an_aorta_abstains():
    scan, organs, _ = person("plain")
    outcome = run(AORTA, scan, relabelled(organs, organs.mask("aorta")))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "region_not_covered")


@pytest.mark.slow
def test_a_gap_in_the_mask_is_not_bridged():
    scan, organs, _ = person("plain")
    gap = below(organs, 60.0) & ~below(organs, 30.0)
    holed = relabelled(organs, organs.mask("aorta") & gap[:, None, None])
    outcome = run(AORTA, scan, holed)
    assert "descending_aorta_diameter_mm" not in {item.name for item in outcome.measurements}
    assert any("separate pieces" in caveat for caveat in outcome.caveats)


@pytest.mark.slow
def test_a_border_without_fat_is_not_believed():
    scan, organs, _ = person("plain")
    hu = np.array(scan.volume.hu)
    hu[(hu > -200) & (hu < 30)] = 42  # a starved patient: no fat anywhere, and no air
    hu[hu < -200] = 42
    outcome = run(AORTA, replace(scan, volume=Volume(hu, scan.volume.affine)), organs)
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "organ_implausible")


@pytest.mark.slow
def test_a_trunk_that_is_cut_abstains():
    outcome = run(TRUNK, *cut("plain", 0, 108))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "organ_cut_off")


@pytest.mark.slow
def test_a_trunk_without_branches_abstains():
    scan, organs, _ = person("plain")
    columns = organs.affine[0, 2] * np.arange(organs.labels.shape[2]) + organs.affine[0, 3]
    branch = organs.mask("pulmonary_trunk") & ((columns < 5.0) | (columns > 38.0))[None, None, :]
    outcome = run(TRUNK, scan, relabelled(organs, branch))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "organ_implausible")


@pytest.mark.slow
def test_the_key_image_shows_the_diameter_that_was_measured():
    scan, _, _ = person("plain")
    for screening in (AORTA, TRUNK):
        evidence = result("plain", screening).evidence
        (start, end) = evidence.strokes[0]
        assert evidence.mask.any()
        assert np.linalg.norm(np.subtract(start, end)) * scan.volume.spacing_mm[1] == pytest.approx(26.0, abs=9.0)


def test_a_real_plain_abdomen_agrees_with_its_labels():
    """A model's labels at 3 mm; the diameter of a circle of the label's area in the widest slice below T12."""
    scan, organs = example_abdomen()
    outcome = run(AORTA, scan, organs)
    in_abdomen = below(organs, hiatus(Anatomy(scan.volume, organs)))
    area_mm2 = np.count_nonzero(organs.mask("aorta"), axis=(1, 2)) * 9.0
    widest_mm = 2.0 * np.sqrt(area_mm2[in_abdomen].max() / np.pi)
    assert [item.name for item in outcome.measurements] == ["abdominal_aorta_diameter_mm"]
    assert value(outcome, "abdominal_aorta_diameter_mm") == pytest.approx(widest_mm, abs=2.0)
