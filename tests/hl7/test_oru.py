"""The message: what it says, that it says it to any reader, and that it is the same each time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hl7apy.parser import parse_message

from appliance.hl7.er7 import escape, unescape
from appliance.hl7.oru import MessageInvalidError, control_id, message
from appliance.hl7.routing import CharacterSet
from appliance.results.report import NOTICE
from tests.hl7.conftest import PATIENT


def segments(text: str, name: str) -> list[list[str]]:
    """Read by hand: fields by their number."""
    assert text.endswith("\r")
    lines = [line.split("|") for line in text[:-1].split("\r")]
    return [[line[0], "|", *line[1:]] if name == "MSH" else line for line in lines if line[0] == name]


def made(subject, routing, patient=PATIENT) -> str:
    return message(subject, patient, routing, control_id(subject, "his", "box-7"))


def test_the_header_says_who_to_whom_and_how(subject, routing):
    (msh,) = segments(made(subject, routing), "MSH")
    assert msh[2] == "^~\\&"
    assert msh[3:7] == ["APPLIANCE", "box-7", "HIS", "HOSP"]
    assert msh[9:13] == ["ORU^R01^ORU_R01", control_id(subject, "his", "box-7"), "P", "2.5.1"]
    assert msh[18] == "UNICODE UTF-8"


def test_the_patient_has_each_name_with_its_script(subject, routing):
    (pid,) = segments(made(subject, routing), "PID")
    assert pid[3] == "P\\F\\1\\T\\2^^^HOSP"
    assert pid[5] == "Zhang^XiaoDong^^Jr^Dr^^L^A~张^小东^^^^^L^I"
    assert pid[7:9] == ["19500101", "M"]
    (pv1,) = segments(made(subject, routing), "PV1")
    assert pv1[19] == "V1"


def test_one_name_needs_no_script(subject, routing):
    (pid,) = segments(made(subject, routing, replace(PATIENT, names=("Müller^Jörg",))), "PID")
    assert pid[5] == "Müller^Jörg"


def test_the_request_is_preliminary_and_says_that_nobody_has_reviewed_it(subject, routing):
    text = made(subject, routing)
    (obr,) = segments(text, "OBR")
    assert obr[3] == obr[18] == "A\\S\\7"
    assert obr[7] == "20261130110000"
    assert obr[24:26] == ["CT", "P"]
    lines = text.split("\r")
    assert lines[lines.index("|".join(obr)) + 1] == f"NTE|1||{NOTICE}"


def test_numbers_have_codes_and_units_and_outcomes_their_flags(subject, routing):
    obx = segments(made(subject, routing), "OBX")
    assert [int(line[1]) for line in obx] == list(range(1, len(obx) + 1))
    assert obx[0][3:6] == ["110180^Study Instance UID^DCM", "study", "1.2.3"]
    by_code = {(line[3].partition("^")[0], line[4]): line for line in obx}
    assert by_code["18012-5", "aorta"][5:7] == ["52.125", "mm^millimeter^UCUM"]
    assert by_code["112181", "liver_fat.liver"][5:7] == ["31.25", "[hnsf'U]^Hounsfield unit^UCUM"]
    assert by_code["M402", "aorta"][5] == "0.666667"
    assert by_code["S06", "aorta"][5] == "O1^Finding, not reviewed^99APPLIANCE"
    assert by_code["121071", "aorta.finding1"][5] == "74883004^Thoracic aortic aneurysm^SCT"
    flags = {key: by_code[key, name][8] for key, name in (
        ("S06", "aorta"), ("S05", "liver_fat"), ("S01", "coronary_calcium"), ("S02", "emphysema"))}  # fmt: skip
    assert flags == {"S06": "AA", "S05": "A", "S01": "N", "S02": ""}
    assert {line[11] for line in obx} == {"P", "X"}
    assert by_code["S02", "emphysema"][11] == "X"


def test_hl7apy_reads_the_same_values(subject, routing):
    read = parse_message(made(subject, routing), find_groups=True)
    read.validate()
    result = read.oru_r01_patient_result
    assert result.oru_r01_patient.pid.pid_5[1].xpn_1.value == "张"
    observation = result.oru_r01_order_observation.oru_r01_observation[1]
    assert observation.obx.obx_5.value.startswith("O1^")
    assert "above 50" in observation.nte.nte_3.value


def test_no_text_can_break_the_message(subject, routing):
    hostile = "a|b^c~d\\e&f\rMSH|^~\\&|evil\n\x0b\x1c g"
    text = made(subject, routing, replace(PATIENT, names=(hostile,), patient_id=hostile, issuer=hostile))
    assert len(segments(text, "MSH")) == 1
    assert not set(text) & set("\n\x0b\x1c")
    (pid,) = segments(text, "PID")
    assert unescape(pid[3].split("^")[0]) == "a|b^c~d\\e&f MSH|^~\\&|evil g"


@pytest.mark.parametrize("text", ["", "\\", "|^~\\&", "张\\F\\小", "a\\b\\c"])
def test_what_is_escaped_reads_back(text):
    assert not set(escape(text)) & set("|^~&")
    assert unescape(escape(text)) == text


def test_what_is_not_closed_stays():
    assert unescape("a\\b") == "a\\b"
    assert unescape("a\\X0D\\b") == "a\\X0D\\b"


def test_the_same_thing_is_the_same_message_and_another_is_another(subject, routing):
    assert made(subject, routing) == made(subject, routing)
    one = control_id(subject, "his", "box-7")
    assert len(one) == 20
    others = [
        control_id(replace(subject, revision=2), "his", "box-7"),
        control_id(subject, "ris", "box-7"),
        control_id(subject, "his", "box-8"),
        control_id(replace(subject, alert="raised", screenings=subject.screenings[:1]), "his", "box-7"),
        control_id(replace(subject, alert="raised", screenings=subject.screenings[1:2]), "his", "box-7"),
        control_id(replace(subject, alert="escalated", screenings=subject.screenings[:1]), "his", "box-7"),
    ]
    assert len({one, *others}) == 7


@pytest.mark.parametrize("version", ["2.5.1", "2.3.1"])
@pytest.mark.parametrize("character_set", list(CharacterSet))
def test_in_both_versions_and_character_sets_in_chinese(subject, routing, version, character_set):
    text = made(subject, replace(routing, version=version, character_set=character_set, language="zh"))
    assert text.encode(character_set.value).decode(character_set.value) == text
    (msh,) = segments(text, "MSH")
    assert msh[12] == version
    assert msh[18] == character_set.table_0211
    assert "AI 结果，未经医师审核" in text
    assert "主动脉" in text


def test_an_alert_tells_of_its_screening_only(subject, routing):
    alert = replace(subject, alert="escalated", screenings=subject.screenings[:1])
    text = made(alert, routing)
    assert "ALERT, second notice" in text
    assert "S06^" in text
    assert "S05^" not in text


def test_a_header_that_knows_nothing_makes_a_whole_message(subject, routing):
    nobody = replace(
        PATIENT, names=("",), patient_id="", issuer="", birth_date="", sex="", accession_number="", admission_id="",
        study_at="",
    )  # fmt: skip
    text = made(subject, routing, nobody)
    assert segments(text, "PID") == [["PID", "1", "", '""', "", '""']]
    assert segments(text, "PV1") == []


def test_what_hl7_does_not_allow_is_not_sent(subject, routing):
    with pytest.raises(MessageInvalidError, match="would break a rule of HL7"):
        message(subject, PATIENT, replace(routing, version="2.9"), "X1")
    with pytest.raises(MessageInvalidError):
        message(subject, PATIENT, replace(routing, sending_application=""), "")
