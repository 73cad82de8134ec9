"""Stored values to Hounsfield units: bits, sign, padding and the modality transformation, one slice at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.dicom.image.functional_groups import FrameHeader
    from appliance.dicom.image.headers import InstanceHeader

AIR_HU = -1024
"""Lowest value of a volume: what lies outside the field of view is air (or below it, on scanners that pad)."""

_LARGEST_HU = 32767
_TISSUE_HU = (-900, 3000)


def to_hounsfield(stored: NDArray[Any], header: InstanceHeader, frame: FrameHeader, out: NDArray[np.int16]) -> int:
    """Convert one frame.

    Parameters
    ----------
    stored
        Integer array ``(rows, columns)`` as read.
    header, frame
        What the values mean; the frame must have a rescale slope and intercept.
    out
        int16 array ``(rows, columns)`` that is filled with HU in [-1024, 32767].

    Returns
    -------
    int
        Lowest HU among a sixteenth of the pixels that are not padding: tells data that was never in HU.

    Notes
    -----
    Bits above High Bit are dropped and the sign is extended from Bits Stored (PS3.5 8.1.1): they may hold overlays or
    rubbish. Padding (PS3.3 C.7.5.1.1.2) is compared with the whole word before that, because scanners pad signed data
    with a value that does not fit Bits Stored. A padding value that would mean tissue is believed only outside the
    circle of reconstruction, so that a wrong header cannot punch holes into a patient.
    """
    slope, intercept = frame.rescale_slope or 1.0, frame.rescale_intercept or 0.0
    padding = _padding_mask(stored, header, slope, intercept)
    values = _stored_bits(stored, header)
    if slope == 1.0 and intercept.is_integer():
        hu: NDArray[Any] = values.astype(np.int32)
        if intercept:
            hu += int(intercept)
    else:
        hu = values * np.float64(slope)
        hu += intercept
        np.rint(hu, out=hu)
    np.clip(hu, AIR_HU, _LARGEST_HU, out=hu)
    out[...] = hu
    if padding is None:
        return int(out[::4, ::4].min())
    lowest = int(np.min(out[::4, ::4], where=~padding[::4, ::4], initial=_LARGEST_HU))
    out[padding] = AIR_HU
    return lowest


def _stored_bits(stored: NDArray[Any], header: InstanceHeader) -> NDArray[Any]:
    """Return the integers that Bits Stored and High Bit describe, sign extended where they are signed."""
    width = stored.dtype.itemsize * 8
    bits, high = header.bits_stored, header.high_bit
    if bits >= width:
        return stored
    if not bits - 1 <= high < width:
        high = bits - 1
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    kind = np.dtype(f"{'i' if header.pixel_representation else 'u'}{width // 8}")
    shifted = native.view(kind) << (width - 1 - high)
    result: NDArray[Any] = shifted >> (width - bits)
    return result


def _padding_mask(
    stored: NDArray[Any], header: InstanceHeader, slope: float, intercept: float
) -> NDArray[np.bool_] | None:
    if header.pixel_padding_value is None:
        return None
    width = stored.dtype.itemsize * 8
    first = _as_stored(header.pixel_padding_value, width, bool(header.pixel_representation))
    last = first
    if header.pixel_padding_range_limit is not None:
        last = _as_stored(header.pixel_padding_range_limit, width, bool(header.pixel_representation))
    low, high = min(first, last), max(first, last)
    # The decoder may hand out the other signedness than the header's; compare the words as the header means them.
    kind = np.dtype(f"{'i' if header.pixel_representation else 'u'}{width // 8}")
    words = stored.astype(stored.dtype.newbyteorder("="), copy=False).view(kind)
    mask = words == low if low == high else (words >= low) & (words <= high)
    lowest_hu, highest_hu = sorted((low * slope + intercept, high * slope + intercept))
    if highest_hu > _TISSUE_HU[0] and lowest_hu < _TISSUE_HU[1]:
        mask &= _outside_circle(*stored.shape)
    return mask if mask.any() else None


def _as_stored(value: int, width: int, signed: bool) -> int:
    """Read a padding value that was written with the wrong sign for the data."""
    word = value & ((1 << width) - 1)
    return word - (1 << width) if signed and word >> (width - 1) else word


def _outside_circle(rows: int, columns: int) -> NDArray[np.bool_]:
    y = (np.arange(rows) - (rows - 1) / 2) / (rows / 2)
    x = (np.arange(columns) - (columns - 1) / 2) / (columns / 2)
    mask: NDArray[np.bool_] = y[:, None] ** 2 + x[None, :] ** 2 > 1.0
    return mask
