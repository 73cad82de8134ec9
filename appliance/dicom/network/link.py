"""The requesting side of an association: opening it, knowing why it did not open, and closing it for certain."""

from __future__ import annotations

import queue
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.transport import AssociationSocket

from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from appliance.tls import TlsFiles, client_context

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.presentation import PresentationContext
    from pynetdicom.transport import AddressInformation

_LOOK_INTERVAL_S = 0.1


class Obstacle(StrEnum):
    """What stands between us and a transfer; who must do what about it follows from this."""

    NETWORK = "network"
    BUSY = "busy"
    CALLING_AE_TITLE = "calling_ae_title"
    CALLED_AE_TITLE = "called_ae_title"
    REFUSED = "refused"
    SOP_CLASS = "sop_class"
    STATUS = "status"
    FILE = "file"
    AUTHENTICATION = "authentication"
    URL = "url"
    TOO_LARGE = "too_large"
    MEDIA_TYPE = "media_type"


class _WatchfulDimse(DIMSEServiceProvider):
    """Ends the wait for an answer when the connection is gone, and keeps the answer for who waits for it.

    pynetdicom may wait for its whole time-out. And its own thread, which looks for requests of the peer, takes the
    answer away where the sending thread believes it paused a moment too early.

    Parameters
    ----------
    association
        Whose messages.
    stop
        Ends the wait too, when it is set.
    """

    def __init__(self, association: Association, stop: threading.Event | None) -> None:
        super().__init__(association)
        self._stop = stop

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message, or ``(None, None)`` when none will come."""
        if not block:
            return self._request()
        deadline = time.monotonic() + (self.dimse_timeout or float("inf"))
        while time.monotonic() < deadline:
            alive = self.dul.is_alive()
            with suppress(queue.Empty):
                return self.msg_queue.get(timeout=_LOOK_INTERVAL_S if alive else 0.0)
            if not alive or (self._stop is not None and self._stop.is_set()):
                break
        return None, None

    def _request(self) -> Any:
        """Return a message that nobody waits for; while the checkpoint is cleared, somebody waits for the next one."""
        nobody_waits = self.assoc._reactor_checkpoint.is_set  # noqa: SLF001  # pynetdicom has no other sign of it
        if not nobody_waits():
            return None, None
        item = super().get_msg(block=False)
        if item[1] is not None and not nobody_waits():
            self.msg_queue.put(item)
            return None, None
        return item


class _Socket(AssociationSocket):
    """A connection without Nagle's algorithm, closed for certain; pynetdicom forgets one that failed or broke."""

    def __init__(self, assoc: Association, address: AddressInformation) -> None:
        super().__init__(assoc, address=address)
        connection = cast("socket.socket", self.socket)
        # Else the last piece of each image waits for the peer's delayed acknowledgement.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Else a peer that reads no more holds the thread for ever: pynetdicom sends without a time-out.
        microseconds = round((assoc.network_timeout or 0.0) * 1e6)
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", *divmod(microseconds, 1_000_000))
        )

    def _shutdown_socket(self) -> None:
        connection = self.socket
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class _Entity(AE):
    """An application entity whose connections are of the kind above."""

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> AssociationSocket:
        connection = _Socket(assoc, address)
        connection.tls_args = tls_args
        return connection


def application_entity(calling_ae: str, timeout_s: float) -> AE:
    """Return this appliance as the requesting side."""
    ae = _Entity(ae_title=calling_ae)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = 0
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    return ae


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no association.

    Attributes
    ----------
    problem
        A sentence with what to change.
    permanent
        Whether trying again is pointless before somebody changes it.
    obstacle
        The same for a program.
    """

    problem: str
    permanent: bool
    obstacle: Obstacle = Obstacle.NETWORK


class Link:
    """An established association, released or aborted at the end of a ``with`` block."""

    def __init__(self, association: Association) -> None:
        self._association = association

    def __enter__(self) -> Association:
        return self._association

    def __exit__(self, *_: object) -> None:
        if self._association.is_established:
            self._association.release()
        if not self._association.is_released:
            self._association.abort()


def associate(
    ae: AE,
    contexts: list[PresentationContext],
    host: str,
    port: int,
    called_ae: str,
    tls: TlsFiles | None,
    stop: threading.Event | None = None,
    *,
    handlers: Sequence[tuple[Any, Callable[[Event], Any]]] = (),
    negotiation: Sequence[Any] = (),
) -> Link | Failure:
    """Open an association, or tell why not.

    Parameters
    ----------
    ae
        From :func:`application_entity`.
    contexts
        What is proposed.
    host, port, called_ae
        The peer.
    tls
        Our TLS files; ``None`` speaks plain TCP.
    stop
        Once it is set nothing waits for an answer any more.
    handlers
        pynetdicom's events with who handles them.
    negotiation
        Extended negotiation items, such as a role selection (PS3.7 D.3.3.4).
    """
    opened: list[bool] = []
    tls_args: Any = None if tls is None else (client_context(tls, compare_host_name=False), host)
    peer = node_name(called_ae, host, port)
    try:
        association = ae.associate(
            host,
            port,
            contexts=contexts,
            ae_title=called_ae,
            tls_args=tls_args,
            ext_neg=list(negotiation),
            evt_handlers=[(evt.EVT_CONN_OPEN, lambda _: opened.append(True)), *handlers],
        )
    except OSError:
        return Failure(f"{peer} cannot be found; check the host name, or write its IP address.", permanent=False)
    if association.is_established:
        association.dimse = _WatchfulDimse(association, stop)
        return Link(association)
    failure = _why_not(association, peer, ae.ae_title, opened=bool(opened))
    association.abort()
    return failure


def _why_not(association: Association, peer: str, calling_ae: str, *, opened: bool) -> Failure:
    if association.is_rejected:
        return _rejection(cast("A_ASSOCIATE", association.acceptor.primitive), peer, calling_ae)
    if not opened:
        return Failure(
            f"{peer} cannot be reached; check address, port, cable, firewall, and TLS on both sides.", permanent=False
        )
    if association.rejected_contexts and not association.accepted_contexts:
        return Failure(
            f"{peer} accepts none of the SOP classes and transfer syntaxes of these files.",
            permanent=True,
            obstacle=Obstacle.SOP_CLASS,
        )
    return Failure(f"{peer} took the connection but broke it off before the association was made.", permanent=False)


def _rejection(answer: A_ASSOCIATE, peer: str, calling_ae: str) -> Failure:
    """Return the sentence for an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
    permanent = answer.result == 1
    if (answer.result_source, answer.diagnostic) == (1, 3):
        sentence = f"{peer} does not know the calling AE title {calling_ae}; add it there."
        return Failure(sentence, permanent, Obstacle.CALLING_AE_TITLE)
    if (answer.result_source, answer.diagnostic) == (1, 7):
        sentence = f"{peer} does not answer to that AE title; correct the called AE title here."
        return Failure(sentence, permanent, Obstacle.CALLED_AE_TITLE)
    if permanent:
        return Failure(f"{peer} refused the association permanently ({answer.reason_str}).", True, Obstacle.REFUSED)
    return Failure(
        f"{peer} refused the association for now ({answer.reason_str}); try again later.", False, Obstacle.BUSY
    )


def node_name(called_ae: str, host: str, port: int) -> str:
    """Return how a peer is called in sentences."""
    return f"{called_ae} at {host}:{port}"
