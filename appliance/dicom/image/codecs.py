"""Decompression of one frame, and the loop of the process in which it happens.

The codecs are native code that was not written for damaged input: GDCM ends the whole process on some of it. They run
in a process of their own (``codec_process`` starts it), whose end costs one file and not the scan's worker.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from appliance.dicom import uids

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# One codec for each syntax, no fallback to another: the first error is the answer.
_PLUGINS = {
    uids.RLE_LOSSLESS: "pydicom",
    uids.JPEG_BASELINE: "gdcm",
    uids.JPEG_EXTENDED: "gdcm",
    uids.JPEG_LOSSLESS: "gdcm",
    uids.JPEG_LOSSLESS_FIRST_ORDER: "gdcm",
    uids.JPEG_LS_LOSSLESS: "pyjpegls",
    uids.JPEG_LS_NEAR_LOSSLESS: "pyjpegls",
}
_JPEG_2000 = {
    uids.JPEG_2000_LOSSLESS,
    uids.JPEG_2000,
    uids.HTJ2K_LOSSLESS,
    uids.HTJ2K_LOSSLESS_RPCL,
    uids.HTJ2K,
}
COMPRESSED_SYNTAXES = frozenset(_PLUGINS) | _JPEG_2000

_SECONDS_PER_FRAME = 60
_MEMORY_BYTES = 4 << 30
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"

OK, DAMAGED = b"\x01", b"\x00"
LENGTHS = struct.Struct("<II")
"""Before each request: length of its description (JSON) and of its frame."""
ANSWER = struct.Struct("<c4sI")
"""Before each answer: ``OK`` or ``DAMAGED``, dtype, length of the pixels."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What a codec must be told of a frame; the names are those of the Image Pixel module (PS3.3 C.7.6.3)."""

    transfer_syntax_uid: str
    rows: int
    columns: int
    photometric_interpretation: str
    pixel_representation: int
    bits_allocated: int
    bits_stored: int

    def to_json(self) -> bytes:
        """Return the description that travels to the codec process."""
        return json.dumps(asdict(self)).encode()


def decode_frame(frame: bytes, form: FrameFormat) -> NDArray[Any]:
    """Decompress one frame in this process.

    Parameters
    ----------
    frame
        Compressed image.
    form
        Its format; the transfer syntax is one of ``COMPRESSED_SYNTAXES``.

    Returns
    -------
    numpy.ndarray
        Integers, ``(rows, columns)``.

    Raises
    ------
    Exception
        Whatever the codec raises; some codecs end the process instead.
    """
    if form.transfer_syntax_uid in _JPEG_2000:
        return _decode_jpeg_2000(frame)
    return _decode_with_plugin(frame, form)


def _decode_jpeg_2000(frame: bytes) -> NDArray[Any]:
    # pydicom reaches this codec only through a package that adds nothing else.
    from openjpeg.utils import decode

    array: NDArray[Any] = np.asarray(decode(frame))
    # The container follows the code stream's precision; the header's masks and signs need a word of 16 bits.
    return array.astype(f"{array.dtype.kind}2") if array.dtype.itemsize == 1 else array


def _decode_with_plugin(frame: bytes, form: FrameFormat) -> NDArray[Any]:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    # The decoder takes encapsulated data, so that each frame is wrapped as a lone one: no look-up per frame.
    odd = len(frame) % 2
    alone = b"".join((
        _ITEM, bytes(4), _ITEM, struct.pack("<I", len(frame) + odd), frame, b"\0" * odd, _SEQUENCE_DELIMITER, bytes(4),
    ))  # fmt: skip
    options: dict[str, Any] = asdict(form) | {
        "transfer_syntax_uid": UID(form.transfer_syntax_uid),
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "pixel_keyword": "PixelData",
    }
    plugin = _PLUGINS[form.transfer_syntax_uid]
    decoder = get_decoder(UID(form.transfer_syntax_uid))
    array, _ = decoder.as_array(alone, index=0, raw=True, decoding_plugin=plugin, **options)
    return array


def main() -> None:
    """Answer requests on standard input until it ends."""
    # Whatever a codec prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_memory()
    warnings.simplefilter("ignore")
    requests = sys.stdin.buffer
    while len(lengths := requests.read(LENGTHS.size)) == LENGTHS.size:
        description_length, frame_length = LENGTHS.unpack(lengths)
        description: Mapping[str, Any] = json.loads(requests.read(description_length))
        _answer(requests.read(frame_length), FrameFormat(**description), answers)


def _limit_memory() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, _MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _answer(frame: bytes, form: FrameFormat, answers: BinaryIO) -> None:
    signal.alarm(_SECONDS_PER_FRAME)  # a codec that never returns is ended
    try:
        array = decode_frame(frame, form)
    except Exception:  # noqa: BLE001 - a codec raises whatever its damaged input led it to
        answers.write(ANSWER.pack(DAMAGED, b"", 0))
    else:
        if array.shape == (form.rows, form.columns) and array.dtype.kind in "iu":
            array = np.ascontiguousarray(array)
            answers.write(ANSWER.pack(OK, array.dtype.str.encode(), array.nbytes))
            answers.write(array.data)
        else:
            answers.write(ANSWER.pack(DAMAGED, b"", 0))
    signal.alarm(0)
    answers.flush()


if __name__ == "__main__":
    main()
