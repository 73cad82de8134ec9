"""What the DIMSE-N services of the port share: statuses of PS3.7, a guarded decoder, and answers with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import BytesIO

# PS3.7 Annex C; PS3.4 Table F.7.2-2 for the identifier of an error.
SUCCESS: Final = 0x0000
INVALID_ATTRIBUTE_VALUE: Final = 0x0106
PROCESSING_FAILURE: Final = 0x0110
DUPLICATE_SOP_INSTANCE: Final = 0x0111
NO_SUCH_SOP_INSTANCE: Final = 0x0112
NO_SUCH_EVENT_TYPE: Final = 0x0113
INVALID_ARGUMENT_VALUE: Final = 0x0115
INVALID_SOP_INSTANCE: Final = 0x0117
MISSING_ATTRIBUTE: Final = 0x0120
NO_SUCH_ACTION: Final = 0x0123
NOT_AUTHORIZED: Final = 0x0124
RESOURCE_LIMITATION: Final = 0x0213

MAY_NO_LONGER_BE_UPDATED: Final = 0xA710
"""Error ID (0000,0903) of an N-SET on a step that is completed or discontinued."""

#: Larger than any message with 20 000 references; an image comes by C-STORE.
LARGEST_DATA_SET_BYTES = 8 << 20

_LONGEST_COMMENT = 64  # Error Comment (0000,0902) is LO
_LONGEST_UID = 64


class RefusedError(Exception):
    """A request is answered with this failure.

    Parameters
    ----------
    status
        Status (0000,0900).
    comment
        Error Comment (0000,0902); never holds anything that was received.
    error_id
        Error ID (0000,0903), where the standard names one.
    """

    def __init__(self, status: int, comment: str, error_id: int | None = None) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment
        self.error_id = error_id

    def answer(self) -> Dataset:
        """Return what pynetdicom makes the response of."""
        answer = Dataset()
        answer.Status = self.status
        answer.ErrorComment = self.comment[:_LONGEST_COMMENT]
        if self.error_id is not None:
            answer.ErrorID = self.error_id
        return answer


def decoded(data: BytesIO | None, transfer_syntax_uid: str) -> Dataset:
    """Decode a message's data set.

    Parameters
    ----------
    data
        As received; ``None`` when the message has none.
    transfer_syntax_uid
        Of the presentation context.

    Raises
    ------
    RefusedError
        It is missing, too large or damaged.
    """
    if data is None or not data.getbuffer().nbytes:
        raise RefusedError(INVALID_ARGUMENT_VALUE, "The request has no data set")
    if data.getbuffer().nbytes > LARGEST_DATA_SET_BYTES:
        raise RefusedError(RESOURCE_LIMITATION, "The data set is larger than any that is accepted")
    syntax = UID(transfer_syntax_uid)
    try:
        dataset = decode(data, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        for element in dataset.iterall():
            element.value  # noqa: B018  # pydicom decodes an element when it is asked for
    except Exception as error:
        # pydicom's errors have no common class, and their texts may quote what was received.
        raise RefusedError(INVALID_ARGUMENT_VALUE, "The data set cannot be decoded") from error
    return dataset


def uid_of(dataset: Dataset, keyword: str) -> str | None:
    """Return a UID out of a data set, or ``None`` when it is absent, empty, multiple, or no UID."""
    value = dataset.get(keyword)
    return str(value) if isinstance(value, str) and is_uid(value) else None


def is_uid(value: str) -> bool:
    """Return whether a text can be a UID; leading zeros of a component, which some devices write, are let pass."""
    return 0 < len(value) <= _LONGEST_UID and all(part.isascii() and part.isdigit() for part in value.split("."))


def items_of(dataset: Dataset, keyword: str) -> Iterable[Dataset]:
    """Return the items of a sequence; none when it is absent, empty or no sequence."""
    if keyword not in dataset or dataset[keyword].VR != "SQ":
        return ()
    return tuple(dataset[keyword].value or ())
