"""How a receiver wants its messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CharacterSet(StrEnum):
    """What messages are encoded in."""

    UTF_8 = "UTF-8"
    GB18030 = "GB18030"

    @property
    def table_0211(self) -> str:
        """Its name in MSH-18 (HL7 Table 0211)."""
        return {CharacterSet.UTF_8: "UNICODE UTF-8", CharacterSet.GB18030: "GB 18030-2000"}[self]


@dataclass(frozen=True, slots=True)
class Routing:
    """What a message says of its sender and receiver.

    Attributes
    ----------
    sending_application, sending_facility, receiving_application, receiving_facility
        MSH-3 to MSH-6.
    version
        ``2.5.1`` or ``2.3.1``.
    character_set
        What it is encoded in.
    language
        ``en`` or ``zh``; of what people read in it.
    """

    sending_application: str
    sending_facility: str
    receiving_application: str = ""
    receiving_facility: str = ""
    version: str = "2.5.1"
    character_set: CharacterSet = CharacterSet.UTF_8
    language: str = "en"
