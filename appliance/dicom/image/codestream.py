"""A look at a compressed image before a codec sees it: codecs trust its header and ask for any memory it names."""

from __future__ import annotations

import struct

_JPEG_START = b"\xff\xd8"
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000

# Start-of-frame markers of ITU-T T.81 (B.1.1.3) without DHT, JPG and DAC, and SOF55 of JPEG-LS (T.87 C.1.1).
_START_OF_FRAME = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_START_OF_SCAN = 0xDA


def ends_whole(frame: bytes) -> bool:
    r"""Tell whether a compressed image has its end: codecs fill what is missing with grey and say nothing.

    Parameters
    ----------
    frame
        JPEG, JPEG-LS or JPEG 2000; writers pad to an even length with 0x00 or 0xFF.

    Returns
    -------
    bool
        Whether it ends with the end-of-image marker.
    """
    return frame.rstrip(b"\0\xff").endswith(_END_OF_IMAGE)


def image_size(frame: bytes) -> tuple[int, int, int] | None:
    """Read rows, columns and components from the code stream.

    Parameters
    ----------
    frame
        JPEG, JPEG-LS or JPEG 2000 code stream, the last one perhaps within a JP2 file.

    Returns
    -------
    tuple of int or None
        ``None`` when the code stream has no readable header, or one that no scanner writes.
    """
    if frame.startswith(_JPEG_START):
        return _jpeg_size(frame)
    start = frame.find(_JPEG_2000_START, 0, 4096)
    return _jpeg_2000_size(frame[start + 4 : start + 46]) if start >= 0 else None


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    position = 2
    while position + 10 <= len(frame):
        if frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME:
            rows, columns, components = struct.unpack(">HHB", frame[position + 5 : position + 10])
            return rows, columns, components
        if marker == _START_OF_SCAN:
            return None
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def _jpeg_2000_size(siz: bytes) -> tuple[int, int, int] | None:
    """Read the SIZ segment (ITU-T T.800 A.5.1) from behind its marker."""
    if len(siz) < 41:
        return None
    _, _, x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components = struct.unpack(">HHIIIIIIIIH", siz[:38])
    dx, dy = siz[39], siz[40]
    if not tile_x or not tile_y or (dx, dy) != (1, 1) or x <= x0 or y <= y0:
        return None
    tiles = -((tile_x0 - x) // tile_x) * -((tile_y0 - y) // tile_y)
    if not 0 < tiles <= 65535 or max(x0, y0, tile_x0, tile_y0) > 65535:
        return None
    return y - y0, x - x0, components
