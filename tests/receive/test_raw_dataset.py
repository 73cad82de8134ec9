"""The glance at a data set's first bytes, and the header that is put before it."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom.dsutils import encode

from appliance.dicom.network.raw_dataset import MalformedDatasetError, SopClassMismatchError, file_header, glance
from appliance.dicom.network.transfer_syntaxes import RECEIVED_TRANSFER_SYNTAXES
from tests.receive.conftest import data_set_bytes, make_instance

if TYPE_CHECKING:
    from pathlib import Path

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


def encoded(*, implicit: bool = False, **elements: object) -> bytes:
    data = Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    result = encode(data, implicit, True)
    assert result is not None
    return result


@pytest.mark.parametrize("syntax", RECEIVED_TRANSFER_SYNTAXES)
def test_good_data_sets_pass(syntax: str, tmp_path: Path) -> None:
    path = make_instance(tmp_path / "one.dcm", transfer_syntax=syntax)
    glance(data_set_bytes(path), syntax, CTImageStorage, dcmread(path).SOPInstanceUID)


@given(st.binary(max_size=300), st.sampled_from(list(RECEIVED_TRANSFER_SYNTAXES)))
def test_any_bytes_are_passed_or_refused(data: bytes, syntax: str) -> None:
    try:
        glance(data, syntax, CTImageStorage, "1.2.3")
    except MalformedDatasetError as error:
        assert 0 < len(str(error)) <= 64  # noqa: PT017  # most bytes raise, and some must not


@given(st.integers(0, 600))
def test_cut_data_sets_are_refused_or_long_enough(length: int) -> None:
    whole = encoded(
        SpecificCharacterSet="ISO_IR 192", SOPClassUID=CTImageStorage, SOPInstanceUID="1.2.3.4", Modality="CT"
    )
    cut = whole[:length]
    if b"1.2.3.4" in cut:
        glance(cut.ljust(len(cut) + len(cut) % 2, b"\0"), EXPLICIT, CTImageStorage, "1.2.3.4")
    else:
        with pytest.raises(MalformedDatasetError):
            glance(cut, EXPLICIT, CTImageStorage, "1.2.3.4")


def test_implicit_bytes_under_explicit_are_refused() -> None:
    data = encoded(implicit=True, SOPClassUID=CTImageStorage, SOPInstanceUID="1.2.3")
    with pytest.raises(MalformedDatasetError, match="not in the negotiated transfer syntax"):
        glance(data, EXPLICIT, CTImageStorage, "1.2.3")


def test_explicit_bytes_under_implicit_are_refused() -> None:
    data = encoded(SOPClassUID=CTImageStorage, SOPInstanceUID="1.2.3")
    with pytest.raises(MalformedDatasetError):
        glance(data, IMPLICIT, CTImageStorage, "1.2.3")


def test_another_class_is_told_apart() -> None:
    data = encoded(SOPClassUID="1.2.840.10008.5.1.4.1.1.4", SOPInstanceUID="1.2.3")
    with pytest.raises(SopClassMismatchError):
        glance(data, EXPLICIT, CTImageStorage, "1.2.3")


def test_without_instance_uid() -> None:
    with pytest.raises(MalformedDatasetError, match="no SOP Instance UID"):
        glance(encoded(SOPClassUID=CTImageStorage, Modality="CT"), EXPLICIT, CTImageStorage, "1.2.3")


def test_an_undefined_length_sequence_first_is_let_pass() -> None:
    sequence = b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0"
    glance(sequence + encoded(SOPInstanceUID="1.2.3"), EXPLICIT, CTImageStorage, "1.2.3")


@given(st.lists(st.integers(0, 99_999), min_size=2, max_size=10), st.text("ABCDEFGHIJ_", min_size=1, max_size=16))
def test_header_is_read_back(parts: list[int], title: str) -> None:
    uid = "1." + ".".join(map(str, parts))
    data = encoded(SOPInstanceUID="1.2.3")
    read = dcmread(BytesIO(file_header(EXPLICIT, CTImageStorage, uid, title) + data))
    assert read.file_meta.MediaStorageSOPInstanceUID == uid
    assert read.file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert read.file_meta.TransferSyntaxUID == EXPLICIT
    assert read.file_meta.SourceApplicationEntityTitle == title
    assert read.file_meta.ImplementationVersionName.startswith("APPLIANCE")
    assert read.SOPInstanceUID == "1.2.3"
