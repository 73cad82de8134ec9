"""What headers say of contrast, with the words that operators and scanners really write."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from appliance.dicom.image.contrast import from_descriptions, read_contrast_tag
from appliance.dicom.image.elements import Elements
from appliance.dicom.image.headers import read_header


def tag_of(**elements):
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return read_contrast_tag(Elements(ds))


@pytest.mark.parametrize(
    "text",
    [
        "平扫", "胸部CT平扫", "Chest plain", "Thorax NON CONTRAST", "non-contrast", "noncontrast",
        "CT ABD W/O CONTRAST", "CHEST WO", "ABD without IV contrast", "Thorax nativ 1.0", "C- 5mm",
        "Unenhanced", "NCCT head", "pre-contrast", "CHEST_W/O_1.25", "非增强",
    ],
)  # fmt: skip
def test_plain(text):
    assert from_descriptions([text]) == "none"


@pytest.mark.parametrize(
    "text",
    [
        "增强", "动脉期", "门脉期 1mm", "C+ 1.0", "CT ABDOMEN W/CONTRAST", "with contrast", "CTA Thorax",
        "Abd C+ delayed", "arterial", "PORTAL_VENOUS", "CECT", "post contrast", "CTPA", "冠脉造影",
        "ThorAbd  +C", "CE chest",
    ],
)  # fmt: skip
def test_enhanced(text):
    assert from_descriptions([text]) == "given"


@pytest.mark.parametrize(
    "text",
    [
        "", "Chest 1.25mm", "平扫+增强", "CT CHEST W/WO CONTRAST", "w & w/o contrast", "THORAX B70f",
        "CTAC", "Accessory", "Ceiling", "Recon 2: LUNG", "Body 5.0 Br36",
    ],
)  # fmt: skip
def test_silent_or_both(text):
    assert from_descriptions([text]) == "unknown"


def test_the_first_text_that_speaks_decides():
    assert from_descriptions(["Thorax 1mm", "平扫", "增强"]) == "none"


@pytest.mark.parametrize("agent", ["NONE", "None.", "NO", "no", "无", "0", "-", "N/A", "W/O"])
def test_agent_that_means_nothing(agent):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ContrastBolusAgent = agent
    assert read_contrast_tag(Elements(ds)) == "none"


@pytest.mark.parametrize("agent", ["Omnipaque 350", "APPLIED", "IOHEXOL", "CE", "碘海醇", "IV"])
def test_agent(agent):
    assert tag_of(ContrastBolusAgent=agent) == "given"


@pytest.mark.parametrize("agent", ["ORAL", "Oral contrast", "口服", "WATER PO"])
def test_agent_in_the_bowel_says_nothing_of_the_blood(agent):
    assert tag_of(ContrastBolusAgent=agent) == "unknown"


def test_oral_and_intravenous():
    assert tag_of(ContrastBolusAgent="ORAL & IV") == "given"


def test_route_tells_where_the_agent_went():
    assert tag_of(ContrastBolusAgent="Iohexol", ContrastBolusRoute="ORAL") == "unknown"
    assert tag_of(ContrastBolusAgent="Iohexol", ContrastBolusRoute="IV") == "given"


def test_empty_agent_is_silence():
    assert tag_of(ContrastBolusAgent="") == "unknown"


def test_volume_alone():
    assert tag_of(ContrastBolusVolume="80") == "given"
    assert tag_of(ContrastBolusVolume="0") == "unknown"


def test_agent_and_plain_series_contradict_each_other():
    assert tag_of(ContrastBolusAgent="Omnipaque", SeriesDescription="Chest plain") == "unknown"


def test_no_agent_and_enhanced_series_contradict_each_other():
    assert tag_of(ContrastBolusAgent="NONE", SeriesDescription="arterial") == "unknown"


def test_series_weighs_more_than_study():
    assert tag_of(SeriesDescription="平扫", StudyDescription="CHEST W CONTRAST") == "none"


def test_study_counts_when_nothing_else_speaks():
    assert tag_of(SeriesDescription="1.25mm", StudyDescription="CT CHEST WITHOUT CONTRAST") == "none"


def test_agent_sequence():
    item = Dataset()
    item.CodeMeaning = "Iohexol"
    assert tag_of(ContrastBolusAgentSequence=Sequence([item])) == "given"


def route(meaning, code="x"):
    item = Dataset()
    item.CodeMeaning, item.CodeValue = meaning, code
    return Sequence([item])


BY_ROUTE = [
    ("Oral route", "x", "unknown"),
    ("Per rectum", "37161004", "unknown"),
    ("orale Gabe", "26643006", "unknown"),
    ("rektal", "G-D160", "unknown"),
    ("Intravenous route", "47625008", "given"),
    ("i.v.-Gabe", "G-D101", "given"),
]


@pytest.mark.parametrize(("meaning", "code", "expected"), BY_ROUTE)
@pytest.mark.parametrize("how", ["agent", "sequence", "volume"])
def test_route_beside_the_agent(meaning, code, expected, how):
    agent = Dataset()
    agent.CodeMeaning = "Iohexol"
    said = {
        "agent": {"ContrastBolusAgent": "Iohexol"},
        "sequence": {"ContrastBolusAgentSequence": Sequence([agent])},
        "volume": {"ContrastBolusVolume": "500"},
    }[how]
    assert tag_of(ContrastBolusAdministrationRouteSequence=route(meaning, code), **said) == expected


def test_an_agent_s_own_route_counts_before_the_common_one():
    agent = Dataset()
    agent.CodeMeaning = "Iohexol"
    agent.ContrastBolusAdministrationRouteSequence = route("Intravenous route")
    common = route("Oral route")
    agents = Sequence([agent])
    assert tag_of(ContrastBolusAgentSequence=agents, ContrastBolusAdministrationRouteSequence=common) == "given"


def test_the_route_is_read_from_a_file(tools, series, tmp_path):
    ds = series.datasets()[0]
    ds.ContrastBolusAgent = "Iohexol"
    ds.ContrastBolusAdministrationRouteSequence = route("Oral route", "26643006")
    assert read_header(tools.save(ds, tmp_path / "a.dcm")).contrast_tag == "unknown"


def test_agent_sequence_by_mouth():
    route = Dataset()
    route.CodeMeaning = "Oral route"
    item = Dataset()
    item.CodeMeaning = "Barium sulfate"
    item.ContrastBolusAdministrationRouteSequence = Sequence([route])
    assert tag_of(ContrastBolusAgentSequence=Sequence([item])) == "unknown"
