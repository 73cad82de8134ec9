"""Key images as colour Secondary Capture, which every PACS can show (PS3.3 A.8.1).

One page a scan with the outcome of every screening, and one picture a screening that found something. The words are
part of the pixels, and Burned In Annotation says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.results.key_image import draw_key_image
from appliance.results.objects.fonts import chinese_font, font
from appliance.results.objects.general import dress
from appliance.results.objects.patient import written_name
from appliance.results.objects.summary_page import draw_summary
from appliance.results.objects.words import notice, numbers_zh, plane, title
from appliance.screenings.contract import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image
    from pydicom.dataset import Dataset

    from appliance.results.objects.general import Making
    from appliance.results.report import ScreeningResult

_SECONDARY_CAPTURE_STORAGE = "1.2.840.10008.5.1.4.1.1.7"
_LONGEST_DESCRIPTION = 64
_MOST_NUMBERS = 2


def captures(making: Making, language: str, *, patient_name: bool) -> Iterator[tuple[str, Dataset]]:
    """Make the captures of a scan.

    Parameters
    ----------
    making
        The scan and its report.
    language
        ``"en"`` or ``"zh"``; without a font with Chinese glyphs the pages are in English.
    patient_name
        Whether the patient's name and identifier are written into the pixels.

    Yields
    ------
    name, object
        ``"summary"`` or the screening, and the Secondary Capture.
    """
    written = written_language(language)
    who = who_is_it(making) if patient_name else ""
    pages = [("summary", "summary", draw_summary(making.report, written, who))]
    pages += [
        (result.name, title(result.name, "en"), _picture(making, result, written, who))
        for result in making.report.screenings
        if result.outcome.status is Status.FINDING and result.outcome.evidence is not None
    ]
    for number, (name, what, picture) in enumerate(pages, start=1):
        yield name, _capture(making, name, what, picture, number)


def written_language(language: str) -> str:
    """Return the language that pages can be written in: without a font with Chinese glyphs in English."""
    return language if chinese_font() is not None else "en"


def who_is_it(making: Making) -> str:
    """Return name and identifier as people write them, of a name in several scripts the last one."""
    modules = making.source.modules
    name = written_name(str(modules.PatientName))
    return "  ".join(part for part in (name, str(modules.PatientID)) if part)


def _picture(making: Making, result: ScreeningResult, language: str, who: str) -> Image:
    evidence = result.outcome.evidence
    if evidence is None:
        raise ValueError("a screening without evidence has no picture")
    count = making.report.scan.volume.shape[evidence.axis]
    # the screening's own lines stay below the Chinese ones: they hold the threshold
    lines = [*(numbers_zh(result)[:_MOST_NUMBERS] if language == "zh" else ()), *evidence.lines]
    lines.append(plane(evidence.axis, evidence.key_slice + 1, count, language))
    if who:
        lines.insert(0, who)
    chinese = language == "zh" or bool(who)
    return draw_key_image(
        making.report.scan,
        title(result.name, language),
        evidence,
        lines=tuple(lines),
        notice=notice(language),
        font_of=lambda size: font(size, chinese=chinese),
    )


def _capture(making: Making, name: str, what: str, picture: Image, number: int) -> Dataset:
    from pydicom.dataset import Dataset

    pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    ds = Dataset()
    dress(ds, making, "capture")
    ds.SOPClassUID = _SECONDARY_CAPTURE_STORAGE
    ds.SOPInstanceUID = making.object_uid("capture", name)
    ds.Modality = "OT"
    ds.Laterality = ""  # of no one side
    ds.ConversionType = "WSD"
    ds.InstanceNumber = number
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ContentDate, ds.ContentTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.ImageComments = f"AI result, not reviewed: {what}"[:_LONGEST_DESCRIPTION]
    ds.DerivationDescription = f"AI result, not reviewed: {what}"
    ds.PatientOrientation = ""
    ds.BurnedInAnnotation = "YES"
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    data = pixels.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB"
    return ds
