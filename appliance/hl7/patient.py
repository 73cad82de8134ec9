"""Whose result it is, read from the header of the scan or of an object made from it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.dicom.image.elements import decode_text
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydicom.dataset import Dataset

_KEYWORDS = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyInstanceUID", "StudyDate", "StudyTime", "AdmissionID",
)  # fmt: skip
_ESCAPE = b"\x1b"
_ASCII = {"", "ISO_IR 6", "ISO 2022 IR 6"}


class HeaderUnreadableError(ApplianceError):
    """No file is there that says whose scan it is."""


@dataclass(frozen=True, slots=True)
class PatientHeader:
    """Patient and study, as text.

    Attributes
    ----------
    names
        Component groups of Patient's Name (PS3.5 Section 6.2.1): alphabetic, ideographic, phonetic; empty ones left
        out at the end. Each is ``family^given^middle^prefix^suffix``.
    patient_id, issuer
        Patient ID and who issued it.
    birth_date, sex
        As DICOM has them, ``YYYYMMDD`` and ``M``, ``F``, ``O`` or empty.
    accession_number, study_instance_uid, admission_id
        Of the study.
    study_at
        Study date and time, ``YYYYMMDDHHMMSS`` as far as they are there.
    """

    names: tuple[str, ...]
    patient_id: str
    issuer: str
    birth_date: str
    sex: str
    accession_number: str
    study_instance_uid: str
    admission_id: str
    study_at: str


def read_patient(paths: Iterable[Path]) -> PatientHeader:
    """Read the first file that can be read.

    Parameters
    ----------
    paths
        DICOM files of the scan or made from it.

    Raises
    ------
    HeaderUnreadableError
        There is none.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    for path in paths:
        try:
            return _read(dcmread(path, stop_before_pixels=True, specific_tags=list(_KEYWORDS), force=True))
        except (OSError, InvalidDicomError, ValueError, EOFError):
            continue  # the next one says the same
    raise HeaderUnreadableError(
        "Neither the images of this scan nor objects made from it are on this box any more, so a message could not say "
        "whose result it is; read the result with `appliance results`."
    )


def _read(ds: Dataset) -> PatientHeader:
    def text(keyword: str) -> str:
        return _text(ds, keyword)

    date, time = text("StudyDate"), text("StudyTime").partition(".")[0].replace(":", "")
    return PatientHeader(
        names=tuple(text("PatientName").split("=")[:3]),
        patient_id=text("PatientID"),
        issuer=text("IssuerOfPatientID"),
        birth_date=_digits(text("PatientBirthDate"), 8),
        sex=text("PatientSex")[:1].upper(),
        accession_number=text("AccessionNumber"),
        study_instance_uid=text("StudyInstanceUID"),
        admission_id=text("AdmissionID"),
        study_at=_digits(date, 8) + (_digits(time, 4, 6) if _digits(date, 8) else ""),
    )


def _text(ds: Dataset, keyword: str) -> str:
    """Return an element in the character set that is declared; an undeclared one is guessed."""
    from pydicom.datadict import tag_for_keyword

    raw = ds.get_item(tag_for_keyword(keyword) or 0)
    value = getattr(raw, "value", None)
    if not value:
        return ""
    if isinstance(value, bytes) and _is_to_be_guessed(value, ds):
        return decode_text(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's may quote the value
        try:
            return str(ds[keyword].value).strip("\0 ")
        except (ValueError, LookupError, TypeError):
            return decode_text(value) if isinstance(value, bytes) else ""


def _is_to_be_guessed(value: bytes, ds: Dataset) -> bool:
    """Whether no character set is declared; GB 2312 with escapes (ISO 2022 IR 58) is read in the same way."""
    declared = ds.get("SpecificCharacterSet") or ""
    sets = {str(item) for item in ({declared} if isinstance(declared, str) else declared)}
    return (sets <= _ASCII and not value.isascii()) or (_ESCAPE in value and "ISO 2022 IR 58" in sets)


def _digits(text: str, *lengths: int) -> str:
    """Return text that is all digits and of one of these lengths, else nothing."""
    plain = text.replace(".", "").replace("-", "")
    return plain if plain.isascii() and plain.isdigit() and len(plain) in lengths else ""
