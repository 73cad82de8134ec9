"""How the DICOM room says no: one line that raises a coded reason with its sentence."""

from __future__ import annotations

from typing import NoReturn

from appliance.errors import InputRefusedError
from appliance.reasons import Reason, ReasonCode


def refuse(code: ReasonCode, text: str) -> NoReturn:
    """Raise the refusal of an input.

    Parameters
    ----------
    code
        Member of the closed vocabulary.
    text
        Sentence with the facts of this case; never text copied from a header.

    Raises
    ------
    InputRefusedError
        Always.
    """
    raise InputRefusedError(Reason(code, text))
