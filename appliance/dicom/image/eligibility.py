"""Which images of a series are original axial CT in Hounsfield units, decided from headers alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from appliance.dicom.image.refusals import refuse
from appliance.dicom.uids import ALWAYS_LOSSY_SYNTAXES
from appliance.reasons import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.dicom.image.functional_groups import FrameHeader
    from appliance.dicom.image.headers import InstanceHeader

Frame = tuple["InstanceHeader", int]
"""An instance and the zero-based index of one of its frames."""

_MODALITIES = {
    "MR": "magnetic resonance",
    "PT": "positron emission tomography",
    "NM": "nuclear medicine",
    "CR": "computed radiography",
    "DX": "digital radiography",
    "MG": "mammography",
    "US": "ultrasound",
    "XA": "X-ray angiography",
    "SR": "a structured report",
    "SEG": "a segmentation",
    "PR": "a presentation state",
    "KO": "a key object selection",
    "RTSTRUCT": "a radiotherapy structure set",
    "OT": "other images",
}
_LOCALIZER_WORDS = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
# Words in any value of Image Type that say the pixels were computed from other images (PS3.3 C.8.2.1.1.1, C.8.15.2).
_REFORMAT_WORDS = {
    "MPR", "MIP", "MINIP", "MINMIP", "REFORMATTED", "REFORMAT", "CURVED", "VRT", "SSD", "VR", "PROJECTION", "PERFUSION",
    "SUBTRACTION", "MAXIMUM", "MINIMUM", "QUANTITY", "DIFFERENCE", "COLOR", "FUSION", "SCREEN", "CAPTURE", "DOSE",
}  # fmt: skip
# Multi-energy results whose values are no Hounsfield units (PS3.3 C.8.2.1.1.1, value 4, and vendors' own words).
_MATERIAL_WORDS = {"IODINE", "SPECIFIC", "FRACTIONAL", "ATOMIC", "DENSITY", "EFF", "ZEFF", "RHO", "URIC"}


def select_axial_frames(headers: Sequence[InstanceHeader], notes: list[str]) -> list[Frame]:
    """Keep the frames that are original axial CT images; refuse the series when that is not what it is.

    Localizers, secondary captures and the like that share the series with axial images are left out with a note.

    Parameters
    ----------
    headers
        All instances of one series.
    notes
        Receives a sentence for each thing that was noticed.

    Returns
    -------
    list of Frame
        In the order of ``headers``.

    Raises
    ------
    InputRefusedError
        ``NOT_CT``, ``LOCALIZER``, ``NOT_ORIGINAL_AXIAL``, ``NOT_HOUNSFIELD`` or ``MIXED_GEOMETRY``.
    """
    headers = _ct_images(headers, notes)
    frames = [(header, index) for header in headers for index in range(len(header.frames))]
    axial = [frame for frame in frames if not _LOCALIZER_WORDS & _words(_of(frame))]
    if not axial:
        refuse(
            ReasonCode.LOCALIZER, f"The series holds only {_count(len(frames), 'localizer image')}, no axial slices."
        )
    if len(axial) < len(frames):
        notes.append(f"{_count(len(frames) - len(axial), 'localizer image')} left out.")
    reformatted = sum(_is_reformat(_of(frame)) for frame in axial)
    if reformatted:
        refuse(
            ReasonCode.NOT_ORIGINAL_AXIAL,
            f"{reformatted} of {_count(len(axial), 'image')} were computed from other images (reformat, projection or "
            "map); send the original axial series.",
        )
    if any(_of(frame).image_type[:1] == ("DERIVED",) for frame in axial):
        notes.append("The images are marked as derived, though primary and axial.")
    _check_made_together(axial)
    _check_hounsfield(axial)
    _note_encoding([header for header, _ in axial], notes)
    return axial


def _of(frame: Frame) -> FrameHeader:
    header, index = frame
    return header.frames[index]


def _words(frame: FrameHeader) -> set[str]:
    return {word for value in frame.image_type for word in re.split(r"[^A-Z0-9]+", value) if word}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ct_images(headers: Sequence[InstanceHeader], notes: list[str]) -> list[InstanceHeader]:
    if not headers:
        refuse(ReasonCode.TOO_FEW_SLICES, "The series holds no images.")
    if len({header.series_instance_uid for header in headers}) > 1:
        refuse(ReasonCode.MIXED_GEOMETRY, "The images belong to more than one series.")
    images = [header for header in headers if header.is_ct]
    others = len(headers) - len(images)
    if not images:
        modality = headers[0].modality
        what = "objects derived from CT, such as secondary captures"
        if modality != "CT":
            what = _MODALITIES.get(modality, "objects that are no CT images")
        refuse(ReasonCode.NOT_CT, f"The series holds {what}, not CT images.")
    if others:
        notes.append(f"{_count(others, 'object')} that {'is' if others == 1 else 'are'} no CT image left out.")
    colour = sum(h.samples_per_pixel != 1 or not h.photometric_interpretation.startswith("MONOCHROME") for h in images)
    if colour:
        refuse(
            ReasonCode.NOT_HOUNSFIELD,
            f"{_count(colour, 'image')} in colour or with a palette: pictures, not Hounsfield units.",
        )
    return images


def _is_reformat(frame: FrameHeader) -> bool:
    if _REFORMAT_WORDS & _words(frame):
        return True
    return frame.image_type[:2] == ("DERIVED", "SECONDARY")


def _check_made_together(frames: list[Frame]) -> None:
    """Refuse a series whose slices were not made together; a slice that says nothing joins the others."""
    headers = {id(header): header for header, _ in frames}.values()
    if len({header.study_instance_uid for header in headers} - {""}) > 1:
        refuse(ReasonCode.MIXED_GEOMETRY, "The slices belong to more than one study; send each as a series of its own.")
    if len({header.frame_of_reference_uid for header in headers} - {""}) > 1:
        # Positions in two frames of reference have nothing to do with each other (PS3.3 C.7.4.1).
        refuse(
            ReasonCode.MIXED_GEOMETRY,
            "The slices have more than one frame of reference, so their places cannot be compared; send each "
            "acquisition as a series of its own.",
        )
    kernels = {" ".join(_of(frame).kernel.upper().split()) for frame in frames} - {""}
    if len(kernels) > 1:
        refuse(
            ReasonCode.MIXED_GEOMETRY,
            f"The slices were reconstructed with {len(kernels)} different kernels; send each reconstruction as a "
            "series of its own.",
        )


def _check_hounsfield(frames: list[Frame]) -> None:
    total = len(frames)
    materials = sum(bool(_MATERIAL_WORDS & _words(_of(frame))) for frame in frames)
    if materials:
        refuse(
            ReasonCode.NOT_HOUNSFIELD,
            f"{materials} of {_count(total, 'image')} are material or density maps, not Hounsfield units.",
        )
    silent = sum(_of(frame).rescale_slope is None or _of(frame).rescale_intercept is None for frame in frames)
    if silent:
        refuse(
            ReasonCode.NOT_HOUNSFIELD,
            f"{silent} of {_count(total, 'image')} have no rescale slope and intercept, so their values have no unit.",
        )
    if any((_of(frame).rescale_slope or 0.0) <= 0.0 for frame in frames):
        refuse(
            ReasonCode.NOT_HOUNSFIELD, "The rescale slope is not positive, so the values cannot be Hounsfield units."
        )
    other = sum(_of(frame).rescale_type not in {"", "HU"} for frame in frames)
    if other:
        refuse(
            ReasonCode.NOT_HOUNSFIELD,
            f"{other} of {_count(total, 'image')} say that their rescaled values are not Hounsfield units.",
        )


def _note_encoding(headers: list[InstanceHeader], notes: list[str]) -> None:
    lossy = len(
        {header.path for header in headers if header.lossy or header.transfer_syntax_uid in ALWAYS_LOSSY_SYNTAXES}
    )
    if lossy:
        notes.append(f"{_count(lossy, 'image')} compressed with loss: fine structure and noise are altered.")
    if any(header.photometric_interpretation == "MONOCHROME1" for header in headers):
        notes.append("The images ask for inverted display (MONOCHROME1); Hounsfield units do not depend on it.")
