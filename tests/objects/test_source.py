"""Patient and study are copied byte for byte, in whatever character set; nothing else of the source comes along."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.dataset import Dataset

from appliance.results.objects.text import choose_character_set, fit
from appliance.results.objects.uids import derived_uid
from tests.objects.conftest import SMALL, VARIANTS, case_of

COPIED = ("PatientName", "PatientID", "StudyDescription", "AccessionNumber", "PatientSex", "StudyDate", "StudyID")


@pytest.fixture(scope="module", params=["gb18030", "utf-8", "iso 2022", "bare header"])
def written(request, tmp_path_factory):
    options, change, _ = VARIANTS[request.param]
    return case_of(tmp_path_factory.mktemp("source"), options, change, objects=["sr", "capture"])


def raw(path, keyword: str) -> bytes:
    """The bytes in the file, which pydicom forgets once it has decoded them."""
    item = pydicom.dcmread(path, stop_before_pixels=True).get_item(keyword)
    return b"" if item is None else bytes(item.value or b"")


def test_text_is_the_received_bytes(written):
    received = pydicom.dcmread(written.files[0], stop_before_pixels=True)
    for path in written.objects:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert ds.get("SpecificCharacterSet") == received.get("SpecificCharacterSet")
        for keyword in COPIED:
            assert raw(path, keyword) == raw(written.files[0], keyword), keyword
        assert str(ds.PatientName) == str(received.PatientName)


def test_nothing_else_of_the_source_comes_along(written):
    for path in written.objects:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert not [element for element in ds if element.tag.is_private]
        assert ds.get("BurnedInAnnotation", "YES") == "YES"
        assert "KVP" not in ds
        assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_all_objects_are_in_the_received_study(written):
    received = pydicom.dcmread(written.files[0], stop_before_pixels=True)
    studies = {pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in written.objects}
    assert len(studies) == 1
    assert studies == {received.StudyInstanceUID} or not received.StudyInstanceUID


def undeclared_gbk(ds):
    """What some scanners do: GBK bytes, and not a word about them."""
    name = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("PatientName"), "PN", 4, "张三".encode("gbk"), 0, False, True
    )
    ds[name.tag] = name


def test_undeclared_gbk_stays_what_it_was_and_nothing_chinese_is_added(tmp_path):
    case = case_of(tmp_path, SMALL, undeclared_gbk, objects=["sr"], language="zh")
    assert raw(case.folder / "objects" / "report.dcm", "PatientName") == "张三".encode("gbk")
    assert "SpecificCharacterSet" not in case.read("report")


@pytest.mark.parametrize(
    ("declared", "chinese", "becomes"),
    [
        (None, True, "ISO_IR 192"),
        ("GB18030", True, "GB18030"),
        ("ISO_IR 192", True, "ISO_IR 192"),
        (["", "ISO 2022 IR 58"], True, ["", "ISO 2022 IR 58"]),
        ("ISO_IR 100", False, "ISO_IR 100"),
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], False, ["ISO 2022 IR 6", "ISO 2022 IR 87"]),
    ],
)
def test_chinese_only_where_it_can_be_written(declared, chinese, becomes):
    modules = Dataset()
    if declared is not None:
        modules.SpecificCharacterSet = declared
    assert choose_character_set(modules, "zh") is chinese
    assert modules.SpecificCharacterSet == becomes


def test_what_ascii_cannot_write_is_spelt_out():
    assert fit("≥ 3 mm³ × 2 – 肺", Dataset()) == ">= 3 mm3 x 2 - ?"


def test_uids_are_valid_and_parts_do_not_run_together():
    uid = derived_uid("a", "bc")
    assert pydicom.uid.UID(uid).is_valid
    assert uid != derived_uid("ab", "c")
    assert uid == derived_uid("a", "bc")
