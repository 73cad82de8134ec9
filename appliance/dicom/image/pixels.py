"""Stored pixel values of one frame, from native or encapsulated pixel data, complete or not at all.

A file that was cut off must never turn into silent zeros, so that every length is checked before a value is used.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.dicom import uids
from appliance.dicom.image.codec_process import CodecError
from appliance.dicom.image.codecs import COMPRESSED_SYNTAXES, FrameFormat
from appliance.dicom.image.codestream import ends_whole, image_size
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from appliance.dicom.image.codec_process import CodecProcess
    from appliance.dicom.image.headers import InstanceHeader

_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"


class PixelDataError(ApplianceError):
    """The pixel data of an instance is missing, cut off or cannot be decoded."""


def read_stored_values(header: InstanceHeader, codec: CodecProcess) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read the frames of one instance, one after the other.

    Parameters
    ----------
    header
        Header of the instance, which knows where its pixels lie.
    codec
        Decompresses; it is not asked for uncompressed pixels.

    Yields
    ------
    tuple of int and numpy.ndarray
        Zero-based frame index and an integer array ``(rows, columns)`` as stored: not yet masked to Bits Stored, not
        yet in Hounsfield units.

    Raises
    ------
    PixelDataError
        When anything is missing, cut off or broken.
    """
    check_complete(header)
    try:
        if header.transfer_syntax_uid in uids.NATIVE_SYNTAXES:
            yield from _native(header)
        else:
            yield from _encapsulated(header, codec)
    except OSError as error:
        raise PixelDataError(_os_sentence(error)) from error


def check_complete(header: InstanceHeader) -> None:
    """Check without reading them that an instance's pixels are all there, as far as its header and size can tell.

    Parameters
    ----------
    header
        Header of the instance.

    Raises
    ------
    PixelDataError
        When pixel data is missing, cut off or of an impossible kind.
    """
    location = header.pixel_data
    if location is None:
        raise PixelDataError("the file ends before its pixel data")
    if header.bits_allocated not in {8, 16, 32} or not 0 < header.bits_stored <= header.bits_allocated:
        raise PixelDataError(f"{header.bits_allocated} bits allocated cannot be CT values")
    if header.rows < 1 or header.columns < 1:
        raise PixelDataError("the image has no size")
    if header.transfer_syntax_uid == uids.JPEG_EXTENDED and header.bits_stored > 8:
        # GDCM decodes these to wrong values without a word, and no other codec with a free licence does it at all.
        raise PixelDataError("12-bit lossy JPEG is not supported, set the sender to uncompressed or lossless")
    if header.transfer_syntax_uid not in uids.NATIVE_SYNTAXES:
        return
    if location.length is None:
        raise PixelDataError("the length of its uncompressed pixel data is undefined")
    expected = header.rows * header.columns * len(header.frames) * header.bits_allocated // 8
    if location.length < expected:
        raise PixelDataError(f"it holds {location.length} of {expected} bytes of pixel data")
    try:
        size = header.path.stat().st_size
    except OSError as error:
        raise PixelDataError(_os_sentence(error)) from error
    if location.offset is not None and size < location.offset + expected:
        raise PixelDataError("the file ends within its pixel data")


def _os_sentence(error: OSError) -> str:
    return f"the file cannot be read: {(error.strerror or 'input/output error').lower()}"


def _native(header: InstanceHeader) -> Iterator[tuple[int, NDArray[Any]]]:
    offset = header.pixel_data.offset if header.pixel_data else None
    order = ">" if header.transfer_syntax_uid == uids.EXPLICIT_VR_BIG_ENDIAN else "<"
    kind = "i" if header.pixel_representation else "u"
    dtype = np.dtype(f"{order}{kind}{header.bits_allocated // 8}")
    values = header.rows * header.columns
    if offset is None:
        inflated = _inflated_pixel_data(header)
        for index in range(len(header.frames)):
            frame = np.frombuffer(inflated, dtype, count=values, offset=index * values * dtype.itemsize)
            yield index, frame.reshape(header.rows, header.columns)
        return
    with header.path.open("rb") as file:
        file.seek(offset)
        for index in range(len(header.frames)):
            frame = np.fromfile(file, dtype, count=values)
            if frame.size != values:
                raise PixelDataError("the file ends within its pixel data")
            yield index, frame.reshape(header.rows, header.columns)


def _inflated_pixel_data(header: InstanceHeader) -> bytes:
    from pydicom import dcmread

    try:
        value: bytes = dcmread(header.path, force=True).get_item(0x7FE00010).value
    except Exception as error:
        raise PixelDataError("its deflated data set cannot be inflated") from error
    expected = header.rows * header.columns * len(header.frames) * header.bits_allocated // 8
    if len(value) < expected:
        raise PixelDataError("the file ends within its pixel data")
    return value


def _encapsulated(header: InstanceHeader, codec: CodecProcess) -> Iterator[tuple[int, NDArray[Any]]]:
    syntax = header.transfer_syntax_uid
    if syntax not in COMPRESSED_SYNTAXES:
        raise PixelDataError("its transfer syntax is not supported")
    form = FrameFormat(
        transfer_syntax_uid=syntax,
        rows=header.rows,
        columns=header.columns,
        photometric_interpretation=header.photometric_interpretation,
        pixel_representation=header.pixel_representation,
        bits_allocated=header.bits_allocated,
        bits_stored=header.bits_stored,
    )
    for index, frame in enumerate(_encapsulated_frames(header)):
        if syntax != uids.RLE_LOSSLESS:
            _check_code_stream(frame, header)
        try:
            yield index, codec.decode(frame, form)
        except CodecError as error:
            raise PixelDataError("its compressed image is damaged") from error


def _check_code_stream(frame: bytes, header: InstanceHeader) -> None:
    if not ends_whole(frame):
        raise PixelDataError("its compressed image ends too early")
    if image_size(frame) != (header.rows, header.columns, 1):
        raise PixelDataError("its compressed image has another size than its header")


def _encapsulated_frames(header: InstanceHeader) -> list[bytes]:
    """Return the compressed frames, each joined from its fragments (PS3.5 A.4)."""
    location = header.pixel_data
    if location is None or location.offset is None or location.length is not None:
        raise PixelDataError("its compressed pixel data is not encapsulated")
    with header.path.open("rb") as file:
        file.seek(location.offset)
        data = file.read()
    fragments: list[tuple[int, bytes]] = []  # offset after the basic offset table, fragment
    offsets: tuple[int, ...] = ()
    position = 0
    start: int | None = None
    while True:
        tag, size = data[position : position + 4], data[position + 4 : position + 8]
        if tag == _SEQUENCE_DELIMITER:
            break
        if tag != _ITEM or len(size) < 4:
            raise PixelDataError("the file ends within its pixel data")
        (length,) = struct.unpack("<I", size)
        value = data[position + 8 : position + 8 + length]
        if len(value) < length:
            raise PixelDataError("the file ends within its pixel data")
        if start is None:
            offsets = struct.unpack(f"<{length // 4}I", value[: length // 4 * 4])
            start = position + 8 + length
        else:
            fragments.append((position - start, value))
        position += 8 + length
    return _group(fragments, offsets, len(header.frames))


def _group(fragments: list[tuple[int, bytes]], offsets: tuple[int, ...], frames: int) -> list[bytes]:
    if frames == 1:
        return [b"".join(value for _, value in fragments)] if fragments else _cut()
    if len(fragments) == frames:
        return [value for _, value in fragments]
    if len(offsets) == frames:
        bounds = [*offsets, 1 << 62]
        grouped = [
            b"".join(value for offset, value in fragments if low <= offset < high) for low, high in pairwise(bounds)
        ]
        if all(grouped):
            return grouped
    # Without a basic offset table a frame ends with the fragment that carries the end-of-image marker.
    grouped = []
    open_frame: list[bytes] = []
    for _, value in fragments:
        open_frame.append(value)
        if ends_whole(value):
            grouped.append(b"".join(open_frame))
            open_frame = []
    return grouped if len(grouped) == frames else _cut()


def _cut() -> list[bytes]:
    raise PixelDataError("it holds fewer compressed images than its header says")
