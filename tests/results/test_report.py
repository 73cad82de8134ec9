"""The public JSON: every key that outsiders rely on, and a table that people understand."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from appliance.anatomy.derived import Anatomy
from appliance.reasons import Reason, ReasonCode
from appliance.results.report import NOTICE, Report, ScreeningResult
from appliance.results.table import print_report, sentences
from appliance.screenings.contract import Outcome, Status
from appliance.screenings.emphysema import SCREENING, EmphysemaSettings
from tests.screenings.chest import PACK, Chest, make


@pytest.fixture(scope="module")
def report() -> dict:
    scan, organs = make(Chest(low_fraction=0.1))
    refused = Outcome(Status.NOT_RUN, reason=Reason(ReasonCode.SLICE_TOO_THICK, "5.0 mm slices; at most 3.0 mm"))
    return Report(
        appliance_version="1.2.3",
        config_digest="sha256:0",
        scan=scan,
        coverage=("chest",),
        contrast="none",
        packs=(PACK,),
        screenings=(
            ScreeningResult("emphysema", SCREENING.run(scan, Anatomy(scan.volume, organs), EmphysemaSettings()), 0.5),
            ScreeningResult("coronary_calcium", refused, 0.0),
        ),
        timings={"decode_s": 0.1, "organ_map_s": 0.2, "screenings_s": 0.3, "total_s": 0.6},
    ).to_json()


def test_it_is_json_without_special_numbers(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_keys_that_outsiders_rely_on(report):
    assert {"version", "config_digest"} <= set(report["appliance"])
    assert {
        "study_instance_uid",
        "series_instance_uid",
        "modality",
        "slices",
        "spacing_mm",
        "coverage",
        "contrast",
        "revision",
    } <= set(report["scan"])
    assert {"name", "version", "digest", "precision", "device"} <= set(report["packs"][0])
    assert set(report["timings"]) == {"decode_s", "organ_map_s", "screenings_s", "total_s", "shared_s"}
    for screening in report["screenings"]:
        assert {"name", "status", "urgency", "reason", "seconds", "summary", "measurements", "findings"} <= set(
            screening
        )


def test_a_reason_is_there_exactly_when_nothing_was_measured(report):
    measured, refused = report["screenings"]
    assert measured["reason"] is None
    assert refused["reason"] == {"code": "slice_too_thick", "text": "5.0 mm slices; at most 3.0 mm"}


def test_the_finding_names_the_instance_that_shows_it(report):
    uid = report["screenings"][0]["findings"][0]["key_slice_sop_instance_uid"]
    assert uid.startswith("1.2.3.")


def test_the_notice_is_part_of_every_result(report):
    assert report["appliance"]["notice"] == NOTICE
    assert "not reviewed" in NOTICE


def test_the_table_has_the_finding_and_the_reason(report):
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=140))
    text = stream.getvalue()
    assert "FINDING" in text
    assert "5.0 mm slices; at most 3.0 mm" in text
    assert "not reviewed" in text


def test_text_from_a_header_is_not_taken_for_markup(report):
    stream = io.StringIO()
    odd = report | {"scan": report["scan"] | {"kernel": "[/b] FC[51]", "notes": ["[red]note"]}}
    print_report(odd, Console(file=stream, width=140))
    assert "kernel [/b] FC[51]" in stream.getvalue()
    assert "[red]note" in stream.getvalue()


def test_a_sentence_for_every_screening(report):
    lines = sentences(report)
    assert len(lines) == 2
    assert lines[0].startswith("Emphysema ran (FINDING)")
    assert "[slice_too_thick]" in lines[1]


def test_an_outcome_without_result_or_reason_cannot_exist():
    with pytest.raises(ValueError, match="never neither"):
        Outcome(Status.NOT_RUN)
