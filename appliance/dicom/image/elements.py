"""Tolerant reading of data elements, straight from their bytes.

Scanners write broken numbers, wrong character sets and values that contradict their VR. pydicom's own conversion
raises or warns on those; here a value that cannot be understood is simply absent.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_ESCAPE = 0x1B
_NUMBER_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


def decode_text(value: bytes) -> str:
    """Turn the bytes of a text element into a string without trusting the declared character set.

    Tries UTF-8, then GB18030 (which holds GBK and, once the escape sequences of ISO 2022 IR 58 are taken out,
    GB 2312), then Latin-1, which accepts everything. See PS3.3 C.12.1.1.2 for the sets that may be declared.

    Parameters
    ----------
    value
        Bytes of the element's value.

    Returns
    -------
    str
        Text without escape sequences, padding or surrounding spaces.
    """
    if _ESCAPE in value:
        value = _without_escape_sequences(value)
    for encoding in ("utf-8", "gb18030"):
        try:
            return value.decode(encoding).strip("\0 ")
        except UnicodeDecodeError:
            continue
    return value.decode("latin-1").strip("\0 ")


def _without_escape_sequences(value: bytes) -> bytes:
    """Drop ISO 2022 escape sequences: ESC, intermediate bytes 0x20-0x2F, one final byte."""
    kept = bytearray()
    position = 0
    while position < len(value):
        if value[position] != _ESCAPE:
            kept.append(value[position])
            position += 1
            continue
        position += 1
        while position < len(value) and 0x20 <= value[position] <= 0x2F:
            position += 1
        position += 1
    return bytes(kept)


class Elements:
    """A data set whose every question has an answer, if only an empty one.

    Parameters
    ----------
    dataset
        Data set as pydicom parsed it, elements still raw.
    """

    __slots__ = ("_dataset",)

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __contains__(self, tag: int) -> bool:
        return tag in self._dataset

    def _raw(self, tag: int) -> tuple[Any, str | None, bool]:
        """Return the value, its VR and whether it is little endian."""
        if tag not in self._dataset:
            return None, None, True
        element = self._dataset.get_item(tag)
        return element.value, element.VR, getattr(element, "is_little_endian", True)

    def texts(self, tag: int) -> tuple[str, ...]:
        r"""Values of a text element, split at the backslash; empty when it is absent or empty."""
        value, _, _ = self._raw(tag)
        if value is None:
            return ()
        text = decode_text(value) if isinstance(value, bytes) else str(value)
        return tuple(part.strip("\0 ") for part in text.split("\\")) if text else ()

    def text(self, tag: int) -> str:
        """First value of a text element, or an empty string."""
        values = self.texts(tag)
        return values[0] if values else ""

    def numbers(self, tag: int) -> tuple[float, ...]:
        """All values of a DS or IS element; empty when any of them is not a finite number."""
        try:
            numbers = tuple(float(text) for text in self.texts(tag))
        except ValueError:
            return ()
        return numbers if all(map(math.isfinite, numbers)) else ()

    def number(self, tag: int) -> float | None:
        """First value of a DS or IS element."""
        numbers = self.numbers(tag)
        return numbers[0] if numbers else None

    def integer(self, tag: int) -> int | None:
        """First value of an IS element."""
        number = self.number(tag)
        return None if number is None else int(number)

    def binary(self, tag: int, vr: str) -> float | int | None:
        """First value of a binary number.

        Parameters
        ----------
        tag
            Element's tag.
        vr
            VR by the data dictionary, used when the transfer syntax is implicit or the file says ``UN``.

        Returns
        -------
        float or int or None
            ``None`` when the element is absent or too short.
        """
        value, stored_vr, little_endian = self._raw(tag)
        if not isinstance(value, bytes):
            return value if isinstance(value, int | float) else None
        code = _NUMBER_FORMATS.get(stored_vr or "", _NUMBER_FORMATS[vr])
        size = struct.calcsize(code)
        if len(value) < size:
            return None
        number: float | int = struct.unpack(("<" if little_endian else ">") + code, value[:size])[0]
        return number

    def unsigned(self, tag: int) -> int | None:
        """First value of a US element."""
        value = self.binary(tag, "US")
        return None if value is None else int(value)

    def items(self, tag: int) -> tuple[Elements, ...]:
        """Items of a sequence; empty when it is absent or cannot be parsed."""
        if tag not in self._dataset:
            return ()
        try:
            sequence = self._dataset[tag].value
            return tuple(Elements(item) for item in sequence or ())
        except Exception:  # noqa: BLE001 - a damaged sequence raises whatever the parser stumbled over
            return ()

    def item(self, tag: int) -> Elements | None:
        """First item of a sequence."""
        items = self.items(tag)
        return items[0] if items else None
