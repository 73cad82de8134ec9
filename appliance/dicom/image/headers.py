"""Everything series assembly needs to know of one file, read without its pixels and without trusting it."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appliance.dicom import uids
from appliance.dicom.image.contrast import read_contrast_tag
from appliance.dicom.image.elements import Elements
from appliance.dicom.image.functional_groups import FrameHeader, read_frames
from appliance.errors import ApplianceError
from appliance.reasons import Reason, ReasonCode

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.scan import ContrastTag

_FIRST_PIXEL_TAG = 0x7FE00008
_PIXEL_DATA = 0x7FE00010
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LARGEST_INFLATED_BYTES = 1 << 30

_TAGS = (
    0x00080008, 0x00080016, 0x00080018, 0x00080050, 0x00080060, 0x00080070, 0x00081030, 0x0008103E, 0x00081090,
    0x00100040, 0x00101010, 0x00101020, 0x00180010, 0x00180012, 0x00180014, 0x00180050, 0x00180060, 0x00181030,
    0x00181040, 0x00181041, 0x00181210, 0x00185100, 0x0020000D, 0x0020000E, 0x00200011, 0x00200012, 0x00200032,
    0x00200037, 0x00200052, 0x00200100, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030,
    0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121, 0x00281052, 0x00281053, 0x00281054,
    0x00282110, 0x52009229, 0x52009230,
)  # fmt: skip


class UnreadableFileError(ApplianceError):
    """A file that cannot be understood as DICOM.

    Parameters
    ----------
    reason
        ``NO_DICOM`` for a file that never was DICOM, ``UNREADABLE_FILE`` for one that is damaged or closed to us,
        ``ARCHIVE_TOO_LARGE`` for a deflated one that was made to fill the memory.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PixelDataLocation:
    """Where Pixel Data (7FE0,0010) lies in its file.

    Attributes
    ----------
    offset
        Byte offset of the value, ``None`` in a deflated file, whose bytes have no fixed place.
    length
        Length of the value in bytes, ``None`` when it is undefined, as in encapsulated pixel data.
    """

    offset: int | None
    length: int | None


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """One DICOM instance without its pixels; a value that the file does not give is ``None``, 0 or empty.

    Attributes
    ----------
    path
        The file.
    sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid, frame_of_reference_uid
        Identifiers.
    transfer_syntax_uid
        How the data set is encoded.
    modality
        Modality (0008,0060).
    series_number
        As in the header; no order is ever taken from it.
    accession_number
        Identifies the order; never to be logged.
    manufacturer, model, kvp, patient_position
        How the scan was made.
    patient_age_years, patient_sex, patient_height_m
        For the screenings' age and size limits.
    contrast_tag
        What the header says of intravenous contrast.
    rows, columns, samples_per_pixel, photometric_interpretation, bits_allocated, bits_stored, high_bit, \
pixel_representation, pixel_padding_value, pixel_padding_range_limit
        Image Pixel module (PS3.3 C.7.6.3).
    lossy
        Lossy Image Compression (0028,2110) says that the pixels were once compressed with loss.
    pixel_data
        ``None`` when the file holds no pixel data or ends before it.
    frames
        One per frame; a single-frame instance has exactly one.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    transfer_syntax_uid: str
    modality: str
    series_number: int | None
    accession_number: str = field(repr=False)
    manufacturer: str
    model: str
    kvp: float | None
    patient_position: str | None
    patient_age_years: float | None
    patient_sex: str | None
    patient_height_m: float | None
    contrast_tag: ContrastTag
    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    pixel_padding_value: int | None
    pixel_padding_range_limit: int | None
    lossy: bool
    pixel_data: PixelDataLocation | None
    frames: tuple[FrameHeader, ...]

    @property
    def is_ct(self) -> bool:
        """Whether this is a CT image by its SOP class, or by its modality where the class is missing."""
        if self.sop_class_uid:
            return self.sop_class_uid in uids.CT_STORAGE_CLASSES
        return self.modality == "CT"


def read_header(path: Path) -> InstanceHeader:
    """Read one file's header.

    Files without preamble and File Meta Information are accepted when their first element is one that a data set
    can begin with (PS3.10 7.1 asks for the preamble; some exporters leave it out).

    Parameters
    ----------
    path
        File to read.

    Returns
    -------
    InstanceHeader
        What the header says.

    Raises
    ------
    UnreadableFileError
        For anything that is not a readable DICOM instance, whatever is in the file.
    """
    location: list[tuple[str | None, int]] = []

    def at_pixel_data(tag: int, vr: str | None, length: int) -> bool:
        if tag < _FIRST_PIXEL_TAG:
            return False
        if tag == _PIXEL_DATA:
            location.append((vr, length))
        return True

    try:
        with _File(path.open("rb", buffering=0)) as file:
            without_preamble = _sniff(file.read(1024))
            file.seek(0)
            dataset = _parse(file, at_pixel_data, without_preamble)
            end = file.tell()
    except OSError as error:
        text = f"The file cannot be read: {(error.strerror or 'input/output error').lower()}."
        raise UnreadableFileError(Reason(ReasonCode.UNREADABLE_FILE, text)) from error
    header = _to_header(path, dataset, _locate(dataset, location, end))
    # Some anonymisers empty every UID; a header that reaches the pixels is whole all the same.
    whole = header.series_instance_uid or header.pixel_data or header.sop_class_uid == uids.MEDIA_STORAGE_DIRECTORY
    if not whole:
        text = "The file ends within its header; send or copy it again."
        raise UnreadableFileError(Reason(ReasonCode.UNREADABLE_FILE, text))
    return header


def _sniff(start: bytes) -> bool:
    """Return whether the preamble is missing; raise when this is no DICOM at all."""
    if start[128:132] == b"DICM":
        return False
    if len(start) >= 8:
        group, element = struct.unpack("<HH", start[:4])
        explicit = start[4:6].isalpha() and start[4:6].isupper()
        (length,) = struct.unpack("<I", start[4:8])
        # A data set begins with file meta information or with group 0008; text never does.
        if group in {0x0002, 0x0008} and element < 0x0100 and (explicit or length < 0x10000):
            return True
        if start[:2] == b"\x00\x08" and explicit:  # explicit VR big endian
            return True
    text = "The file is empty." if not start else "The file is not DICOM: it has neither preamble nor a first element."
    raise UnreadableFileError(Reason(ReasonCode.NO_DICOM, text))


class _File(io.BufferedReader):
    """A file that checks what the parser is about to inflate.

    The parser reads the rest of a file in one go in one case only: it is a deflated data set, which it then inflates
    whole. Checking there needs no second opinion on where the file meta information ends and what it says.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            start = self.tell()
            self._check_inflated_size()
            self.seek(start)
        return super().read(size)

    def _check_inflated_size(self) -> None:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        size = 0
        try:
            while (chunk := inflater.unconsumed_tail or super().read(1 << 16)) and not inflater.eof:
                size += len(inflater.decompress(chunk, 1 << 20))
                if size > _LARGEST_INFLATED_BYTES:
                    text = f"The deflated data set unfolds to more than {_LARGEST_INFLATED_BYTES >> 20} MiB."
                    raise UnreadableFileError(Reason(ReasonCode.ARCHIVE_TOO_LARGE, text))
        except zlib.error:
            return  # the parser stumbles over the same damage and says so


def _parse(file: Any, at_pixel_data: Any, without_preamble: bool) -> Any:
    from pydicom.filereader import read_partial
    from pydicom.tag import BaseTag

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_partial(
                file,
                stop_when=at_pixel_data,
                force=without_preamble,
                specific_tags=[BaseTag(tag) for tag in _TAGS],
            )
    except (OSError, UnreadableFileError):
        raise
    except Exception as error:
        text = "The file begins like DICOM but its header is damaged; send or copy it again."
        raise UnreadableFileError(Reason(ReasonCode.UNREADABLE_FILE, text)) from error


def _locate(dataset: Any, found: list[tuple[str | None, int]], end: int) -> PixelDataLocation | None:
    if not found:
        return None
    vr, length = found[0]
    known_length = None if length == _UNDEFINED_LENGTH else length
    if dataset.file_meta.get("TransferSyntaxUID") == uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return PixelDataLocation(None, known_length)
    # The parser rewound to the element's tag: tag, VR, two reserved bytes and a long length, or tag and length.
    return PixelDataLocation(end + (8 if vr is None else 12), known_length)


def _to_header(path: Path, dataset: Any, pixel_data: PixelDataLocation | None) -> InstanceHeader:
    elements = Elements(dataset)
    meta = Elements(dataset.file_meta)
    allocated = elements.unsigned(0x00280100) or 0
    stored = elements.unsigned(0x00280101) or allocated
    high_bit = elements.unsigned(0x00280102)
    representation = elements.unsigned(0x00280103) or 0
    return InstanceHeader(
        path=path,
        sop_class_uid=elements.text(0x00080016) or meta.text(0x00020002),
        sop_instance_uid=elements.text(0x00080018) or meta.text(0x00020003),
        study_instance_uid=elements.text(0x0020000D),
        series_instance_uid=elements.text(0x0020000E),
        frame_of_reference_uid=elements.text(0x00200052),
        transfer_syntax_uid=meta.text(0x00020010) or _guessed_transfer_syntax(dataset),
        modality=elements.text(0x00080060).upper(),
        series_number=elements.integer(0x00200011),
        accession_number=elements.text(0x00080050),
        manufacturer=elements.text(0x00080070)[:64],
        model=elements.text(0x00081090)[:64],
        kvp=_kvp(elements),
        patient_position=elements.text(0x00185100)[:16].upper() or None,
        patient_age_years=_age_years(elements.text(0x00101010)),
        patient_sex=_one_of(elements.text(0x00100040).upper(), ("M", "F", "O")),
        patient_height_m=_positive(elements.number(0x00101020)),
        contrast_tag=read_contrast_tag(elements),
        rows=elements.unsigned(0x00280010) or 0,
        columns=elements.unsigned(0x00280011) or 0,
        samples_per_pixel=elements.unsigned(0x00280002) or 1,
        photometric_interpretation=elements.text(0x00280004).upper() or "MONOCHROME2",
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else high_bit,
        pixel_representation=representation,
        pixel_padding_value=elements.unsigned(0x00280120),
        pixel_padding_range_limit=elements.unsigned(0x00280121),
        lossy=elements.text(0x00282110) == "01",
        pixel_data=pixel_data,
        frames=read_frames(elements),
    )


def _guessed_transfer_syntax(dataset: Any) -> str:
    """Transfer syntax of a file without meta information, from how its first element was encoded."""
    implicit, little_endian = dataset.original_encoding
    if implicit:
        return uids.IMPLICIT_VR_LITTLE_ENDIAN
    return uids.EXPLICIT_VR_LITTLE_ENDIAN if little_endian else uids.EXPLICIT_VR_BIG_ENDIAN


def _kvp(elements: Elements) -> float | None:
    """Tube voltage, kV; enhanced objects keep it in the CT X-Ray Details functional group."""
    kvp = elements.number(0x00180060)
    if kvp is None:
        shared = elements.item(0x52009229)
        details = shared.item(0x00189325) if shared else None
        kvp = details.number(0x00180060) if details else None
    return _positive(kvp)


def _age_years(text: str) -> float | None:
    """Age String (PS3.5 6.2): three digits and D, W, M or Y."""
    units = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
    if len(text) < 2 or not text[:-1].isdecimal() or text[-1].upper() not in units:
        return None
    return int(text[:-1]) * units[text[-1].upper()]


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _one_of(text: str, allowed: tuple[str, ...]) -> str | None:
    return text if text in allowed else None
