"""The summary page as Encapsulated PDF (PS3.3 A.45.1), for systems that file documents and show no images."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from appliance.results.objects.capture import who_is_it, written_language
from appliance.results.objects.general import MANUFACTURER, dress
from appliance.results.objects.summary_page import PAPER, draw_summary

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from appliance.results.objects.general import Making

_ENCAPSULATED_PDF_STORAGE = "1.2.840.10008.5.1.4.1.1.104.1"
_TITLE = "CT screening by AI, not reviewed"
_PAGE_WIDTH_INCHES = 8.27 - 2 * 0.4  # what A4 leaves to print on
_JPEG_QUALITY = 92


def summary_pdf(making: Making, language: str, *, patient_name: bool) -> Dataset:
    """Make the document: one page with the outcome of every screening, dark on white.

    Parameters
    ----------
    making
        The scan and its report.
    language
        ``"en"`` or ``"zh"``; without a font with Chinese glyphs the page is in English.
    patient_name
        Whether the patient's name and identifier stand on it.
    """
    from pydicom.dataset import Dataset

    page = draw_summary(
        making.report, written_language(language), who_is_it(making) if patient_name else "", palette=PAPER
    )
    made_at = making.at.timetuple()
    with BytesIO() as file:
        page.save(
            file, "PDF", resolution=page.width / _PAGE_WIDTH_INCHES, quality=_JPEG_QUALITY, title=_TITLE,
            producer=MANUFACTURER, creationDate=made_at, modDate=made_at,
        )  # fmt: skip
        document = file.getvalue()
    ds = Dataset()
    dress(ds, making, "pdf")
    ds.SOPClassUID = _ENCAPSULATED_PDF_STORAGE
    ds.SOPInstanceUID = making.object_uid("pdf", "summary")
    ds.Modality = "DOC"
    ds.ConversionType = "WSD"
    ds.InstanceNumber = 1
    ds.ContentDate, ds.ContentTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    ds.AcquisitionDateTime = ""
    ds.BurnedInAnnotation = "YES"
    ds.VerificationFlag = "UNVERIFIED"
    ds.DocumentTitle = _TITLE
    ds.ConceptNameCodeSequence = []
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocumentLength = len(document)
    ds.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    return ds
