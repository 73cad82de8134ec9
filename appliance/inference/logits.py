"""What engines answer: logits in single precision, or the bits of bf16 where that is what they were computed in.

NumPy has no bf16, and turns half precision into single number by number. By the bits both go several times as fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    #: float32, or uint16 that holds the bits of bf16: the upper half of single precision's.
    Logits = NDArray[np.float32] | NDArray[np.uint16]

_INFINITE_BF16 = 0x7F80
_MANTISSA_LESS = 23 - 10
#: Sign, exponent and mantissa of a half that was shifted to where single precision has them.
_KEPT = np.int32(-(1 << 31) | 0x0FFFE000)
_EXPONENT_LESS = 127 - 15
_RESCALE = np.float32(2.0**_EXPONENT_LESS)
#: Rebases the exponent, and rounds what is shifted away afterwards.
_OFFSET = np.int32((_EXPONENT_LESS << 23) - (1 << (_MANTISSA_LESS - 1)))


def single(logits: Logits) -> NDArray[np.float32]:
    """Return logits in single precision, exactly; the same array where they are."""
    if logits.dtype == np.float32:
        return logits.view(np.float32)
    bits = logits.astype(np.uint32, order="C")
    bits <<= 16
    return bits.view(np.float32)


def labels_of(logits: Logits) -> NDArray[np.uint8]:
    """Return the channel of the largest logit; the bits of bf16 themselves cannot be compared."""
    labels: NDArray[np.uint8] = single(logits).argmax(axis=0).astype(np.uint8)
    return labels


def largest(logits: Logits) -> float:
    """Return the largest magnitude; infinity where one is not a number."""
    if logits.dtype == np.float32:
        low, high = float(logits.min()), float(logits.max())
        return max(-low, high) if low <= high else np.inf
    # Without their sign, the bits are in the order of what they mean; infinity and then NaN come last.
    bits = np.minimum((logits.view(np.uint16) & np.uint16(0x7FFF)).max(), np.uint16(_INFINITE_BF16))
    return float(single(bits.reshape(1))[0])


def to_half(singles: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return numbers of a magnitude below 65,504 in half precision (IEEE 754 binary16), ties rounded away from zero.

    What is nearer to zero than the smallest normal half, 2⁻¹⁴, becomes some number that is too; sums of logits do not
    feel that.
    """
    bits = singles.view(np.int32)
    rounded = bits & np.int32(0x7FFFFFFF)
    rounded -= _OFFSET
    np.maximum(rounded, 0, out=rounded)
    rounded >>= _MANTISSA_LESS
    sign = bits >> 16
    sign &= np.int32(0x8000)
    rounded |= sign
    return rounded.astype(np.uint16).view(np.float16)


def from_half(halves: NDArray[Any]) -> NDArray[np.float32]:
    """Return finite halves in single precision, exactly."""
    bits = halves.view(np.int16).astype(np.int32, order="C")  # repeats the sign in all upper bits
    bits <<= _MANTISSA_LESS
    bits &= _KEPT
    singles = bits.view(np.float32)
    singles *= _RESCALE
    return singles
