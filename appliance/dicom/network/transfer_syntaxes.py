"""What the DICOM port accepts: transfer syntaxes, the CT storage classes, and what is only set aside."""

from __future__ import annotations

from typing import Final

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

RECEIVED_TRANSFER_SYNTAXES: Final[dict[str, str]] = {
    EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    EXPLICIT_VR_BIG_ENDIAN: "Explicit VR Big Endian (retired)",
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline (Process 1)",
    "1.2.840.10008.1.2.4.51": "JPEG Extended (Processes 2 and 4)",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless, Non-Hierarchical (Process 14)",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, First-Order Prediction (Process 14, Selection Value 1)",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless Only",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 Lossless Only",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 with RPCL Options, Lossless Only",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
}
"""UID to name (PS3.6 Table A-1), for every transfer syntax that the port accepts."""

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2.2"
CT_STORAGE_CLASSES: Final = frozenset(
    {CT_IMAGE_STORAGE, ENHANCED_CT_IMAGE_STORAGE, LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE}
)
"""SOP classes that are assembled into scans."""

VERIFICATION: Final = "1.2.840.10008.1.1"

_DICOM_ROOT: Final = "1.2.840.10008."
_STORAGE_ROOT: Final = "1.2.840.10008.5.1.4.1.1."
# Query, retrieve and creation services that were numbered below the storage root (PS3.6 Table A-1).
_NOT_STORAGE: Final = frozenset(
    _STORAGE_ROOT + tail for tail in ("200.4", "200.5", "200.6", "201.2", "201.3", "201.4", "201.5", "201.6")
)


def is_storage_class(sop_class_uid: str) -> bool:
    """Return whether a proposed SOP class is stored or set aside here.

    Standard storage classes are recognised by their root, so that classes newer than this software pass too.
    Private classes are taken as storage, because scanners put their private objects into the same send job as the
    images and would report the whole job as failed.

    Parameters
    ----------
    sop_class_uid
        Abstract syntax of a presentation context.
    """
    if sop_class_uid.startswith(_DICOM_ROOT):
        return sop_class_uid.startswith(_STORAGE_ROOT) and sop_class_uid not in _NOT_STORAGE
    return True


def is_ct_class(sop_class_uid: str) -> bool:
    """Return whether instances of this SOP class go into scans rather than aside."""
    return sop_class_uid in CT_STORAGE_CLASSES
