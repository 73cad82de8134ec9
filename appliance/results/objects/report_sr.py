"""The report as a Comprehensive 3D SR with TID 1500 "Measurement Report" (PS3.3 A.35.13, PS3.16).

Findings are planar regions on their key slice (TID 1410), numbers of a segmented organ refer to its segment (TID 1411),
other numbers stand alone (TID 1501). What every screening concluded, and why one did not run, is in the container
"Qualitative Evaluations" of TID 1500, in our documented private scheme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.results.objects import codes
from appliance.results.objects.general import MANUFACTURER, MODEL, dress
from appliance.results.objects.measurement_groups import measurement_groups
from appliance.results.objects.segmentation import instance_items
from appliance.results.objects.text import fit
from appliance.results.objects.words import notice, reason_text, summary_text
from appliance.screenings.contract import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from highdicom.sr import CodeContentItem, ContainerContentItem, MeasurementReport, TextContentItem
    from pydicom.dataset import Dataset

    from appliance.results.objects.general import Making
    from appliance.results.objects.segmentation import SegmentReference
    from appliance.results.report import ScreeningResult

_LANGUAGES = {"en": ("en", "English"), "zh": ("zh-CN", "Chinese (China)")}
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    "StudyTime",
)
_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


def structured_report(
    making: Making, references: Mapping[str, SegmentReference], language: str, *, predecessor: Dataset | None
) -> Dataset:
    """Make the report.

    Parameters
    ----------
    making
        The scan and its report.
    references
        Structure to where it is segmented; empty when nothing is.
    language
        ``"en"`` or ``"zh"``; the latter only where the character set can hold it.
    predecessor
        The report of the revision before this one, which this one replaces; its identifiers are enough.
    """
    import highdicom as hd

    source = making.source
    content = _content(making, references, language)
    failed = any(result.outcome.status is Status.FAILED for result in making.report.screenings)
    ds = hd.sr.Comprehensive3DSR(
        evidence=_evidence(making, references),
        content=content[0],
        series_instance_uid=making.series_uid("sr"),
        series_number=making.series_number("sr"),
        sop_instance_uid=making.object_uid("sr", "report"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=not failed,
        is_final=False,
        is_verified=False,
    )
    dress(ds, making, "sr")
    ds.ContentDate, ds.ContentTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    ds.CodingSchemeIdentificationSequence = [_private_scheme()]
    if predecessor is not None:
        before = {predecessor.SeriesInstanceUID: [(predecessor.SOPClassUID, predecessor.SOPInstanceUID)]}
        ds.PredecessorDocumentsSequence = [_study_item(source.study_instance_uid, before)]
    return ds


def _content(making: Making, references: Mapping[str, SegmentReference], language: str) -> MeasurementReport:
    import highdicom as hd
    from pydicom.sr.codedict import codes as standard

    tag, name = _LANGUAGES[language]
    groups = measurement_groups(making, references)
    placeholder = [hd.sr.MeasurementsAndQualitativeEvaluations(hd.sr.TrackingIdentifier(making.device_uid, "none"))]
    observer = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=making.device_uid,
        name=making.box,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL,
        serial_number=making.box,
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(hd.sr.CodedConcept.from_code(standard.DCM.Device), observer)
        ),
        procedure_reported=standard.cid100.CTUnspecifiedBodyRegion,
        imaging_measurements=groups or placeholder,
        title=standard.cid7021.ImagingMeasurementReport,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
            hd.sr.CodedConcept(tag, "RFC5646", name)
        ),
    )
    items = content[0].ContentSequence
    measurements = items.pop()
    items.append(_image_library(making))
    if groups:
        items.append(measurements)
    items.append(_evaluations(making, language))
    return content


def _container(name: codes.Concept) -> ContainerContentItem:
    import highdicom as hd

    container = hd.sr.ContainerContentItem(name.coded(), relationship_type=hd.sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = hd.sr.ContentSequence()
    return container


def _image_library(making: Making) -> ContainerContentItem:
    """TID 1600: every image of the scan; what they share stands once for all of them (TID 1602)."""
    import highdicom as hd

    library = _container(codes.Concept("DCM", "111028", "Image Library"))
    group = _container(codes.Concept("DCM", "126200", "Image Library Group"))
    context = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    modality = codes.Concept("DCM", "121139", "Modality").coded()
    frame = codes.Concept("DCM", "112227", "Frame of Reference UID").coded()
    source = codes.Concept("SCT", "260753009", "Source").coded()
    computed_tomography = codes.Concept("DCM", "CT", "Computed Tomography").coded()
    group.ContentSequence.append(hd.sr.CodeContentItem(modality, computed_tomography, context))
    group.ContentSequence.append(hd.sr.UIDRefContentItem(frame, making.source.frame_of_reference_uid, context))
    for sop_class, sop_instance in making.source.instances:
        group.ContentSequence.append(
            hd.sr.ImageContentItem(
                source, sop_class, sop_instance, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
            )
        )
    library.ContentSequence.append(group)
    return library


def _evaluations(making: Making, language: str) -> ContainerContentItem:
    """Row 12 of TID 1500: the outcome of every screening, run or not, and that nobody has reviewed it."""
    container = _container(codes.Concept("UMLS", "C0034375", "Qualitative Evaluations"))
    container.ContentSequence.append(_comment(making, notice(language), within=False))
    for result in making.report.screenings:
        container.ContentSequence.append(_evaluation(making, result, language))
    return container


def _evaluation(making: Making, result: ScreeningResult, language: str) -> CodeContentItem:
    import highdicom as hd

    outcome = result.outcome
    properties = hd.sr.RelationshipTypeValues.HAS_PROPERTIES
    name = codes.SCREENINGS.get(result.name, codes.OTHER_SCREENING)
    item = hd.sr.CodeContentItem(
        name.coded(), codes.STATUSES[outcome.status].coded(), hd.sr.RelationshipTypeValues.CONTAINS
    )
    below = hd.sr.ContentSequence()
    if outcome.reason is not None:
        reason = codes.REASONS.get(outcome.reason.code, codes.OTHER_REASON)
        below.append(hd.sr.CodeContentItem(codes.REASON.coded(), reason.coded(), properties))
        below.append(_comment(making, reason_text(outcome.reason, language)))
    else:
        urgency = codes.URGENCIES[outcome.urgency]
        below.append(hd.sr.CodeContentItem(codes.URGENCY.coded(), urgency.coded(), properties))
        below.append(_comment(making, summary_text(result, language)))
    for caveat in outcome.caveats:
        below.append(_comment(making, caveat))
    item.ContentSequence = below
    return item


def _comment(making: Making, text: str, *, within: bool = True) -> TextContentItem:
    import highdicom as hd

    kinds = hd.sr.RelationshipTypeValues
    return hd.sr.TextContentItem(
        codes.Concept("DCM", "121106", "Comment").coded(),
        fit(text, making.source.modules) or "-",
        kinds.HAS_PROPERTIES if within else kinds.CONTAINS,
    )


def _evidence(making: Making, references: Mapping[str, SegmentReference]) -> list[Dataset]:
    """Return all images of the scan and the segmentations, for Current Requested Procedure Evidence (C.17.2)."""
    from pydicom.dataset import Dataset

    source = making.source
    segmentations = dict.fromkeys(reference.sop_instance_uid for reference in references.values())
    listed = [(source.series_instance_uid, *instance) for instance in source.instances]
    listed += [(making.series_uid("seg"), _SEGMENTATION_STORAGE, uid) for uid in segmentations]
    evidence = []
    for series, sop_class, sop_instance in listed:
        ds = Dataset()
        for keyword in _EMPTY:  # highdicom takes them from the first one; the received modules replace them
            setattr(ds, keyword, "")
        ds.StudyInstanceUID, ds.SeriesInstanceUID = source.study_instance_uid, series
        ds.SOPClassUID, ds.SOPInstanceUID = sop_class, sop_instance
        evidence.append(ds)
    return evidence


def _study_item(study: str, series: Mapping[str, Sequence[tuple[str, str]]]) -> Dataset:
    """Return an item of the Hierarchical SOP Instance Reference Macro (C.17.2.1)."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.StudyInstanceUID = study
    item.ReferencedSeriesSequence = []
    for uid, instances in series.items():
        below = Dataset()
        below.SeriesInstanceUID = uid
        below.ReferencedSOPSequence = instance_items(list(instances))
        item.ReferencedSeriesSequence.append(below)
    return item


def _private_scheme() -> Dataset:
    """Say what our private codes are (Coding Scheme Identification, C.12.1.1.1)."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    item.CodingSchemeUID = codes.PRIVATE_SCHEME_UID
    item.CodingSchemeName = codes.PRIVATE_SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item
