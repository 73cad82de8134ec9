"""What the DICOM port accepts: transfer syntaxes, the CT storage classes, and what is only set aside."""

from __future__ import annotations

from typing import Final

from appliance.dicom import uids

RECEIVED_TRANSFER_SYNTAXES: Final[dict[str, str]] = {
    uids.EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    uids.IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    uids.EXPLICIT_VR_BIG_ENDIAN: "Explicit VR Big Endian (retired)",
    uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "Deflated Explicit VR Little Endian",
    uids.RLE_LOSSLESS: "RLE Lossless",
    uids.JPEG_BASELINE: "JPEG Baseline (Process 1)",
    uids.JPEG_EXTENDED: "JPEG Extended (Processes 2 and 4)",
    uids.JPEG_LOSSLESS: "JPEG Lossless, Non-Hierarchical (Process 14)",
    uids.JPEG_LOSSLESS_FIRST_ORDER: "JPEG Lossless, First-Order Prediction (Process 14, Selection Value 1)",
    uids.JPEG_LS_LOSSLESS: "JPEG-LS Lossless",
    uids.JPEG_LS_NEAR_LOSSLESS: "JPEG-LS Near-Lossless",
    uids.JPEG_2000_LOSSLESS: "JPEG 2000 Lossless Only",
    uids.JPEG_2000: "JPEG 2000",
    uids.HTJ2K_LOSSLESS: "High-Throughput JPEG 2000 Lossless Only",
    uids.HTJ2K_LOSSLESS_RPCL: "High-Throughput JPEG 2000 with RPCL Options, Lossless Only",
    uids.HTJ2K: "High-Throughput JPEG 2000",
}
"""UID to name (PS3.6 Table A-1), for every transfer syntax that the port accepts."""

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
    return sop_class_uid in uids.CT_STORAGE_CLASSES
