"""Key Object Selection (PS3.3 A.35.4, TID 2010): the slices that show the findings, and the pictures made of them.

A viewer that knows key image notes (IHE Radiology, RAD-29) leads from one to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.results.objects import codes
from appliance.results.objects.general import MANUFACTURER, MODEL, dress
from appliance.results.objects.text import fit
from appliance.results.objects.words import notice, title
from appliance.screenings.contract import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset

    from appliance.results.objects.general import Making

_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    "StudyTime",
)


def key_objects(making: Making, pictures: Sequence[Dataset], language: str) -> Dataset | None:
    """Make the selection; ``None`` when nothing was found.

    Parameters
    ----------
    making
        The scan and its report.
    pictures
        The captures that were written; their identifiers are enough.
    language
        ``"en"`` or ``"zh"``; the latter only where the character set can hold it.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes as standard

    found = [result for result in making.report.screenings if result.outcome.status is Status.FINDING]
    slices = dict.fromkeys(finding.key_slice for result in found for finding in result.outcome.findings)
    if not slices:
        return None
    instances = dict.fromkeys(
        (making.source.slices[index].sop_class_uid, making.source.slices[index].sop_instance_uid) for index in slices
    )
    images = [_reference(making, *instance) for instance in instances]
    selected = [*images, *(_complete(making, picture) for picture in pictures)]
    observer = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=making.device_uid,
        name=making.box,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL,
        serial_number=making.box,
    )
    names = ", ".join(title(result.name, language) for result in found)
    content = hd.ko.KeyObjectSelection(
        document_title=codes.Concept("DCM", "113000", "Of Interest").coded(),
        referenced_objects=selected,
        observer_device_context=hd.sr.ObserverContext(hd.sr.CodedConcept.from_code(standard.DCM.Device), observer),
        description=fit(f"{notice(language)} {names}", making.source.modules),
    )
    ds = hd.ko.KeyObjectSelectionDocument(
        evidence=selected,
        content=content,
        series_instance_uid=making.series_uid("ko"),
        series_number=making.series_number("ko"),
        sop_instance_uid=making.object_uid("ko", "findings"),
        instance_number=1,
        manufacturer=MANUFACTURER,
    )
    dress(ds, making, "ko")
    ds.ContentDate, ds.ContentTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    return ds


def _reference(making: Making, sop_class: str, sop_instance: str) -> Dataset:
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, sop_instance
    ds.SeriesInstanceUID = making.source.series_instance_uid
    ds.Rows, ds.Columns = making.source.rows, making.source.columns
    return _complete(making, ds)


def _complete(making: Making, ds: Dataset) -> Dataset:
    """Give a reference what highdicom takes over from the first one; the received modules replace it."""
    for keyword in _EMPTY:
        setattr(ds, keyword, "")
    ds.StudyInstanceUID = making.source.study_instance_uid
    return ds
