"""A glance at the first bytes of a received data set: enough to refuse rubbish, never a parse of it."""

from __future__ import annotations

import struct
import zlib

from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from appliance.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

_SOP_CLASS_UID = 0x0008_0016
_SOP_INSTANCE_UID = 0x0008_0018
_UNDEFINED_LENGTH = 0xFFFF_FFFF
_GLANCE_BYTES = 65_536
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())


class MalformedDatasetError(ValueError):
    """The data set cannot be what the request says; the message fits an Error Comment (0000,0902)."""


class SopClassMismatchError(MalformedDatasetError):
    """The data set's SOP Class UID is not the one of the request (PS3.4 Table B.2-1, status A900)."""


def glance(data: bytes, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Check that a data set begins like one in its transfer syntax and is the instance its request names.

    Only elements up to SOP Instance UID (0008,0018) are looked at, and at most 64 KiB.

    Parameters
    ----------
    data
        Encoded data set without file meta information.
    transfer_syntax_uid
        Transfer syntax of the presentation context.
    sop_class_uid, sop_instance_uid
        Affected SOP Class and Instance UID of the C-STORE request.

    Raises
    ------
    MalformedDatasetError
        It does not.
    """
    if not data:
        raise MalformedDatasetError("The data set is empty")
    found = _first_uids(_beginning(data, transfer_syntax_uid), transfer_syntax_uid)
    if found is None:
        return
    if _SOP_INSTANCE_UID not in found:
        raise MalformedDatasetError("The data set has no SOP Instance UID (0008,0018)")
    if found[_SOP_INSTANCE_UID] != sop_instance_uid:
        raise MalformedDatasetError("SOP Instance UID differs between command and data set")
    if found.get(_SOP_CLASS_UID, sop_class_uid) != sop_class_uid:
        raise SopClassMismatchError("SOP Class UID differs between command and data set")


def _beginning(data: bytes, transfer_syntax_uid: str) -> bytes:
    if transfer_syntax_uid != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return data[:_GLANCE_BYTES]
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _GLANCE_BYTES)
    except zlib.error as error:
        raise MalformedDatasetError("The deflated data set cannot be inflated") from error


def _first_uids(data: bytes, transfer_syntax_uid: str) -> dict[int, str] | None:
    """Return the two UIDs by tag, or ``None`` when something legal but unusual stands before them."""
    order = ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<"
    implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    found: dict[int, str] = {}
    position, previous = 0, -1
    while position + 8 <= len(data):
        group, element = struct.unpack_from(order + "HH", data, position)
        tag = group << 16 | element
        if tag > _SOP_INSTANCE_UID:
            break
        if tag <= previous:
            raise MalformedDatasetError("The data set's elements are not in ascending order")
        previous = tag
        start, length = _value(data, position, order, implicit=implicit)
        if length == _UNDEFINED_LENGTH:
            return None
        if start + length > len(data):
            raise MalformedDatasetError("The data set ends in the middle of an element")
        if tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID):
            found[tag] = data[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
        position = start + length
    return found


def _value(data: bytes, position: int, order: str, *, implicit: bool) -> tuple[int, int]:
    """Return where the value of the element at ``position`` starts and its length (PS3.5 Section 7.1)."""
    if implicit:
        return position + 8, struct.unpack_from(order + "L", data, position + 4)[0]
    vr = data[position + 4 : position + 6]
    if vr in _SHORT_VRS:
        return position + 8, struct.unpack_from(order + "H", data, position + 6)[0]
    if vr not in _LONG_VRS:
        raise MalformedDatasetError("The data set is not in the negotiated transfer syntax")
    if position + 12 > len(data):
        raise MalformedDatasetError("The data set ends in the middle of an element")
    return position + 12, struct.unpack_from(order + "L", data, position + 8)[0]


def file_header(transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str, source_ae_title: str) -> bytes:
    """Return preamble, prefix and file meta information for a data set as received (PS3.10 Section 7.1).

    Parameters
    ----------
    transfer_syntax_uid
        Transfer syntax of the presentation context that carried it.
    sop_class_uid, sop_instance_uid
        Affected SOP Class and Instance UID of the request.
    source_ae_title
        Calling AE title, for Source Application Entity Title (0002,0016).
    """
    body = b"".join((
        struct.pack("<HH2s2xL", 2, 0x0001, b"OB", 2) + b"\0\1",
        _short(0x0002, b"UI", sop_class_uid),
        _short(0x0003, b"UI", sop_instance_uid),
        _short(0x0010, b"UI", transfer_syntax_uid),
        _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        _short(0x0016, b"AE", source_ae_title),
    ))  # fmt: skip
    group_length = struct.pack("<HH2sHL", 2, 0x0000, b"UL", 4, len(body))
    return bytes(128) + b"DICM" + group_length + body


def _short(element: int, vr: bytes, value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    if len(encoded) % 2:
        encoded += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr, len(encoded)) + encoded
