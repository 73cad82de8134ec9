"""Codes are the standard's, or in the conformance statement; every measurement, reason and screening has one."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.sr._concepts_dict import concepts

from appliance.reasons import ReasonCode
from appliance.results.objects import codes, words
from appliance.screenings.contract import Measurement, Status, Urgency
from appliance.screenings.registry import screenings

DOCS = Path(__file__).parents[2] / "docs"
#: Reasons that refuse a whole series or end an attempt; no report is written then.
_WITHOUT_REPORT = (
    "no_dicom unreadable_file archive_unsafe archive_too_large not_ct localizer not_original_axial too_few_slices "
    "missing_slice irregular_spacing mixed_orientation mixed_geometry conflicting_duplicates missing_geometry "
    "not_hounsfield pixel_data_unreadable too_large images_deleted worker_lost memory_limit time_limit "
    "attempts_exhausted delivery_parked"
)


def measurements() -> list[tuple[str, str]]:
    text = (DOCS / "interfaces.md").read_text(encoding="utf-8")
    table = text.partition("## Measurement names")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z0-9_]+)` \| `([^`]+)` \|", table, flags=re.MULTILINE)


def test_standard_codes_are_those_of_the_dicom_dictionary():
    for code, meaning in codes.STANDARD.items():
        scheme, _, value = code.partition(":")
        found = [entry[value][0] for entry in concepts[scheme].values() if value in entry]
        assert found == [meaning]


def test_every_private_code_is_in_the_conformance_statement_and_no_other():
    text = (DOCS / "conformance.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([MSORU]\d+)` \| ([^|]+) \|", text, flags=re.MULTILINE)
    assert [(value, meaning.strip()) for value, meaning in listed] == [
        (concept.value, concept.meaning) for concept in codes.private_concepts()
    ]
    assert codes.PRIVATE_SCHEME_UID in text


def test_no_private_code_is_used_twice():
    values = [concept.value for concept in codes.private_concepts()]
    assert len(values) == len(set(values))
    assert all(len(concept.meaning) <= 64 for concept in codes.private_concepts())


def test_every_measurement_has_a_concept_a_unit_and_a_chinese_name():
    standard = {
        "agatston_score", "calcium_volume_mm3", "calcium_mass_mg", "liver_mean_hu", "spleen_mean_hu",
        "kidney_stone_mean_hu", "ascending_aorta_diameter_mm", "descending_aorta_diameter_mm",
        "pulmonary_trunk_diameter_mm", "vertebra_trabecular_hu", "skeletal_muscle_hu",
    }  # fmt: skip
    for name, unit in measurements():
        assert (name in codes.MEASUREMENTS) != (name in standard), name
        assert unit in codes.UNITS
        assert name in words.MEASUREMENTS_ZH
    assert len(measurements()) > 30


def test_a_measurement_that_nobody_coded_keeps_its_name():
    concept = codes.measured(Measurement("nodule_volume_mm3", 1.0, "mm3"))
    assert (concept.value, concept.meaning) == ("M999", "nodule volume mm3")


def test_every_screening_has_a_concept_and_a_chinese_title():
    assert set(codes.SCREENINGS) == set(screenings()) == set(words.TITLES_ZH)


def test_every_reason_of_a_screening_is_coded():
    assert set(codes.REASONS) == set(words.REASONS_ZH)
    assert {code.value for code in ReasonCode} - {code.value for code in codes.REASONS} == set(_WITHOUT_REPORT.split())


def test_every_outcome_and_urgency_is_coded():
    assert set(codes.STATUSES) == set(Status)
    assert set(codes.URGENCIES) == set(Urgency)
