"""The DICOM objects that lie in a scan's results folder, as delivery needs to know them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "objects"


class ObjectsUnreadableError(ApplianceError):
    """A file in the folder of the objects is not a DICOM file."""


class Kind(StrEnum):
    """Kinds of objects, in the order in which they are sent: what others refer to goes first."""

    CAPTURE = "capture"
    PDF = "pdf"
    KO = "ko"
    SEG = "seg"
    SR = "sr"


# PS3.4 Table B.5-1: Secondary Capture and its multi-frame variants, Encapsulated PDF, Key Object Selection,
# Segmentation and Label Map Segmentation, the other SR classes. The first that fits counts.
_PREFIXES = {
    Kind.CAPTURE: ("1.2.840.10008.5.1.4.1.1.7",),
    Kind.PDF: ("1.2.840.10008.5.1.4.1.1.104.1",),
    Kind.KO: ("1.2.840.10008.5.1.4.1.1.88.59",),
    Kind.SEG: ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"),
    Kind.SR: ("1.2.840.10008.5.1.4.1.1.88",),
}


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One file.

    Attributes
    ----------
    path
        The file (PS3.10).
    sop_class_uid, sop_instance_uid
        From its file meta information.
    kind
        ``None`` for a class that no kind covers; it is sent whatever kinds a destination takes.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    kind: Kind | None


def kind_of(sop_class_uid: str) -> Kind | None:
    """Return which kind of object a SOP class is."""
    for kind, prefixes in _PREFIXES.items():
        if any(sop_class_uid == prefix or sop_class_uid.startswith(f"{prefix}.") for prefix in prefixes):
            return kind
    return None


def read_objects(results_folder: Path) -> list[ResultObject]:
    """Return the objects of a scan in the order in which they are sent; none when the folder is not there.

    Parameters
    ----------
    results_folder
        The scan's; its objects are ``objects/*.dcm`` below it.

    Raises
    ------
    ObjectsUnreadableError
        A file is not a DICOM file.
    OSError
        A file cannot be read.
    """
    paths = sorted((results_folder / FOLDER).glob("*.dcm"))
    order = {kind: place for place, kind in enumerate(Kind)}
    return sorted(map(_read, paths), key=lambda item: -1 if item.kind is None else order[item.kind])


def _read(path: Path) -> ResultObject:
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        meta = read_file_meta_info(path)
        sop_class, instance = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
    except (InvalidDicomError, AttributeError, ValueError, KeyError, EOFError) as error:
        raise ObjectsUnreadableError(
            f"{path.name} in the results folder is not a DICOM file; the scan must be sent and screened again."
        ) from error
    return ResultObject(path, sop_class, instance, kind_of(sop_class))
