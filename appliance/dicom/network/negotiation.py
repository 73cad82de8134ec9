"""What an association request is answered with: the contexts accepted, or one of the rejections of PS3.8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pynetdicom.presentation import build_context

from appliance.dicom.network.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    RECEIVED_TRANSFER_SYNTAXES,
    VERIFICATION,
    is_storage_class,
)

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 Table 9-21): result, source and reason, and a word for the log."""

    result: int
    source: int
    diagnostic: int
    why: str


CALLING_NOT_RECOGNISED = Rejection(1, 1, 3, "calling AE title and address are not on the list of peers")
CALLED_NOT_RECOGNISED = Rejection(1, 1, 7, "called AE title is not ours")
TEMPORARY_CONGESTION = Rejection(2, 3, 1, "less space than the disk reserve is free")
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2, "as many associations as allowed are open")
STOPPING = Rejection(2, 3, 1, "the receiver is stopping")
NO_REASON = Rejection(2, 1, 1, "the request could not be checked")


def contexts_for(proposed: list[PresentationContext]) -> list[PresentationContext]:
    """Return the contexts to accept, in the sender's own order of transfer syntaxes.

    The sender names first what it holds; taking that saves it a conversion.
    """
    contexts = []
    for context in proposed:
        abstract = str(context.abstract_syntax)
        if abstract == VERIFICATION:
            known = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN]
        elif is_storage_class(abstract):
            known = list(RECEIVED_TRANSFER_SYNTAXES)
        else:
            continue
        own_order = [str(syntax) for syntax in context.transfer_syntax if str(syntax) in known]
        contexts.append(build_context(abstract, own_order + [each for each in known if each not in own_order]))
    return contexts
