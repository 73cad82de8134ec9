"""Whose result it is, in every character set that scanners write and some that they do not declare."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from appliance.hl7.patient import HeaderUnreadableError, read_patient


def written(path, charset, name: bytes, **other):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3"
    if charset is not None:
        ds.SpecificCharacterSet = charset
    ds.PatientName = "X" * len(name)
    for keyword, value in other.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes().replace(b"X" * len(name), name))
    return path


@pytest.mark.parametrize(
    ("charset", "name", "read"),
    [
        (None, b"Zhang^San", ("Zhang^San",)),
        (None, "张^三".encode("gb18030"), ("张^三",)),
        (None, "张^三".encode(), ("张^三",)),
        ("ISO_IR 192", "Zhang^San=张^三".encode(), ("Zhang^San", "张^三")),
        ("GB18030", "Zhang^San=张^三".encode("gb18030"), ("Zhang^San", "张^三")),
        ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), ("Müller^Jörg",)),
        (
            ["", "ISO 2022 IR 58"],
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
            ("Zhang^XiaoDong", "张^小东"),
        ),
    ],
)
def test_a_name_is_read(tmp_path, charset, name, read):
    assert read_patient([written(tmp_path / "1.dcm", charset, name)]).names == read


def test_dates_times_and_identifiers(tmp_path):
    path = written(
        tmp_path / "1.dcm", None, b"A", PatientID="P1", IssuerOfPatientID="H", PatientBirthDate="19500101",
        PatientSex="F", AccessionNumber="A1", StudyDate="20261130", StudyTime="110203.123", AdmissionID="V1",
        StudyInstanceUID="1.2.3",
    )  # fmt: skip
    patient = read_patient([path])
    assert (patient.patient_id, patient.issuer, patient.birth_date, patient.sex) == ("P1", "H", "19500101", "F")
    assert (patient.accession_number, patient.admission_id, patient.study_at) == ("A1", "V1", "20261130110203")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_dates_are_left_out(tmp_path):
    with pydicom.config.disable_value_validation():
        path = written(tmp_path / "1.dcm", None, b"A", PatientBirthDate="spring", StudyDate="2026", StudyTime="110203")
    patient = read_patient([path])
    assert (patient.birth_date, patient.study_at) == ("", "")


def test_the_next_file_stands_in_for_one_that_is_gone(tmp_path):
    path = written(tmp_path / "1.dcm", None, b"Zhang^San")
    assert read_patient([tmp_path / "gone.dcm", path]).names == ("Zhang^San",)


def test_none_at_all_is_told(tmp_path):
    with pytest.raises(HeaderUnreadableError, match="could not say whose result it is"):
        read_patient([tmp_path / "gone.dcm"])
