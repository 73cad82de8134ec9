"""What a receiver answers (HL7 v2.5.1 Sections 2.9 and 2.15.8): MSA, and ERR where it gives a reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from appliance.foreign_text import one_line
from appliance.hl7.er7 import unescape


class AckCode(StrEnum):
    """Acknowledgment Code, MSA-1 (Table 0008)."""

    ACCEPT = "AA"
    ERROR = "AE"
    REJECT = "AR"
    COMMIT_ACCEPT = "CA"
    COMMIT_ERROR = "CE"
    COMMIT_REJECT = "CR"


ACCEPTED = frozenset({AckCode.ACCEPT, AckCode.COMMIT_ACCEPT})


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One answer.

    Attributes
    ----------
    code
        ``None`` when the answer has none of the table.
    control_id
        Of the message that it is about.
    error
        HL7 error code (Table 0357), empty where there is none.
    text
        What it says in words, as one line; it may quote the patient.
    """

    code: AckCode | None
    control_id: str
    error: str = ""
    text: str = ""


def read_acknowledgement(text: str) -> Acknowledgement | None:
    """Read an answer.

    Parameters
    ----------
    text
        A message, decoded; segments may end with a carriage return or, as some send it, a line feed.

    Returns
    -------
    Acknowledgement or None
        ``None`` when it is no HL7 message or has no MSA segment.
    """
    segments = [line for line in text.replace("\n", "\r").split("\r") if line]
    if not segments or not segments[0].startswith("MSH") or len(segments[0]) < len("MSH|^"):
        return None
    field, component = segments[0][3], segments[0][4]
    parts = {line[:3]: line.split(field) for line in reversed(segments)}
    if "MSA" not in parts:
        return None
    msa = (*parts["MSA"], *[""] * 7)
    code = msa[1].strip().upper()
    err = (*parts.get("ERR", [""]), *[""] * 9)
    # ERR-3 is the code and ERR-8 the sentence from version 2.5 on; before that MSA-6 and MSA-3 said it.
    error = (err[3] or msa[6]).split(component)[0].strip()
    said = unescape(" ".join(part for part in (msa[3], err[8]) if part))
    known = AckCode(code) if code in set(AckCode) else None
    return Acknowledgement(known, msa[2].strip(), one_line(error, 20), one_line(said))
