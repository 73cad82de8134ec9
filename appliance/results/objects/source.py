"""The scan as result objects need it: the patient and study modules byte for byte, and what each slice is called."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.dicom import uids
from appliance.errors import ApplianceError
from appliance.results.objects.uids import derived_uid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from appliance.dicom.image.headers import InstanceHeader
    from appliance.scan import Scan

#: Patient (PS3.3 C.7.1.1), without what only animals and phantoms have.
_PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
    "PatientBirthDate", "PatientBirthDateInAlternativeCalendar", "PatientAlternativeCalendar", "PatientSex",
    "PatientBirthTime", "ReferencedPatientSequence", "ReferencedPatientPhotoSequence", "QualityControlSubject",
    "OtherPatientIDsSequence", "OtherPatientNames", "EthnicGroup", "PatientComments",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
)  # fmt: skip
#: General Study (C.7.2.1) and Patient Study (C.7.2.2).
_STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName", "ConsultingPhysicianIdentificationSequence", "StudyID", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "StudyDescription", "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence", "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence", "RequestingServiceCodeSequence", "ReferencedStudySequence",
    "ProcedureCodeSequence", "ReasonForPerformedProcedureCodeSequence",
    "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "PatientAge", "PatientSize",
    "PatientSizeCodeSequence", "PatientBodyMassIndex", "PatientWeight", "MedicalAlerts", "Allergies", "SmokingStatus",
    "PregnancyStatus", "LastMenstrualDate", "PatientState", "Occupation", "AdditionalPatientHistory", "AdmissionID",
    "IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "IssuerOfServiceEpisodeIDSequence",
    "ServiceEpisodeDescription", "ReasonForVisit", "ReasonForVisitCodeSequence", "PatientSexNeutered",
)  # fmt: skip
#: Clinical Trial Subject and Study (C.7.1.3, C.7.2.3): they belong to the patient and the study.
_TRIAL = (
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
    "ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialProtocolEthicsCommitteeApprovalNumber",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription", "ConsentForClinicalTrialUseSequence",
)  # fmt: skip
#: Attributes that must be there, empty where they are not known (type 2 of those modules).
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber",
)  # fmt: skip
#: The scanner, for Contributing Equipment.
_EQUIPMENT = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName",
)  # fmt: skip


class ResultObjectError(ApplianceError):
    """A result object that cannot be made; the report is not affected."""


@dataclass(frozen=True, slots=True)
class SourceSlice:
    """One slice of the volume under its DICOM name.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid
        Of the instance.
    frame_number
        One-based in a multi-frame instance, else ``None``.
    position_mm
        Image Position (Patient) as received.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    position_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The scan that results refer to.

    Attributes
    ----------
    modules
        Data set with Specific Character Set and the patient, study and clinical trial modules as received.
    equipment
        Data set with what the source says of its scanner.
    series_instance_uid, frame_of_reference_uid
        Derived ones where the source has none.
    slices
        One per slice of the volume, in its order.
    rows, columns
        Size of an image as received; a volume whose gantry tilt was sheared back is larger.
    affine
        ``(4, 4)``: index ``(slice, row, column, 1)`` of the images as received to LPS mm. Its first column leans when
        the gantry was tilted, so that the index is always that of a received pixel.
    slice_thickness_mm
        Nominal, or the distance between slices.
    """

    modules: Dataset
    equipment: Dataset
    series_instance_uid: str
    frame_of_reference_uid: str
    slices: tuple[SourceSlice, ...]
    rows: int
    columns: int
    affine: NDArray[np.float64]
    slice_thickness_mm: float

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID, the received one where there is one."""
        return str(self.modules.StudyInstanceUID)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns as received."""
        return len(self.slices), self.rows, self.columns

    @property
    def instances(self) -> tuple[tuple[str, str], ...]:
        """SOP class and SOP instance of everything the volume was built from, each once, in the order of the slices."""
        return tuple(dict.fromkeys((item.sop_class_uid, item.sop_instance_uid) for item in self.slices))


def read_source(scan: Scan, instances: Sequence[Path] | Sequence[InstanceHeader]) -> Source:
    """Read what result objects take over from the scan.

    Parameters
    ----------
    scan
        The scan as it was built from the instances.
    instances
        Its files or headers, any order.

    Raises
    ------
    ResultObjectError
        The source has no SOP Instance UIDs to refer to.
    """
    from appliance.dicom.image.stack import read_headers

    headers = {header.sop_instance_uid: header for header in read_headers(instances)}
    frames = scan.volume.frames
    if not frames or not all(frame.sop_instance_uid in headers and frame.sop_instance_uid for frame in frames):
        raise ResultObjectError(
            "The received images have no SOP Instance UIDs, so no result object can refer to them; the report is whole."
        )
    slices = tuple(
        SourceSlice(
            headers[frame.sop_instance_uid].sop_class_uid or uids.CT_IMAGE_STORAGE,
            frame.sop_instance_uid,
            frame.frame_number,
            frame.position_mm,
        )
        for frame in frames
    )
    first = headers[frames[0].sop_instance_uid]
    series = scan.series_instance_uid or derived_uid("no series", *sorted({frame.sop_instance_uid for frame in frames}))
    modules, equipment = _read_modules(first.path, series)
    return Source(
        modules=modules,
        equipment=equipment,
        series_instance_uid=series,
        frame_of_reference_uid=scan.frame_of_reference_uid or derived_uid("no frame of reference", series),
        slices=slices,
        rows=first.rows,
        columns=first.columns,
        affine=_received_affine(scan, (first.rows, first.columns)),
        slice_thickness_mm=scan.acquisition.slice_thickness_mm or scan.volume.spacing_mm[0],
    )


def _received_affine(scan: Scan, size: tuple[int, int]) -> NDArray[np.float64]:
    """Undo the shear of a tilted gantry: where the received pixels lie, not those of the volume."""
    volume = scan.volume
    if volume.shape[1:] == size and not scan.acquisition.gantry_tilt_degrees:
        return volume.affine
    positions = np.array([frame.position_mm for frame in volume.frames], dtype=np.float64)
    affine = np.array(volume.affine)
    affine[:3, 0] = (positions[-1] - positions[0]) / max(len(positions) - 1, 1)
    affine[:3, 3] = positions[0]
    return affine


def _read_modules(path: Path, series: str) -> tuple[Dataset, Dataset]:
    import pydicom
    from pydicom.dataset import Dataset

    received = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    modules, equipment = Dataset(), Dataset()
    for target, keywords in ((modules, ("SpecificCharacterSet", *_PATIENT, *_STUDY, *_TRIAL)), (equipment, _EQUIPMENT)):
        for keyword in keywords:
            if keyword in received:
                _take(target, received, keyword)
    for keyword in _TYPE_2:
        if keyword not in modules:
            setattr(modules, keyword, "")
    if not modules.get("StudyInstanceUID"):
        modules.StudyInstanceUID = derived_uid("no study", series)
    return modules, equipment


def _take(target: Dataset, received: Dataset, keyword: str) -> None:
    """Take an element over; text stays the bytes that were received, also where they are not what they claim to be."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag
    from pydicom.valuerep import STR_VR

    tag = Tag(tag_for_keyword(keyword) or 0)
    raw: Any = received.get_item(tag)
    vr = dictionary_VR(tag)
    if isinstance(raw, RawDataElement) and vr in STR_VR and keyword != "SpecificCharacterSet":
        target[tag] = RawDataElement(tag, vr, len(raw.value or b""), raw.value or b"", 0, False, True)
        return
    element = copy.deepcopy(received[tag])
    _drop_private(element)
    target[tag] = element


def _drop_private(element: object) -> None:
    """Leave out private elements within copied sequences; their meaning is the sender's secret."""
    if getattr(element, "VR", "") == "SQ":
        for item in element.value or ():  # type: ignore[attr-defined]
            item.remove_private_tags()
