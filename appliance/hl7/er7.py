"""The ER7 encoding of HL7 v2 (HL7 v2.5.1 Chapter 2): separators, escapes, segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIELD, COMPONENT, REPETITION, ESCAPE, SUBCOMPONENT = "|", "^", "~", "\\", "&"
ENCODING_CHARACTERS = COMPONENT + REPETITION + ESCAPE + SUBCOMPONENT
SEGMENT_END = "\r"

_ESCAPES = str.maketrans({
    FIELD: "\\F\\", COMPONENT: "\\S\\", REPETITION: "\\R\\", ESCAPE: "\\E\\", SUBCOMPONENT: "\\T\\",
})  # fmt: skip
_UNESCAPES = {"F": FIELD, "S": COMPONENT, "R": REPETITION, "E": ESCAPE, "T": SUBCOMPONENT, ".br": "\n"}


def escape(text: str) -> str:
    """Return text that may stand in a field (Section 2.7): separators escaped, line ends and controls as spaces."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split()).translate(_ESCAPES)


def unescape(text: str) -> str:
    """Return what an escaped text says; an escape that is not known stays as it is."""
    parts = text.split(ESCAPE)
    said = parts[0]
    for place in range(1, len(parts), 2):
        closed = place + 1 < len(parts)
        said += _UNESCAPES.get(parts[place], f"\\{parts[place]}\\") if closed else f"\\{parts[place]}"
        said += parts[place + 1] if closed else ""
    return said


def components(*values: str) -> str:
    """Return a field of escaped components without empty ones at its end."""
    return COMPONENT.join(map(escape, values)).rstrip(COMPONENT)


def repetitions(values: Sequence[str]) -> str:
    """Return a field of repetitions, each encoded already."""
    return REPETITION.join(values)


def segment(name: str, fields: Mapping[int, str]) -> str:
    """Return a segment.

    Parameters
    ----------
    name
        Three letters.
    fields
        Number of a field in the segment's table to its encoded value.
    """
    numbers = [number for number, value in fields.items() if value]
    values = [fields.get(number, "") for number in range(1, max(numbers, default=0) + 1)]
    return FIELD.join([name, *values])


def header(fields: Mapping[int, str]) -> str:
    """Return an MSH segment; fields 1 and 2, the separators, are known."""
    # The field separator is field 1 itself, so that the second field stands where others have their first.
    return segment("MSH", {number - 1: value for number, value in {2: ENCODING_CHARACTERS, **fields}.items()})
