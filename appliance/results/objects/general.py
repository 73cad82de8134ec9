"""What every result object says in the same way: whose it is, what made it, that nobody has reviewed it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.results.objects.uids import derived_uid, object_uid, series_uid

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pydicom.dataset import Dataset

    from appliance.results.objects.source import Source
    from appliance.results.report import Report

MANUFACTURER = "Appliance"
MODEL = "CT screening appliance"
#: Kind to the offset of its Series Number and its Series Description.
SERIES = {
    "sr": (0, "AI report, not reviewed"),
    "seg": (1, "AI segmentation, not reviewed"),
    "capture": (2, "AI key images, not reviewed"),
    "pdf": (3, "AI summary, not reviewed"),
    "ko": (4, "AI key objects, not reviewed"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Making:
    """What all objects of one scan share.

    Attributes
    ----------
    source
        The scan.
    report
        What was found.
    box
        Name of the box, for the serial number.
    first_series_number
        Series Number of the report; the other kinds follow.
    at
        When the objects are made, with its time zone.
    digest
        Of everything that decides what is in the objects, but for that time.
    """

    source: Source
    report: Report
    box: str
    first_series_number: int
    at: datetime
    digest: str = ""

    @property
    def revision(self) -> int:
        """Revision of the scan."""
        return self.report.revision

    @property
    def device_uid(self) -> str:
        """UID of this box as an observer."""
        return derived_uid("device", self.box)

    def object_uid(self, kind: str, name: str) -> str:
        """Return the SOP Instance UID of an object."""
        return object_uid(self.source.series_instance_uid, self.revision, self.digest, kind, name)

    def series_uid(self, kind: str) -> str:
        """Return the Series Instance UID of a kind."""
        return series_uid(self.source.series_instance_uid, self.revision, self.digest, kind)

    def series_number(self, kind: str) -> int:
        """Return the Series Number of a kind."""
        return self.first_series_number + SERIES[kind][0]

    @property
    def software(self) -> list[str]:
        """The appliance and the networks that were used, each at most 64 characters."""
        packs = [f"{pack.name} {pack.version}" for pack in self.report.packs]
        return [item[:64] for item in (f"appliance {self.report.appliance_version}", *packs)]


def dress(ds: Dataset, making: Making, kind: str) -> None:
    """Give an object its patient, study, series and equipment.

    Parameters
    ----------
    ds
        The object; what it says of patient and study already is replaced.
    making
        The scan and its report.
    kind
        Key of :data:`SERIES`.
    """
    for tag in list(making.source.modules.keys()):
        ds[tag] = copy.deepcopy(making.source.modules.get_item(tag))
    ds.SeriesInstanceUID = making.series_uid(kind)
    ds.SeriesNumber = making.series_number(kind)
    ds.SeriesDescription = SERIES[kind][1]
    ds.SeriesDate = ds.InstanceCreationDate = making.at.strftime("%Y%m%d")
    ds.SeriesTime = ds.InstanceCreationTime = making.at.strftime("%H%M%S")
    ds.TimezoneOffsetFromUTC = making.at.strftime("%z")
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = MODEL
    ds.DeviceSerialNumber = making.box
    ds.SoftwareVersions = making.software
    ds.ContributingEquipmentSequence = _contributing(making)


def _contributing(making: Making) -> list[Dataset]:
    """Contributing Equipment Sequence (PS3.3 C.12.1): the scanner and this box."""
    from pydicom.dataset import Dataset

    box = Dataset()
    box.PurposeOfReferenceCodeSequence = [code_item("109102", "DCM", "Processing Equipment")]
    box.Manufacturer = MANUFACTURER
    box.ManufacturerModelName = MODEL
    box.DeviceSerialNumber = making.box
    box.SoftwareVersions = making.software
    box.ContributionDateTime = making.at.strftime("%Y%m%d%H%M%S%z")
    box.ContributionDescription = "AI result, not reviewed"
    scanner = copy.deepcopy(making.source.equipment)
    if not scanner.get("Manufacturer"):  # type 1 there
        return [box]
    scanner.PurposeOfReferenceCodeSequence = [code_item("109101", "DCM", "Acquisition Equipment")]
    for keyword in [element.keyword for element in scanner if element.is_empty]:
        delattr(scanner, keyword)
    return [scanner, box]


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """Return one item of a code sequence (PS3.3 8.8)."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def save(ds: Dataset, path: Path) -> None:
    """Write a Part 10 file, Explicit VR Little Endian, with complete File Meta Information."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    from appliance.dicom import uids
    from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = UID(uids.EXPLICIT_VR_LITTLE_ENDIAN)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta
    ds.save_as(path, enforce_file_format=True)
