"""The accuracy tables say what was measured: errors, refusals and readings are counted as the page claims."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.reasons import Reason, ReasonCode
from appliance.screenings.contract import Measurement, Outcome, Status
from appliance.screenings.registry import screenings
from tests.accuracy.grid import GRID
from tests.accuracy.judged import AIMS, Comparison, compare
from tests.accuracy.page import page
from tests.accuracy.real import NUMBERS, Line

ROOT = Path(__file__).parents[2]
CARD = ROOT / "models" / "trunk" / "MODEL_CARD.md"


def line(measured: float | None, read: str) -> Line:
    return Line("one", "aorta", "ascending_aorta_diameter_mm", measured, "" if measured else "organ_cut_off", read)


@pytest.mark.parametrize(
    ("measured", "read", "difference"),
    [
        (36.0, "34.5 ± 2", 1.5),
        (36.0, "30 to 34", 2.0),
        (32.0, "30 to 34", 0.0),
        (28.0, "30 to 34", -2.0),
        (7.0, "none seen", 7.0),
        (1.0, "stones on both sides", None),
        (None, "34.5 ± 2", None),
        (36.0, "", None),
    ],
)
def test_a_difference_is_measured_less_read(measured, read, difference):
    assert line(measured, read).difference == difference


def test_an_error_is_a_share_of_the_truth_where_the_aim_is():
    assert Comparison("agatston", 200.0, 210.0, "").error == pytest.approx(5.0)
    assert Comparison("liver", 60.0, 57.0, "").error == pytest.approx(-3.0)
    assert Comparison("liver", 60.0, None, "organ_cut_off").error is None


def test_every_screening_has_an_aim_and_is_shown_on_real_scans():
    assert {aim.screening for aim in AIMS.values()} == set(screenings())
    assert set(NUMBERS) == set(screenings())


def test_a_refusal_is_compared_as_one():
    from appliance.phantom import PhantomOptions
    from appliance.phantom.api import scan_patient

    small = PhantomOptions(rows=64, columns=64, pixel_spacing_mm=6.0, slice_spacing_mm=6.0, slice_thickness_mm=6.0)
    truth = scan_patient(small)[1]
    refused = Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.ORGAN_CUT_OFF, "cut"))
    outcomes = dict.fromkeys(screenings(), refused)
    outcomes["liver_fat"] = Outcome(Status.NORMAL, measurements=(Measurement("liver_mean_hu", 62.0, "HU", "liver"),))
    found = {item.aim: item for item in compare(truth, outcomes)}
    assert found["liver"].error == pytest.approx(2.0)
    assert found["spleen"].reason == "left out with a caveat"
    assert found["no_calcium"].reason == "organ_cut_off"


def test_the_page_counts_numbers_refusals_and_the_worst():
    items = [Comparison("liver", 60.0, 62.0, ""), Comparison("spleen", 50.0, None, "organ_implausible")]
    judged = {kind: dict.fromkeys(GRID, items) for kind in ("true map", "network's map")}
    text = page(judged, [line(36.0, "34.5 ± 2"), line(None, "")], [], CARD, "a machine", "2026-01-01")
    count = len(GRID)
    assert f"| liver | 3 HU | {count} of {count} | 2.0 | +2.0 (1.5 mm) | {count} of {count} |" in text
    assert f"| spleen | 3 HU | 0 of {count} |  |  | 0 of 0 | {count} × `organ_implausible` |" in text
    assert "| `ascending_aorta_diameter_mm` | 1 | +1.5 |" in text
    assert "Dice f32" in text


def test_what_was_not_measured_is_said():
    empty = {kind: {} for kind in ("true map", "network's map")}
    assert "none of the tables:** 3 mm; lidc" in page(empty, [], ["3 mm", "lidc"], CARD, "a machine", "2026-01-01")


def test_the_published_page_is_of_this_grid():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    left_out = re.findall(r"in none of the tables:\*\* (.*)\. The same command", text)
    untold = [name for name in GRID if f"| {name} |" not in text and name not in "".join(left_out).split("; ")]
    assert untold == []
    assert [aim.title for aim in AIMS.values() if f"| {aim.title} |" not in text] == []
