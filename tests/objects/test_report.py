"""The structured report: what it says, what it refers to, and how it follows the one before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from appliance.results.objects import codes
from appliance.results.objects.write import write_objects
from appliance.screenings.contract import Status
from tests.objects.conftest import report_of, settings_of


def items_of(ds, path=()):
    """Every content item with the meanings of the names above it."""
    for item in ds.get("ContentSequence", ()):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        yield (*path, name), item
        yield from items_of(item, (*path, name))


def values(ds, *name: str) -> list:
    return [item for path, item in items_of(ds) if path[-len(name) :] == name]


@pytest.fixture(scope="module")
def report(plain):
    return plain.read("report")


def test_says_that_nobody_has_reviewed_it(report):
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.CompletionFlag == "COMPLETE"
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert "not reviewed" in report.SeriesDescription
    assert values(report, "Qualitative Evaluations", "Comment")[0].TextValue.startswith("AI result, not reviewed.")


def test_is_a_measurement_report(report):
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = [item for item in values(report, "Measurement Group") if item.ValueType == "CONTAINER"]
    templates = {group.ContentTemplateSequence[0].TemplateIdentifier for group in groups}
    assert templates == {"1410", "1411", "1501"}


def test_every_screening_is_listed_with_its_outcome(plain, report):
    for result in plain.report.screenings:
        item = values(report, "Qualitative Evaluations", codes.SCREENINGS[result.name].meaning)[0]
        assert item.ConceptCodeSequence[0].CodeValue == codes.STATUSES[result.outcome.status].value


def test_what_did_not_run_has_its_reason_as_code_and_words(report):
    reason = values(report, "Aorta screening", "Reason for no result")[0].ConceptCodeSequence[0]
    assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("R19", "99APPLIANCE")
    assert values(report, "Aorta screening", "Comment")[0].TextValue == "not in this scan: aorta"


def test_evidence_names_every_received_image_and_the_segmentation(plain, report):
    named = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    received = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in plain.files}
    assert named == received | {plain.read("segmentation-1").SOPInstanceUID}


def test_a_number_of_an_organ_refers_to_its_segment(plain, report):
    segment = values(report, "Measurement Group", "Referenced Segment")[0].ReferencedSOPSequence[0]
    segmentation = plain.read("segmentation-1")
    assert segment.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    number = segment.ReferencedSegmentNumber
    assert segmentation.SegmentSequence[number - 1].SegmentLabel == "liver"


def test_a_finding_is_a_rectangle_on_its_key_slice(plain, report):
    region = values(report, "Image Region")[0]
    image = region.ContentSequence[0].ReferencedSOPSequence[0]
    key = plain.report.screenings[0].outcome.findings[0].key_slice
    assert image.ReferencedSOPInstanceUID == plain.scan.volume.frames[key].sop_instance_uid
    # 17 pixels wide around the middle, from the edge of the first to the edge of the last
    assert [round(float(value), 2) for value in region.GraphicData] == [40, 40, 57, 40, 57, 57, 40, 57, 40, 40]


def test_the_algorithm_names_pack_appliance_and_settings(report):
    assert values(report, "Algorithm Name")[0].TextValue == "appliance liver_fat"
    assert values(report, "Algorithm Version")[0].TextValue == "1.2.3"
    parameters = [item.TextValue for item in values(report, "Algorithm Parameters")[:2]]
    assert parameters[0].startswith("pack trunk 0.1.0 sha256:")
    assert parameters[1].startswith("configuration sha256:")


def test_the_side_of_a_site_is_coded(report):
    sides = {item.ConceptCodeSequence[0].CodeMeaning for item in values(report, "Finding Site", "Laterality")}
    assert sides == {"Left"}


def test_private_codes_say_where_they_come_from(report):
    scheme = report.CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == codes.PRIVATE_SCHEME
    assert scheme.CodingSchemeUID == codes.PRIVATE_SCHEME_UID


def write(plain, folder, report, predecessor=None, **results):
    folder.mkdir(exist_ok=True)
    settings = settings_of(**results)
    paths = write_objects(folder, plain.scan, report, plain.organs, plain.files, settings, predecessor=predecessor)
    return {path.stem: pydicom.dcmread(path) for path in paths}


def test_the_same_result_is_the_same_objects(plain, tmp_path):
    again = write(plain, tmp_path, plain.report)
    assert {name: ds.SOPInstanceUID for name, ds in again.items()} == {
        path.stem: pydicom.dcmread(path).SOPInstanceUID for path in plain.objects
    }
    assert again["segmentation-1"].PixelData == plain.read("segmentation-1").PixelData


def other_pack(report):
    return replace(report, packs=tuple(replace(pack, digest="sha256:other") for pack in report.packs))


def other_number(report):
    def changed(item):
        measurements = tuple(replace(each, value=each.value + 0.01) for each in item.outcome.measurements)
        return replace(item, outcome=replace(item.outcome, measurements=measurements))

    return replace(report, screenings=tuple(map(changed, report.screenings)))


@pytest.mark.parametrize(
    ("change", "results"),
    [
        (other_pack, {}),
        (other_number, {}),
        (lambda report: replace(report, appliance_version="9.9.9"), {}),
        (lambda report: replace(report, config_digest="sha256:other"), {}),
        (lambda report: report, {"language": "zh"}),
        (lambda report: report, {"patient_name_on_captures": True}),
    ],
)
def test_the_same_revision_with_another_content_is_no_object_of_the_first(plain, tmp_path, change, results):
    other = write(plain, tmp_path, change(plain.report), **results)
    known = [pydicom.dcmread(path) for path in plain.objects]
    assert not {ds.SOPInstanceUID for ds in other.values()} & {ds.SOPInstanceUID for ds in known}
    assert not {ds.SeriesInstanceUID for ds in other.values()} & {ds.SeriesInstanceUID for ds in known}
    assert {ds.StudyInstanceUID for ds in other.values()} == {known[0].StudyInstanceUID}


def test_another_organ_map_gives_another_segmentation(plain, tmp_path):
    labels = plain.organs.labels.copy()
    labels[labels > 0] = np.roll(labels[labels > 0], 1)
    organs = replace(plain.organs, labels=labels)
    tmp_path.mkdir(exist_ok=True)
    paths = write_objects(tmp_path, plain.scan, plain.report, organs, plain.files, settings_of())
    again = {path.stem: pydicom.dcmread(path) for path in paths}
    assert again["segmentation-1"].SOPInstanceUID != plain.read("segmentation-1").SOPInstanceUID


def test_a_time_that_differs_changes_no_identifier(plain, tmp_path):
    slower = replace(
        plain.report,
        timings={"total_s": 99.0},
        screenings=tuple(replace(item, seconds=9.0) for item in plain.report.screenings),
    )
    again = write(plain, tmp_path, slower)
    assert {ds.SOPInstanceUID for ds in again.values()} == {
        pydicom.dcmread(path).SOPInstanceUID for path in plain.objects
    }


def test_a_predecessor_that_left_no_report_is_not_named(plain, tmp_path):
    second = write(plain, tmp_path, report_of(plain.scan, revision=2), predecessor=tmp_path / "none")
    assert "PredecessorDocumentsSequence" not in second["report"]


def test_a_new_revision_is_new_objects_and_names_the_one_before(plain, report, tmp_path):
    second = write(plain, tmp_path, report_of(plain.scan, revision=2), predecessor=plain.folder)
    assert not {ds.SOPInstanceUID for ds in second.values()} & {
        pydicom.dcmread(path).SOPInstanceUID for path in plain.objects
    }
    before = second["report"].PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert before.SeriesInstanceUID == report.SeriesInstanceUID
    assert before.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in report
    assert [item.UID for item in values(second["report"], "Tracking Unique Identifier")] == [
        item.UID for item in values(report, "Tracking Unique Identifier")
    ]


def test_a_report_without_any_number_is_a_report(plain, tmp_path):
    reasons = tuple(item for item in plain.report.screenings if item.outcome.reason is not None)
    objects = write(plain, tmp_path, replace(plain.report, screenings=reasons))
    assert set(objects) == {"report", "capture-summary", "summary"}
    assert not values(objects["report"], "Imaging Measurements")
    assert {item.outcome.status for item in reasons} == {Status.NOT_RUN, Status.ABSTAINED}


def test_only_the_kinds_that_are_wanted(plain, tmp_path):
    assert set(write(plain, tmp_path / "one", plain.report, objects=["sr"])) == {"report"}
    assert write(plain, tmp_path / "none", plain.report, objects=[]) == {}


def test_chinese_where_the_character_set_can_hold_it(plain, tmp_path):
    report = write(plain, tmp_path, plain.report, objects=["sr"], language="zh")["report"]
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert values(report, "Aorta screening", "Comment")[0].TextValue == "扫描范围未包含该器官"
    language = values(report, "Language of Content Item and Descendants")[0].ConceptCodeSequence[0]
    assert language.CodeValue == "zh-CN"


def test_a_segmentation_that_cannot_be_made_costs_nothing_else(plain, tmp_path, monkeypatch):
    from appliance.results.objects import segmentation

    monkeypatch.setattr(segmentation, "native_mask", lambda *_: 1 / 0)
    objects = write(plain, tmp_path, plain.report)
    assert {"report", "capture-summary"} <= set(objects)
    assert not values(objects["report"], "Referenced Segment")
