"""What an association request is answered with: the contexts accepted, or one of the rejections of PS3.8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import UID
from pynetdicom.presentation import build_context

from appliance.dicom import uids
from appliance.dicom.network.transfer_syntaxes import RECEIVED_TRANSFER_SYNTAXES, is_ct_class, is_storage_class

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


def contexts_for(
    proposed: list[PresentationContext], services: frozenset[str] = frozenset()
) -> list[PresentationContext]:
    """Decide on each proposed context and return what pynetdicom has to be told of that.

    Each context that can be accepted is left with the one transfer syntax chosen for it. pynetdicom knows its own
    side by abstract syntax only, so that the order of one context would else decide over another of the same class.

    Parameters
    ----------
    proposed
        Presentation contexts of the A-ASSOCIATE-RQ; narrowed in place.
    services
        SOP classes that are served besides Verification and Storage.

    Returns
    -------
    list of PresentationContext
        One for each SOP class that is accepted, with every transfer syntax known for it.
    """
    supported: dict[str, PresentationContext] = {}
    for context in proposed:
        abstract = str(context.abstract_syntax)
        known = _known_syntaxes(abstract, services)
        if not known:
            continue
        ours = supported.setdefault(abstract, build_context(abstract, list(known)))
        if abstract == uids.STORAGE_COMMITMENT_PUSH_MODEL:
            # The caller may also be the provider that reports to us (PS3.7 D.3.3.4).
            ours.scu_role = ours.scp_role = True
        chosen = choose_transfer_syntax(abstract, [str(syntax) for syntax in context.transfer_syntax], services)
        if chosen is not None:
            context.transfer_syntax = [UID(chosen)]
    return list(supported.values())


def choose_transfer_syntax(
    sop_class_uid: str, proposed: list[str], services: frozenset[str] = frozenset()
) -> str | None:
    """Choose how a class of objects is to be sent.

    The sender names first what it holds; taking that saves it a conversion. Only CT images must not come compressed
    with loss where they could come without, and a JPEG Extended image comes only where nothing else is proposed: with
    12 bits it is stored and never screened, because no free codec decodes it.

    Parameters
    ----------
    sop_class_uid
        Abstract syntax of the context.
    proposed
        Its transfer syntaxes, in the sender's order.
    services
        SOP classes that are served besides Verification and Storage.

    Returns
    -------
    str or None
        ``None`` when none of them is known here.
    """
    known = _known_syntaxes(sop_class_uid, services)
    acceptable = [syntax for syntax in proposed if syntax in known]
    if is_ct_class(sop_class_uid):
        # Sorting keeps the sender's order among equals.
        acceptable.sort(key=lambda uid: (uid == uids.JPEG_EXTENDED, uid in uids.PERHAPS_LOSSY_SYNTAXES))
    return acceptable[0] if acceptable else None


def _known_syntaxes(sop_class_uid: str, services: frozenset[str]) -> tuple[str, ...]:
    if sop_class_uid == uids.VERIFICATION or sop_class_uid in services:
        return (uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN)
    return tuple(RECEIVED_TRANSFER_SYNTAXES) if is_storage_class(sop_class_uid) else ()
