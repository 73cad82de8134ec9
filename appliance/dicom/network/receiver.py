"""The DICOM port: admits known callers only and acknowledges only what is durable."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

import structlog
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from appliance.dicom.network.access import AllowList
from appliance.dicom.network.intake import Intake, Limits, Tally
from appliance.dicom.network.negotiation import (
    CALLED_NOT_RECOGNISED,
    CALLING_NOT_RECOGNISED,
    LOCAL_LIMIT_EXCEEDED,
    NO_REASON,
    STOPPING,
    TEMPORARY_CONGESTION,
    Rejection,
    contexts_for,
)
from appliance.dicom.network.normalized_services import NormalizedServices
from appliance.dicom.network.sender import echo
from appliance.dicom.network.storage_service import Dimse
from appliance.dicom.network.wire import Connection, Server, Socket
from appliance.dicom.spool import CloseReason, Spool, SpoolError
from appliance.dicom.uids import VERIFICATION
from appliance.durable import free_bytes
from appliance.tls import server_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.transport import AddressInformation

    from appliance.config import ReceiveSettings

_log = structlog.get_logger()

_MIB = 1 << 20
_NEGOTIATION_TIMEOUT_S = 30.0
# Where a port that listens on every address is reached from this machine.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class ReceiverStatistics:
    """What a receiver has done since it started.

    Attributes
    ----------
    associations_open, associations, associations_refused
        Now open, ever accepted (self-tests not counted), refused.
    instances, set_aside, failed
        Stored (of these: not CT, set aside), and answered with a failure.
    bytes
        Size of the data sets stored.
    last_error_status
        Status of the last failure, or ``None``.
    """

    associations_open: int
    associations: int
    associations_refused: int
    instances: int
    set_aside: int
    failed: int
    bytes: int
    last_error_status: int | None


class Receiver:
    """SCP of Storage, Verification, procedure steps and commitment (PS3.4 A, B, F, J) that writes into a spool.

    Parameters
    ----------
    settings
        The ``receive`` section of the configuration.
    spool
        Root of the spool; see :mod:`appliance.dicom.spool`.
    takes_reports
        Whether this box asks others for storage commitment, so that they may report to it here.
    free_space
        Returns the free bytes at a path.

    Raises
    ------
    ConfigurationError
        A peer's address or a TLS file is wrong.
    """

    def __init__(
        self,
        settings: ReceiveSettings,
        spool: Path,
        *,
        takes_reports: bool = False,
        free_space: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._settings = settings
        self._spool_root = spool
        self._services = NormalizedServices(settings, spool, takes_reports=takes_reports, has_room=self._has_room)
        self._allowed = AllowList.from_peers(settings.peers)
        self._tls = None if settings.tls is None else server_context(settings.tls)
        self._limits = Limits(
            reserve_bytes=settings.disk_reserve_mib * _MIB,
            instance_bytes=settings.maximum_instance_mib * _MIB,
            free_bytes=lambda: free_space(spool),
        )
        self._tally = Tally()
        self._lock = threading.Lock()
        self._open: dict[Association, Intake] = {}
        self._unclosed: list[tuple[Intake, CloseReason]] = []
        self._self_test_title: str | None = None
        self._own_probes: tuple[tuple[str, int], ...] = ()
        self._stopping = False
        self._spool: Spool | None = None
        self._server: Server | None = None

    # --- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the spool, close what a dead predecessor left open, and listen.

        Raises
        ------
        SpoolError
            Another receiver writes to this spool, it cannot be made, or the port cannot be opened.
        """
        self._spool = Spool(self._spool_root)
        try:
            recovered = self._spool.recover()
            self._services.make()
            self._server = self._listen()
        except OSError as error:
            self._spool.close()
            where = f"{self._settings.address} port {self._settings.port}"
            raise SpoolError(
                f"The receiver cannot start on {where} with {self._spool_root}: {error.strerror}"
            ) from error
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="dicom-port", daemon=True
        ).start()
        _log.info("receiver_started", port=self.port, ae_title=self._settings.ae_title, recovered=recovered)
        if self._spool.unrecovered:
            _log.error("associations_not_recovered", number=len(self._spool.unrecovered))

    def stop(self, grace_s: float = 3.0) -> None:
        """Stop listening, let instances in transfer finish for ``grace_s`` seconds, then abort what is left."""
        if self._server is None or self._spool is None:
            return
        self._stopping = True
        self._server.shutdown()
        self._wait_for_ends(grace_s, only_busy=True)
        for association in self._associations():
            threading.Thread(target=association.abort, daemon=True).start()
        self._wait_for_ends(1.0)
        for association in self._associations():
            transport = association.dul.socket
            if isinstance(transport, Socket):
                transport.break_off()
        self._wait_for_ends(2.0)
        self.housekeeping()
        self._spool.close()
        self._server = self._spool = None
        _log.info("receiver_stopped", instances=self._tally.instances)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """TCP port that is listened on; known once started."""
        if self._server is None:
            raise SpoolError("The receiver has not been started")
        return int(self._server.server_address[1])

    @property
    def statistics(self) -> ReceiverStatistics:
        """Counts since the start."""
        tally = self._tally
        with self._lock:
            still_open = sum(not intake.verification_only for intake in self._open.values())
        return ReceiverStatistics(
            associations_open=still_open,
            associations=tally.associations,
            associations_refused=tally.associations_refused,
            instances=tally.instances,
            set_aside=tally.set_aside,
            failed=tally.failed,
            bytes=tally.bytes,
            last_error_status=tally.last_error_status,
        )

    def housekeeping(self) -> None:
        """Try again what a full disk kept from being done, such as closing folders; call every few seconds."""
        self._services.make()
        with self._lock:
            waiting, self._unclosed = self._unclosed, []
        for intake, reason in waiting:
            if not intake.close(reason):
                with self._lock:
                    self._unclosed.append((intake, reason))
        if self._spool is not None and self._spool.unrecovered:
            recovered = self._spool.recover_rest()
            if recovered:
                _log.info("associations_recovered", number=recovered, left=len(self._spool.unrecovered))

    def check_self(self, timeout_s: float = 10.0) -> bool:
        """Return whether the port answers a C-ECHO from this process; with TLS, whether it answers a handshake."""
        host = _LOOPBACK.get(self._settings.address, self._settings.address)
        if self._tls is not None:
            return self._answers_tls(host, timeout_s)
        self._self_test_title = f"SELF{secrets.token_hex(6)}".upper()
        try:
            return echo(
                host=host,
                port=self.port,
                called_ae=self._settings.ae_title,
                calling_ae=self._self_test_title,
                timeout_s=timeout_s,
            ).ok
        finally:
            self._self_test_title = None

    def _answers_tls(self, host: str, timeout_s: float) -> bool:
        # A client without certificate: the handshake's answer, even an alert, shows that the port is alive. The box's
        # own certificate need not be one that its port trusts, or that may be shown by a client.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with (
                socket.create_connection((host, self.port), timeout_s) as connection,
                contextlib.suppress(ssl.SSLError),
            ):
                # Before the handshake begins, so that the port knows whom it is about to refuse.
                self._own_probes = (*self._own_probes[-7:], connection.getsockname()[:2])
                context.wrap_socket(connection).close()
        except OSError:
            return False
        return True

    # --- negotiation --------------------------------------------------------------------------------------

    def _listen(self) -> Server:
        ae = AE(ae_title=self._settings.ae_title)
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = 0
        ae.acse_timeout = min(_NEGOTIATION_TIMEOUT_S, self._settings.network_timeout_s)
        ae.dimse_timeout = self._settings.network_timeout_s
        ae.network_timeout = self._settings.network_timeout_s
        # The limit is kept here, where refused and half-open connections do not count against it.
        ae.maximum_associations = 1_000_000
        server = ae.make_server(
            (self._settings.address, self._settings.port),
            contexts=[build_context(VERIFICATION)],
            ssl_context=self._tls,
            server_class=Server,
            request_handler=Connection,
            settings={
                "largest_instance_bytes": self._limits.instance_bytes,
                "maximum_associations": self._settings.maximum_associations,
                "on_association": self._on_connection,
                "on_end": self._on_end,
                "is_own_probe": lambda address: address[:2] in self._own_probes,
            },
        )
        return cast("Server", server)

    def _on_connection(self, association: Association) -> None:
        association.bind(evt.EVT_REQUESTED, self._on_request)

    def _on_request(self, event: Event) -> None:
        association = event.assoc
        request = cast("A_ASSOCIATE", association.requestor.primitive)
        address = cast("AddressInformation", association.requestor.address_info).address
        try:
            rejection = self._admit(association, request, address)
        except Exception:  # noqa: BLE001  # anything unforeseen must refuse, and is logged with its traceback
            # pynetdicom would go on to accept after an error in this handler.
            _log.exception("association_not_checked")
            rejection = NO_REASON
        if rejection is None:
            return
        self._tally.add(associations_refused=1)
        _log.warning(
            "association_refused",
            peer=request.calling_ae_title,
            address=address,
            called=request.called_ae_title,
            reason=rejection.why,
        )
        association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        # Waits until the rejection is on the wire; without it the socket may close first.
        association.kill()

    def _admit(self, association: Association, request: A_ASSOCIATE, address: str) -> Rejection | None:
        """Decide on a request: a rejection, or ``None`` with everything made ready to store."""
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        is_self_test = self._self_test_title is not None and calling == self._self_test_title
        if not is_self_test and not self._allowed.admits(calling, address):
            return CALLING_NOT_RECOGNISED
        if self._settings.check_called_ae_title and called != self._settings.ae_title.strip():
            return CALLED_NOT_RECOGNISED
        if self._stopping or self._spool is None:
            return STOPPING
        if not is_self_test and self._limits.free_bytes() < self._limits.reserve_bytes:
            return TEMPORARY_CONGESTION
        intake = Intake(
            self._spool,
            self._limits,
            self._tally,
            calling_ae_title=calling,
            called_ae_title=called,
            peer_address=address,
        )
        intake.verification_only = is_self_test
        with self._lock:
            ordinary = sum(not other.verification_only for other in self._open.values())
            if not is_self_test and ordinary >= self._settings.maximum_associations:
                return LOCAL_LIMIT_EXCEEDED
            self._open[association] = intake
        self._tally.add(associations=int(not is_self_test))
        cast("Socket", association.dul.socket).admitted = True
        services = frozenset() if is_self_test else self._services.classes
        association.acceptor.supported_contexts = contexts_for(request.presentation_context_definition_list, services)
        association.dimse = Dimse(
            association,
            largest_instance_bytes=self._limits.instance_bytes,
            store=intake.store,
            refuse=intake.refuse,
        )
        self._services.bind(association, calling, address)
        return None

    def _has_room(self) -> bool:
        return self._limits.free_bytes() >= self._limits.reserve_bytes

    # --- the end of an association ------------------------------------------------------------------------

    def _on_end(self, association: Association) -> None:
        with self._lock:
            intake = self._open.get(association)
        if intake is None:
            return
        reason = _close_reason(association)
        closed = intake.close(reason)
        with self._lock:
            del self._open[association]
            if not closed:
                self._unclosed.append((intake, reason))
        if intake.verification_only:
            return
        seconds = time.monotonic() - intake.started
        megabytes = intake.bytes / 1e6
        _log.info(
            "association",
            **intake.peer,
            instances=intake.stored,
            failed=intake.failed,
            seconds=round(seconds, 3),
            megabytes=round(megabytes, 2),
            megabytes_per_s=round(megabytes / seconds, 1) if seconds > 0 else 0.0,
            reason=reason.value,
        )

    def _associations(self) -> list[Association]:
        with self._lock:
            return list(self._open)

    def _wait_for_ends(self, seconds: float, *, only_busy: bool = False) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            waiting = self._associations()
            if only_busy:
                waiting = [each for each in waiting if each.dimse.message is not None or each.dimse.msg_queue.qsize()]
            if not waiting:
                return
            time.sleep(0.02)


def _close_reason(association: Association) -> CloseReason:
    if association.is_released:
        return CloseReason.RELEASED
    transport = association.dul.socket
    if isinstance(transport, Socket) and transport.timed_out:
        return CloseReason.TIMEOUT
    return CloseReason.ABORTED
