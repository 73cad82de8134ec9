"""Every "no" of the planner has its code, and an image that cannot be trusted gives no number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.anatomy.derived import Anatomy
from appliance.config import Settings
from appliance.reasons import Reason, ReasonCode
from appliance.scan import ContrastTag, KernelFamily
from appliance.screenings.contract import Needs, Status
from appliance.screenings.guards import judge
from appliance.screenings.planner import plan, run_entry
from appliance.screenings.registry import screenings
from tests.screenings.chest import Chest, make

PROVIDED = {"body", "lung_left", "lung_right", "airways", "bone"}


def entry_of(chest: Chest, provided=PROVIDED, settings=None):
    scan, _ = make(chest)
    planned = plan(scan, provided, settings or Settings().screenings)
    return next(entry for entry in planned.entries if entry.screening.name == "emphysema")


def code_of(chest: Chest, **kwargs):
    reason = entry_of(chest, **kwargs).reason
    return reason.code if reason else None


SMALL = Chest(spacing_mm=(6.0, 6.0, 6.0))


def test_an_ordinary_chest_may_run():
    assert code_of(Chest()) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"slice_thickness_mm": 5.0}, "slice_too_thick"),
        ({"kernel_family": KernelFamily.SHARP}, "kernel_too_sharp"),
        ({"patient_age_years": 7.0}, "age_out_of_range"),
    ],
)
def test_the_header_can_say_no(changes, code):
    assert code_of(Chest().with_acquisition(**changes)) == code


def test_wide_spacing_counts_as_thick_even_when_the_header_says_thin():
    assert code_of(SMALL) == "slice_too_thick"


def test_a_pack_that_lacks_a_structure_says_no():
    assert code_of(Chest(), provided={"body"}) == "structure_not_provided"


def test_a_screening_can_be_switched_off():
    settings = Settings.model_validate({"screenings": {"emphysema": {"enabled": False}}})
    assert code_of(Chest(), settings=settings.screenings) == "disabled"


def test_every_registered_screening_is_in_the_plan():
    scan, _ = make(SMALL)
    planned = plan(scan, PROVIDED, Settings().screenings)
    assert [entry.screening.name for entry in planned.entries] == list(screenings())


def test_no_map_is_wanted_when_nothing_may_run():
    scan, _ = make(SMALL)
    assert not plan(scan, PROVIDED, Settings().screenings).needs_organ_map


def outcome_of(chest: Chest, implausible=None):
    scan, organs = make(chest)
    return run_entry(entry_of(chest), scan, Anatomy(scan.volume, organs, implausible), judge(scan, organs))


def test_a_wrong_hounsfield_scale_abstains():
    outcome = outcome_of(Chest(offset_hu=60))
    assert (outcome.status, outcome.reason.code) == (Status.ABSTAINED, "air_not_calibrated")


def test_contrast_that_the_header_hides_abstains():
    assert outcome_of(Chest(blood_hu=140)).reason.code == "contrast_disagrees"


def test_a_header_that_says_contrast_is_compared_with_the_image():
    given = {"contrast_tag": ContrastTag.GIVEN}
    agreed = outcome_of(Chest(blood_hu=140).with_acquisition(**given))
    assert (agreed.status, agreed.reason.code) == (Status.NOT_RUN, "contrast_enhanced")
    doubted = outcome_of(Chest().with_acquisition(**given))
    assert (doubted.status, doubted.reason.code) == (Status.ABSTAINED, "contrast_disagrees")


def test_an_implausible_organ_abstains():
    doubt = {"lung_left": Reason(ReasonCode.ORGAN_IMPLAUSIBLE, "the left lung is on the right")}
    assert outcome_of(Chest(), doubt).reason.code == "organ_implausible"


def test_a_scan_without_lungs_is_not_covered():
    assert outcome_of(Chest(lung_scale=0.01)).reason.code == "region_not_covered"


def test_a_good_chest_runs():
    assert outcome_of(Chest(low_fraction=0.1)).status is Status.FINDING


# --- one of a pair is enough --------------------------------------------------------------------------------------


def of_the_lungs(implausible=None, without=()):
    """An entry that needs one lung, on a chest that lacks some."""
    scan, organs = make(Chest())
    labels = organs.labels.copy()
    for name in without:
        labels[labels == organs.values[name]] = organs.values["body"]
    organs = replace(organs, labels=labels)
    entry = replace(entry_of(Chest()), needs=Needs(structures=("body",), one_of=("lung_left", "lung_right")))
    return run_entry(entry, scan, Anatomy(scan.volume, organs, implausible), judge(scan, organs))


DOUBT = Reason(ReasonCode.ORGAN_IMPLAUSIBLE, "The left lung measures 5 mL.")


def test_one_of_a_pair_that_is_missing_or_doubted_does_not_stop_a_screening():
    assert of_the_lungs({"lung_left": DOUBT}).reason is None


@pytest.mark.parametrize(
    ("doubted", "without", "code"),
    [
        ((), ("lung_left", "lung_right"), "region_not_covered"),
        (("lung_left", "lung_right"), (), "organ_implausible"),
        (("lung_left",), ("lung_right",), "organ_implausible"),
    ],
)
def test_a_pair_of_which_nothing_is_left_has_its_reason(doubted, without, code):
    assert of_the_lungs(dict.fromkeys(doubted, DOUBT), without).reason.code == code


def test_reasons_name_organs_as_people_do():
    assert "left lung" in entry_of(Chest(), provided={"body"}).reason.text


def test_a_number_that_needs_a_plain_scan_says_when_nothing_tells_that_it_is_one():
    scan, organs = make(Chest())
    image = replace(judge(scan, organs), contrast="unknown")
    outcome = run_entry(entry_of(Chest()), scan, Anatomy(scan.volume, organs), image)
    assert any("whether contrast was given" in caveat for caveat in outcome.caveats)
    assert not any("contrast" in caveat for caveat in outcome_of(Chest()).caveats)
