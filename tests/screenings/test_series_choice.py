"""Of several reconstructions of one acquisition each screening takes the one that suits it best, and only that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.config import Settings
from appliance.scan import Acquisition, ContrastTag, KernelFamily, SeriesSketch
from appliance.screenings.contract import Needs
from appliance.screenings.planner import _unsuitable, plan
from appliance.screenings.registry import screenings
from appliance.screenings.series_choice import better_series
from tests.screenings.chest import Chest, make


def sketch(uid: str, slice_mm: float = 1.0, kernel: str = "soft", number: int | None = 3, **changes) -> SeriesSketch:
    acquisition = Acquisition(
        kvp=120.0,
        kernel_family=KernelFamily(kernel),
        slice_thickness_mm=slice_mm,
        contrast_tag=changes.pop("contrast", ContrastTag.NONE),
    )
    plain = SeriesSketch("study", uid, "frame", number, frozenset({2}), (0.0, 300.0), slice_mm, acquisition)
    return replace(plain, **changes)


def better(own: SeriesSketch, *others: SeriesSketch, **needs):
    return better_series(own, others, Needs(structures=("heart",), **needs), _unsuitable)


THIN_SHARP, THIN_SOFT, THICK_SOFT = sketch("1", kernel="sharp"), sketch("2"), sketch("3", 5.0)
ALL = (THIN_SHARP, THIN_SOFT, THICK_SOFT)


@pytest.mark.parametrize(
    ("needs", "best"),
    [
        ({}, THIN_SOFT),
        ({"preferred_slice_mm": 5.0}, THICK_SOFT),
        ({"preferred_slice_mm": 3.0, "maximum_slice_mm": 3.0}, THIN_SOFT),
        ({"kernels": (KernelFamily.SHARP,)}, THIN_SHARP),
    ],
)
def test_exactly_one_series_runs_and_the_others_name_it(needs, best):
    reasons = {own.series_instance_uid: better(own, *(x for x in ALL if x is not own), **needs) for own in ALL}
    suitable = [own for own in ALL if _unsuitable(own, Needs(structures=(), **needs)) is None]
    running = [own for own in suitable if reasons[own.series_instance_uid] is None]
    assert running == [best]
    for own in suitable:
        if own is not best:
            assert reasons[own.series_instance_uid].code == "better_series"
            assert f"series {best.series_number}" in reasons[own.series_instance_uid].text


def test_equals_agree_on_one():
    twins = sketch("8"), sketch("9")
    assert better(twins[0], twins[1]) is None
    assert better(twins[1], twins[0]) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"study_instance_uid": "another"},
        {"frame_of_reference_uid": "another"},
        {"acquisition_numbers": frozenset({3})},
        {"extent_mm": (0.0, 200.0)},
        {"contrast": ContrastTag.GIVEN},
    ],
)
def test_what_shows_something_else_is_no_alternative(changes):
    assert better(THICK_SOFT, sketch("2", **changes)) is None
    assert better(THICK_SOFT, sketch("2")) is not None


def test_a_silent_header_gives_no_choice():
    own = replace(THICK_SOFT, acquisition_numbers=frozenset())
    assert better(own, replace(THIN_SOFT, acquisition_numbers=frozenset())) is None


def test_a_series_without_a_number_is_named_all_the_same():
    assert better(THICK_SOFT, sketch("2", number=None)).text.startswith("another series")


def test_the_planner_asks_only_where_the_series_itself_would_do():
    scan, _ = make(Chest(height_mm=60.0))
    provided = {"body", "lung_left", "lung_right", "airways"}
    study = (THICK_SOFT, (THIN_SOFT,))
    entries = {
        entry.screening.name: entry.reason for entry in plan(scan, provided, Settings().screenings, study).entries
    }
    assert entries["emphysema"].code == "better_series"
    assert plan(scan, set(), Settings().screenings, study).entries[0].reason.code == "structure_not_provided"


def test_a_soft_kernel_does_not_make_up_for_slices_that_are_too_thick():
    assert better(THIN_SHARP, THICK_SOFT, preferred_slice_mm=3.0) is None
    assert better(THICK_SOFT, THIN_SHARP, preferred_slice_mm=3.0) is not None


@pytest.mark.parametrize(("name", "best_mm"), [("coronary_calcium", 2.5), ("vertebral_fracture", 1.25)])
def test_a_score_defined_on_3_mm_takes_such_slices_and_endplates_take_thin_ones(name, best_mm):
    screening = screenings()[name]
    needs = screening.needs(screening.settings_model())
    series = [sketch("a", 0.625), sketch("b", 1.25), sketch("c", 2.5), sketch("d", 5.0)]
    running = [
        own for own in series if better_series(own, [x for x in series if x is not own], needs, _unsuitable) is None
    ]
    assert [own.slice_thickness_mm for own in running if _unsuitable(own, needs) is None] == [best_mm]
