"""Sockets and the listening server, where pynetdicom's own are too slow or too trusting for a hospital network.

All are subclasses that pynetdicom is handed; none of its classes is patched and no process-wide flag is set.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import socketserver
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from pynetdicom import evt
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association

_log = structlog.get_logger()

_NOTHING: Any = (None, None)
_READ_STEP_BYTES = 1 << 20
_LONGEST_WAIT_S = 0.05
_POLL_S = 0.001
_LONGEST_END_S = 30.0
# Before a caller is known, only an A-ASSOCIATE-RQ may come; the largest legal one is far below this.
_LARGEST_PDU_BEFORE_ACCEPTANCE_BYTES = 1 << 20
_PDU_MARGIN_BYTES = 256 << 20
# Connections that are not (yet) associations, such as port scans; beyond this they are closed at once.
_SPARE_CONNECTIONS = 32

_CHATTY_EVENTS = (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_PDU_RECV, evt.EVT_PDU_SENT)


class Bell:
    """Something that ``select`` can wait for and another thread can ring."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._descriptor

    def ring(self) -> None:
        """Wake whoever waits."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Forget earlier rings."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)


class AnnouncingQueue(queue.Queue[Any]):
    """A queue that calls somebody after each ``put``."""

    def __init__(self, announce: Callable[[], None]) -> None:
        super().__init__()
        self._announce = announce

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put and announce."""
        super().put(item, block, timeout)
        self._announce()


class Socket(AssociationSocket):
    """A connection that reads in large steps and never waits for ever.

    pynetdicom reads 4 KiB at a time; one ``recv_into`` per network buffer is what brings ingest near dcmtk's.
    Delayed acknowledgements are switched off, because senders that leave Nagle's algorithm on otherwise stall for
    40 ms per image.

    Attributes
    ----------
    admitted
        Set once the caller is known; until then only little is read from it, and not for long.
    """

    def __init__(
        self, assoc: Association, connection: socket.socket, *, largest_instance_bytes: int, outgoing: Bell
    ) -> None:
        super().__init__(assoc, client_socket=connection)
        self._largest_pdu_bytes = largest_instance_bytes + _PDU_MARGIN_BYTES
        self._negotiation_ends = time.monotonic() + (assoc.acse_timeout or 30.0)
        self.admitted = False
        self._stalled = False
        self._last_read = time.monotonic()
        self._quick_ack = getattr(socket, "TCP_QUICKACK", None)
        self._outgoing = outgoing
        connection.settimeout(assoc.network_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, or fewer when the peer closes the connection.

        Raises
        ------
        OSError
            The peer stalled, or announced more than any accepted PDU may hold.
        """
        connection = cast("socket.socket", self.socket)
        negotiating = not self.admitted
        largest = _LARGEST_PDU_BEFORE_ACCEPTANCE_BYTES if negotiating else self._largest_pdu_bytes
        if nr_bytes > largest:
            raise OSError(f"a PDU of {nr_bytes} bytes is larger than any that is accepted")
        self._stalled = self.timed_out
        # Memory grows with what has really arrived, not with what a length field claims.
        received = bytearray(min(nr_bytes, _READ_STEP_BYTES))
        filled = 0
        while filled < nr_bytes:
            if filled == len(received):
                received.extend(bytes(min(nr_bytes - filled, max(_READ_STEP_BYTES, filled))))
            if negotiating and time.monotonic() > self._negotiation_ends:
                self._stalled = True
                raise TimeoutError("the association request did not arrive in time")
            with memoryview(received) as view:
                try:
                    count = connection.recv_into(view[filled:])
                except TimeoutError:
                    self._stalled = True
                    raise
            if self._quick_ack is not None:
                connection.setsockopt(socket.IPPROTO_TCP, self._quick_ack, 1)
            if count == 0:
                break
            filled += count
        del received[filled:]
        self._last_read = time.monotonic()
        return received

    @property
    def timed_out(self) -> bool:
        """Whether the peer was silent for the whole network time-out, within a message or between two."""
        timeout_s = self.assoc.network_timeout
        return self._stalled or (timeout_s is not None and time.monotonic() - self._last_read >= timeout_s)

    @property
    def ready(self) -> bool:
        """Whether data can be read, after waiting for data or for something to send.

        pynetdicom polls here and sleeps a millisecond in between, for every piece of every image. Waiting for what is
        really awaited costs nothing while the line is quiet and loses no time when it is not.
        """
        connection = self.socket
        if connection is None or not self._is_connected:
            time.sleep(_POLL_S)
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        try:
            awaited: list[Any] = [connection, self._outgoing]
            readable, _, _ = select.select(awaited, [], [], _LONGEST_WAIT_S)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False
        if self._outgoing in readable:
            self._outgoing.clear()
        return connection in readable

    def _shutdown_socket(self) -> None:
        """Close the connection; pynetdicom leaves the descriptor open when the peer has gone first."""
        connection = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def break_off(self) -> None:
        """End the connection from another thread, waking a read that waits for a stalled peer."""
        connection = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Connection(RequestHandler):
    """One incoming connection, from the TLS handshake to the end of its association."""

    server: Server

    def handle(self) -> None:
        """Run the association to its end, whatever that is, and then report it."""
        if isinstance(self.request, ssl.SSLSocket):
            try:
                self.request.settimeout(self.ae.acse_timeout)
                self.request.do_handshake()
            except OSError as error:
                if not self.server.is_own_probe(self.client_address):
                    _log.warning(
                        "connection_refused", address=self.client_address[0], reason="tls", detail=_short(error)
                    )
                self.server.shutdown_request(self.request)
                return
        association = self._create_association()
        self.server.on_association(association)
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()
        # pynetdicom tells of some ends by an event and of others not; the end of its thread is certain.
        association.join()
        association.dul.join(_LONGEST_END_S)
        self.server.on_end(association)

    def _create_association(self) -> Association:
        association = super()._create_association()
        for event in _CHATTY_EVENTS:
            for handler, _ in list(cast("list[tuple[Any, Any]]", association.get_handlers(event))):
                association.unbind(event, handler)
        # The plain socket wrapper has already announced the connection; ours announces it again in its place.
        association.dul.socket = None
        association.dul.event_queue.get_nowait()
        outgoing = Bell()
        association.dul.to_provider_queue = AnnouncingQueue(outgoing.ring)
        # What the association's own loop has to see besides messages (a release, an abort) wakes it by an empty one.
        association.dul.to_user_queue = AnnouncingQueue(lambda: association.dimse.msg_queue.put(_NOTHING))
        association.dul._run_loop_delay = 0.0  # noqa: SLF001  # its sleep; ``Socket.ready`` waits instead
        association.set_socket(
            Socket(
                association,
                self.request,
                largest_instance_bytes=self.server.largest_instance_bytes,
                outgoing=outgoing,
            )
        )
        return association


class Server(ThreadedAssociationServer):
    """The listening socket; it never lets one slow caller hold up the next."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    largest_instance_bytes: int
    most_connections: int
    on_association: Callable[[Association], None]
    on_end: Callable[[Association], None]
    is_own_probe: Callable[[tuple[Any, ...]], bool]

    def __init__(self, *args: Any, settings: dict[str, Any], **kwargs: Any) -> None:
        self.largest_instance_bytes = settings["largest_instance_bytes"]
        self.most_connections = settings["maximum_associations"] + _SPARE_CONNECTIONS
        self.on_association = settings["on_association"]
        self.on_end = settings["on_end"]
        self.is_own_probe = settings["is_own_probe"]
        self._connections = threading.Semaphore(self.most_connections)
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; a TLS handshake is left to the connection's own thread."""
        listener = cast("socket.socket", self.socket)
        connection, address = listener.accept()
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002  # signature of socketserver
        """Close connections beyond a bound, so that a flood costs no memory."""
        return self._connections.acquire(blocking=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection; where the system has none left, the connection's place is free again."""
        try:
            super().process_request(request, client_address)
        except Exception:
            self._connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def shutdown(self) -> None:
        """Stop listening; associations in progress go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # signature of socketserver
        """Log what a connection's thread could not handle itself."""
        _log.exception("connection_failed", address=client_address[0])


def _short(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
