"""Storage Commitment on the DICOM port (PS3.4 Annex J): requests to this box, and reports of what it asked others.

The port keeps a request or a report durably before it answers, and decides nothing: what this box can say of an
instance stands in the database, which the port must not wait for. While the association that asked is still open, its
report is sent on it as soon as the deliver service has made it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, cast

import structlog
from pynetdicom.dimse_primitives import N_EVENT_REPORT

from appliance.dicom import uids
from appliance.dicom.commitment_spool import CommitmentReport, CommitmentRequest, ReferencedInstance, new_name
from appliance.dicom.network.commitment_data import FAILURES_EXIST, SUCCESSFUL, encoded_report
from appliance.dicom.network.normalized_messages import (
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_ACTION,
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_SOP_INSTANCE,
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    RefusedError,
    decoded,
    items_of,
    uid_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset
    from pynetdicom.association import Association
    from pynetdicom.dimse_primitives import N_ACTION
    from pynetdicom.events import Event

    from appliance.dicom.commitment_spool import CommitmentSpool
    from appliance.dicom.network.storage_service import Dimse

_log = structlog.get_logger()

_REQUEST_STORAGE_COMMITMENT: Final = 1  # Action Type ID, PS3.4 Table J.3-1
_LOOK_INTERVAL_S = 0.2
_ANSWER_WITHIN_S = 30.0


class CommitmentService:
    """Serves the requests of one association.

    Parameters
    ----------
    spool
        Where requests and reports are kept.
    association
        The association.
    peer_ae_title, peer_address
        Its other side.
    takes_requests
        Whether this box answers requests at all.
    has_room
        Whether more than the disk reserve is free.
    """

    def __init__(
        self,
        spool: CommitmentSpool,
        association: Association,
        *,
        peer_ae_title: str,
        peer_address: str,
        takes_requests: bool,
        has_room: Callable[[], bool],
    ) -> None:
        self._spool = spool
        self._association = association
        self._peer = peer_ae_title
        self._address = peer_address
        self._takes_requests = takes_requests
        self._has_room = has_room
        self._lock = threading.Lock()
        self._asked: list[tuple[str, int]] = []
        self._watching = False

    def action(self, event: Event) -> tuple[Dataset | int, None]:
        """Serve an N-ACTION request: this box is asked for storage commitment."""
        return _served(self._action, event, self._peer)

    def event_report(self, event: Event) -> tuple[Dataset | int, None]:
        """Serve an N-EVENT-REPORT request: this box is told of what it asked for."""
        return _served(lambda request: keep_report(request, self._spool, self._peer), event, self._peer)

    def _action(self, event: Event) -> None:
        if not self._takes_requests:
            raise RefusedError(NOT_AUTHORIZED, "This box is no archive and takes no storage commitment")
        request = cast("N_ACTION", event.request)
        if request.RequestedSOPInstanceUID != uids.STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE:
            raise RefusedError(NO_SUCH_SOP_INSTANCE, "The SOP instance is not the well-known one")
        if request.ActionTypeID != _REQUEST_STORAGE_COMMITMENT:
            raise RefusedError(NO_SUCH_ACTION, "The action type is not 1, Request Storage Commitment")
        dataset = decoded(request.ActionInformation, event.context.transfer_syntax)
        transaction = _transaction(dataset)
        instances = _references(dataset, "ReferencedSOPSequence")
        if not instances:
            raise RefusedError(INVALID_ARGUMENT_VALUE, "The Referenced SOP Sequence names no instance")
        if not self._has_room():
            raise RefusedError(RESOURCE_LIMITATION, "The receiver's disk is nearly full; ask again later")
        kept = CommitmentRequest(new_name(), self._peer, self._address, transaction, instances, time.time())
        self._spool.put_request(kept)
        _log.info("commitment_asked", peer=self._peer, instances=len(instances))
        self._watch(kept.name, event.context.context_id)

    # --- the report on the same association ---------------------------------------------------------------

    def _watch(self, name: str, context_id: int) -> None:
        with self._lock:
            self._asked.append((name, context_id))
            if self._watching:
                return
            self._watching = True
        threading.Thread(target=self._report_here, name="commitment-report", daemon=True).start()

    def _report_here(self) -> None:
        while self._association.is_established:
            with self._lock:
                waiting = list(self._asked)
                if not waiting:
                    self._watching = False
                    return
            for name, context_id in waiting:
                if self._association.is_established and self._sent(name, context_id):
                    with self._lock:
                        self._asked.remove((name, context_id))
            time.sleep(_LOOK_INTERVAL_S)

    def _sent(self, name: str, context_id: int) -> bool:
        """Send a report that is ready; return whether there is nothing left to do for it here."""
        try:
            report = self._spool.take(name)
            if report is None:
                return False
            dimse: Dimse = self._association.dimse  # type: ignore[assignment]  # put there by the receiver
            request = N_EVENT_REPORT()
            request.MessageID = dimse.new_message_id()
            request.AffectedSOPClassUID = uids.STORAGE_COMMITMENT_PUSH_MODEL
            request.AffectedSOPInstanceUID = uids.STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
            request.EventTypeID = FAILURES_EXIST if report.failed else SUCCESSFUL
            syntax = next(
                each.transfer_syntax[0] for each in self._association.accepted_contexts if each.context_id == context_id
            )
            request.EventInformation = encoded_report(report, syntax)
            status = dimse.report(request, context_id, within_s=_ANSWER_WITHIN_S)
            self._spool.give_back(name, sent=status == SUCCESS)
        except OSError as error:
            _log.error("commitment_report_not_sent", peer=self._peer, error=error.strerror)
            return True
        _log.info("commitment_reported", peer=self._peer, on="same association", answered=status == SUCCESS)
        return True


def keep_report(event: Event, spool: CommitmentSpool, peer: str) -> None:
    """Keep a report that was received, durably.

    Raises
    ------
    RefusedError
        It is no report of storage commitment.
    OSError
        The disk cannot be written.
    """
    request = cast("N_EVENT_REPORT", event.request)
    if request.EventTypeID not in {SUCCESSFUL, FAILURES_EXIST}:
        raise RefusedError(NO_SUCH_EVENT_TYPE, "The event type is neither 1 nor 2")
    dataset = decoded(request.EventInformation, event.context.transfer_syntax)
    report = CommitmentReport(
        name=new_name(),
        transaction_uid=_transaction(dataset),
        committed=_references(dataset, "ReferencedSOPSequence"),
        failed=_references(dataset, "FailedSOPSequence", failed=True),
    )
    spool.put_report(report)
    _log.info("commitment_report", peer=peer, committed=len(report.committed), failed=len(report.failed))


def served_report(event: Event, spool: CommitmentSpool, peer: str) -> tuple[Dataset | int, None]:
    """Serve an N-EVENT-REPORT request on an association that this box opened."""
    return _served(lambda request: keep_report(request, spool, peer), event, peer)


def _served(serve: Callable[[Event], None], event: Event, peer: str) -> tuple[Dataset | int, None]:
    try:
        serve(event)
    except RefusedError as refusal:
        _log.warning("commitment_refused", peer=peer, status=f"0x{refusal.status:04X}", comment=refusal.comment)
        return refusal.answer(), None
    except OSError as error:
        _log.error("commitment_not_kept", peer=peer, error=error.strerror)
        return RefusedError(PROCESSING_FAILURE, "The disk of this box cannot be written").answer(), None
    return SUCCESS, None


def _transaction(dataset: Dataset) -> str:
    transaction = uid_of(dataset, "TransactionUID")
    if transaction is None:
        raise RefusedError(INVALID_ARGUMENT_VALUE, "There is no valid Transaction UID (0008,1195)")
    return transaction


def _references(dataset: Dataset, keyword: str, *, failed: bool = False) -> tuple[ReferencedInstance, ...]:
    found: dict[str, ReferencedInstance] = {}
    for item in items_of(dataset, keyword):
        sop_class, instance = uid_of(item, "ReferencedSOPClassUID"), uid_of(item, "ReferencedSOPInstanceUID")
        if sop_class is None or instance is None:
            raise RefusedError(INVALID_ARGUMENT_VALUE, "A referenced instance has no valid UIDs")
        reason = item.get("FailureReason") if failed else None
        # An instance that failed has failed, also where nobody says why.
        found[instance] = ReferencedInstance(
            sop_class, instance, (reason if isinstance(reason, int) else PROCESSING_FAILURE) if failed else None
        )
    return tuple(found.values())
