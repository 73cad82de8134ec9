"""The requesting side of an association: opening it, knowing why it did not open, and closing it for certain."""

from __future__ import annotations

import queue
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dimse import DIMSEServiceProvider

from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from appliance.dicom.tls import TlsFiles, client_context

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.presentation import PresentationContext

_LOOK_INTERVAL_S = 0.1


class _WatchfulDimse(DIMSEServiceProvider):
    """Ends the wait for an answer when the connection is gone; pynetdicom may wait for its whole time-out."""

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message, or ``(None, None)`` when none will come."""
        if not block:
            return super().get_msg(block=False)
        deadline = time.monotonic() + (self.dimse_timeout or float("inf"))
        while time.monotonic() < deadline:
            alive = self.dul.is_alive()
            with suppress(queue.Empty):
                return self.msg_queue.get(timeout=_LOOK_INTERVAL_S if alive else 0.0)
            if not alive:
                break
        return None, None


def application_entity(calling_ae: str, timeout_s: float) -> AE:
    """Return this appliance as the requesting side."""
    ae = AE(ae_title=calling_ae)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = 0
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    return ae


def associate(
    ae: AE,
    contexts: list[PresentationContext],
    host: str,
    port: int,
    called_ae: str,
    tls: TlsFiles | None,
) -> tuple[Link, tuple[str, bool] | None]:
    """Return an association and, when it was not established, why and whether that is permanent."""
    connections: list[socket.socket] = []

    def on_open(event: Event) -> None:
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            # Without it the last piece of each image waits for the peer's delayed acknowledgement.
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections.append(transport.socket)

    tls_args: Any = None if tls is None else (client_context(tls), host)
    association = ae.associate(
        host,
        port,
        contexts=contexts,
        ae_title=called_ae,
        tls_args=tls_args,
        evt_handlers=[(evt.EVT_CONN_OPEN, on_open)],
    )
    link = Link(association, connections)
    if association.is_established:
        association.dimse = _WatchfulDimse(association)
        return link, None
    failure = _why_not(association, node_name(called_ae, host, port), ae.ae_title, opened=bool(connections))
    link.close()
    return link, failure


@dataclass(frozen=True, slots=True)
class Link:
    """An association and its connection, which pynetdicom leaves open when the peer closes first."""

    association: Association
    connections: list[socket.socket]

    def __enter__(self) -> Association:
        return self.association

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            if self.association.is_established:
                self.association.release()
        self.close()

    def close(self) -> None:
        """Close what is still open."""
        with suppress(Exception):
            self.association.abort()
        for connection in self.connections:
            connection.close()


def _why_not(association: Association, peer: str, calling_ae: str, *, opened: bool) -> tuple[str, bool]:
    if association.is_rejected:
        return _rejection(cast("A_ASSOCIATE", association.acceptor.primitive), peer, calling_ae)
    if not opened:
        return f"{peer} cannot be reached; check address, port, cable and firewall, and TLS on both sides.", False
    if association.rejected_contexts and not association.accepted_contexts:
        return f"{peer} accepts none of the SOP classes and transfer syntaxes of these files.", True
    return f"{peer} took the connection but broke it off before the association was made.", False


def _rejection(answer: A_ASSOCIATE, peer: str, calling_ae: str) -> tuple[str, bool]:
    """Return the sentence for an A-ASSOCIATE-RJ (PS3.8 Table 9-21) and whether it is permanent."""
    permanent = answer.result == 1
    if (answer.result_source, answer.diagnostic) == (1, 3):
        return f"{peer} does not know the calling AE title {calling_ae}; add it there.", permanent
    if (answer.result_source, answer.diagnostic) == (1, 7):
        return f"{peer} does not answer to that AE title; correct the called AE title here.", permanent
    if permanent:
        return f"{peer} refused the association permanently ({answer.reason_str}).", True
    return f"{peer} refused the association for now ({answer.reason_str}); try again later.", False


def node_name(called_ae: str, host: str, port: int) -> str:
    """Return how a peer is called in sentences."""
    return f"{called_ae} at {host}:{port}"
