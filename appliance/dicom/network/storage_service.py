"""The Storage Service as SCP (PS3.4 Annex B): takes C-STORE requests off an association and answers each by itself.

pynetdicom decodes the request; it is served and answered here, because pynetdicom's service class would ignore an
incomplete request, abort the association on an unknown SOP class, hold a data set of any size in memory, and spend
more time on the answer than the disk does on the image.
"""

from __future__ import annotations

import itertools
import queue
import struct
import threading
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import P_DATA

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

# Statuses of the Storage Service (PS3.4 Table B.2-1) and of DIMSE (PS3.7 Annex C).
SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
OUT_OF_RESOURCES: Final = 0xA700
DATA_SET_DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000

_LONGEST_COMMENT = 64  # Error Comment (0000,0902) is LO
_LONGEST_WAIT_S = 0.05
_C_STORE_RSP = 0x8001
_NO_DATA_SET = 0x0101
_LAST_COMMAND_FRAGMENT = b"\x03"  # PS3.8 Annex E.2
_NOTHING: Any = (None, None)


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A complete C-STORE request.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid
        Affected SOP Class and Instance UID.
    transfer_syntax_uid
        Of the presentation context it came under.
    data
        Encoded data set as received, or ``None`` when it was larger than the limit and dropped.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """What a request is answered with.

    Attributes
    ----------
    status
        Status (0000,0900).
    comment
        Error Comment (0000,0902), empty for none.
    """

    status: int
    comment: str = ""


class OversizeDataset(BytesIO):
    """Stands in for a data set that went over the limit: takes what still comes and keeps none of it."""

    def write(self, data: Any) -> int:
        """Drop ``data``."""
        return len(data)


class _MessageQueue(queue.Queue[Any]):
    """Complete messages; those that somebody takes at once are never queued."""

    def __init__(self, take: Callable[[int | None, Any], bool]) -> None:
        super().__init__()
        self._take = take

    def put(self, item: tuple[int | None, Any], block: bool = True, timeout: float | None = None) -> None:
        """Offer a message with its context, and queue it when it is not taken."""
        if not self._take(*item):
            super().put(item, block, timeout)


class Dimse(DIMSEServiceProvider):
    """DIMSE provider of one association that stores.

    A C-STORE request is served in the thread that reads the connection: the sender waits for its answer anyway, and
    handing each image to another thread and back costs more than receiving it.

    Parameters
    ----------
    assoc
        Its association.
    largest_instance_bytes
        Data sets above this are read to their end, dropped, and refused alone.
    store
        Serves one request; must not raise.
    refuse
        Makes the answer to a request that cannot be served at all.
    """

    def __init__(
        self,
        assoc: Association,
        *,
        largest_instance_bytes: int,
        store: Callable[[StoreRequest], StoreAnswer],
        refuse: Callable[[int, str], StoreAnswer],
    ) -> None:
        super().__init__(assoc)
        self._largest_instance_bytes = largest_instance_bytes
        self._store = store
        self._refuse = refuse
        self._contexts: dict[int, PresentationContext] | None = None
        # The pieces of one message must not come between those of another (PS3.8 Annex E), and reports are sent from a
        # thread of their own.
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._reported: dict[int, queue.SimpleQueue[int | None]] = {}
        self.msg_queue = _MessageQueue(self._take)

    def new_message_id(self) -> int:
        """Return a Message ID for a request of our own."""
        return next(self._numbers) & 0xFFFF

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message, all of its pieces together."""
        with self._sending:
            super().send_msg(primitive, context_id)

    def report(self, request: N_EVENT_REPORT, context_id: int, *, within_s: float) -> int | None:
        """Send a report and return the status it was answered with; ``None`` when it was not answered in time.

        pynetdicom's own way stops the association's loop, and for ever when the peer ends the association meanwhile.

        Parameters
        ----------
        request
            With a Message ID of :meth:`new_message_id`.
        context_id
            Its presentation context.
        within_s
            How long to wait.
        """
        answered: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        number = cast("int", request.MessageID)
        self._reported[number] = answered
        try:
            self.send_msg(request, context_id)
            for _ in range(round(within_s / _LONGEST_WAIT_S)):
                try:
                    return answered.get(timeout=_LONGEST_WAIT_S)
                except queue.Empty:
                    if not self.assoc.is_established:
                        return None
        finally:
            del self._reported[number]
        return None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the next piece of a message (PS3.8 Annex E)."""
        super().receive_primitive(primitive)
        message = self.message
        if message is None or isinstance(message.data_set, OversizeDataset):
            return
        if cast("BytesIO", message.data_set).tell() > self._largest_instance_bytes:
            message.data_set = OversizeDataset()

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message that is not a C-STORE request.

        pynetdicom's loop asks without waiting and then sleeps; waiting here instead answers at once.
        """
        try:
            return self.msg_queue.get(timeout=self.dimse_timeout if block else _LONGEST_WAIT_S)
        except queue.Empty:
            return _NOTHING

    def _take(self, context_id: int | None, message: Any) -> bool:
        """Serve a C-STORE request; return ``False`` for what pynetdicom is to deal with."""
        if isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo is not None:
            answered = self._reported.get(message.MessageIDBeingRespondedTo)
            if answered is not None:
                answered.put(message.Status)
            return True
        if context_id is None or not isinstance(message, C_STORE) or message.MessageID is None:
            return False
        if self._contexts is None:
            self._contexts = {cast("int", each.context_id): each for each in self.assoc.accepted_contexts}
        context = self._contexts.get(context_id)
        if context is None:
            return False  # pynetdicom aborts, as it should for a context that was never accepted
        answer = self._serve(message, context)
        response = P_DATA()
        response.presentation_data_value_list.append(
            (context_id, _LAST_COMMAND_FRAGMENT + encode_response(message, answer))
        )
        with self._sending:
            self.dul.send_pdu(response)
        return True

    def _serve(self, request: C_STORE, context: PresentationContext) -> StoreAnswer:
        sop_class, sop_instance = request.AffectedSOPClassUID, request.AffectedSOPInstanceUID
        if not sop_class or not sop_instance:
            return self._refuse(CANNOT_UNDERSTAND, "The request does not name its SOP class and instance")
        if sop_class != context.abstract_syntax:
            return self._refuse(DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOP class is not the presentation context's")
        data = request.DataSet
        if data is None:
            return self._refuse(CANNOT_UNDERSTAND, "The request has no data set")
        # One that came as a single PDU was complete before it could be cut off.
        oversize = isinstance(data, OversizeDataset) or data.getbuffer().nbytes > self._largest_instance_bytes
        return self._store(
            StoreRequest(
                sop_class_uid=str(sop_class),
                sop_instance_uid=str(sop_instance),
                transfer_syntax_uid=str(context.transfer_syntax[0]),
                data=None if oversize else data.getvalue(),
            )
        )


def encode_response(request: C_STORE, answer: StoreAnswer) -> bytes:
    """Return the command set of a C-STORE-RSP (PS3.7 Table 9.3-2), in implicit VR little endian (PS3.7 6.3.1)."""
    elements = [
        _text(0x0002, str(request.AffectedSOPClassUID or ""), b"\0"),
        _number(0x0100, _C_STORE_RSP),
        _number(0x0120, cast("int", request.MessageID)),
        _number(0x0800, _NO_DATA_SET),
        _number(0x0900, answer.status),
        _text(0x0902, answer.comment[:_LONGEST_COMMENT], b" "),
        _text(0x1000, str(request.AffectedSOPInstanceUID or ""), b"\0"),
    ]
    body = b"".join(elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _number(element: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, element, 2, value)


def _text(element: int, value: str, padding: bytes) -> bytes:
    if not value:
        return b""
    encoded = value.encode("ascii", "replace")
    encoded += padding * (len(encoded) % 2)
    return struct.pack("<HHL", 0, element, len(encoded)) + encoded
