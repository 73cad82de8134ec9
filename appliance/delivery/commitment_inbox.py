"""Makes rows of what the DICOM port took for storage commitment, and decides what this box says when it is asked.

This box is no archive: it deletes images when their time has come. So nothing that it is asked for is ever reported as
committed; each instance fails with the reason that is true of it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from appliance.delivery.commitment import CAUSES
from appliance.dicom.commitment_spool import CommitmentReport
from appliance.dicom.network.commitment_data import (
    FAILED_CLASS_CONFLICT,
    FAILED_CLASS_NOT_SUPPORTED,
    FAILED_DUPLICATE_TRANSACTION,
    FAILED_NO_SUCH_INSTANCE,
    FAILED_PROCESSING,
    FAILED_RESOURCES,
)
from appliance.dicom.network.transfer_syntaxes import is_ct_class
from appliance.dicom.spool import Room, read_association
from appliance.store.commitments import CommitmentState
from appliance.store.deliveries import KIND

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.dicom.commitment_spool import CommitmentSpool, ReferencedInstance
    from appliance.store.commitment_requests import CommitmentRequestRow
    from appliance.store.commitments import CommitmentRow
    from appliance.store.database import Store

log = structlog.get_logger()

SAME_ASSOCIATION_S = 10.0
"""How long a report is left to the association that asked, before one is opened for it."""

# So long it is waited for that what was received before a request is indexed; then nothing is known for certain.
_INDEXED_WITHIN_S = 600.0
_LOOK_INTERVAL_S = 1.0


class CommitmentInbox:
    """Reads the port's files; killed at any line, it goes on where it was.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    root
        Root of the spool.
    spool
        The files for storage commitment in it.
    same_association_s
        See :data:`SAME_ASSOCIATION_S`.
    """

    def __init__(
        self, store: Store, root: Path, spool: CommitmentSpool, *, same_association_s: float = SAME_ASSOCIATION_S
    ) -> None:
        self._store = store
        self._root = root
        self._spool = spool
        self._same_association_s = same_association_s
        self._look_at = 0.0

    def round(self) -> None:
        """Take up reports and requests, and decide on what can be decided.

        Raises
        ------
        StoreError
            The database cannot be used.
        OSError
            The spool cannot be used.
        """
        self._take_reports()
        self._take_requests()
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_INTERVAL_S
            for row in self._store.commitment_requests.waiting():
                self._decide(row)

    # --- what a PACS reports ------------------------------------------------------------------------------

    def _take_reports(self) -> None:
        for report in self._spool.reports():
            with self._store.atomic():
                row = self._store.commitments.apply(report)
                if row is not None:
                    self._go_on(row)
            self._spool.remove_report(report.name)
            if row is None:
                log.warning("commitment_report_unexpected")
            else:
                log.info("commitment_report_applied", objects=len(row.objects), failed=len(row.failures))

    def _go_on(self, row: CommitmentRow) -> None:
        entry = self._store.outbox.get(row.outbox_key)
        if entry.parked_for in CAUSES and row.state is CommitmentState.COMMITTED:
            # It reports after all; so it may for the others that were given up for the same cause.
            for parked in self._store.outbox.parked(KIND, entry.destination):
                if parked.parked_for == entry.parked_for:
                    self._store.commitments.stop_counting(parked.key)
                    self._store.deliveries.resume(parked, cause="the destination has reported storage commitment")
        else:
            self._store.outbox.put_off(entry.key, until=time.time(), reason="The PACS has reported.")

    # --- what a scanner asks ------------------------------------------------------------------------------

    def _take_requests(self) -> None:
        for request in self._spool.requests():
            replaced = self._store.commitment_requests.put(request, duplicate_failure=FAILED_DUPLICATE_TRANSACTION)
            if replaced is not None:
                self._spool.forget(replaced)
            row = self._store.commitment_requests.get(request.name)
            if row is not None and all(item.failure is not None for item in row.instances):
                self._offer(row, row.instances)
            self._spool.remove_request(request.name)

    def _decide(self, row: CommitmentRequestRow) -> None:
        held = self._store.commitment_requests.held(item.sop_instance_uid for item in row.instances)
        unknown = FAILED_NO_SUCH_INSTANCE
        if any(item.sop_instance_uid not in held and is_ct_class(item.sop_class_uid) for item in row.instances):
            overdue = not 0.0 <= time.time() - row.received_at < _INDEXED_WITHIN_S
            if not self._indexed():
                if not overdue:
                    return
                unknown = FAILED_PROCESSING
            else:
                held = self._store.commitment_requests.held(item.sop_instance_uid for item in row.instances)
        decided = tuple(replace(item, failure=_failure(item, held, unknown)) for item in row.instances)
        # The row first: killed in between, the report goes out on an association of its own.
        self._store.commitment_requests.decide(row.name, decided, report_at=time.time() + self._same_association_s)
        self._offer(row, decided)

    def _offer(self, row: CommitmentRequestRow, decided: tuple[ReferencedInstance, ...]) -> None:
        self._spool.offer(report_of(row.name, row.transaction_uid, decided))
        log.info("commitment_decided", peer=row.peer_ae_title, instances=len(decided))

    def _indexed(self) -> bool:
        """Whether the database knows every instance that now lies in the spool."""
        done = {item.name for item in self._store.associations.all() if item.indexed}
        try:
            folders = [path for path in (self._root / Room.ASSOCIATIONS).iterdir() if path.name not in done]
        except FileNotFoundError:
            return True
        for folder in folders:
            association = read_association(folder)
            if association is None:
                continue
            if not {path.name for path in association.instances} <= self._store.instances.names(folder.name):
                return False
        return True


def report_of(name: str, transaction_uid: str, decided: tuple[ReferencedInstance, ...]) -> CommitmentReport:
    """Return the report of a request that is decided."""
    return CommitmentReport(
        name=name,
        transaction_uid=transaction_uid,
        committed=tuple(item for item in decided if item.failure is None),
        failed=tuple(item for item in decided if item.failure is not None),
    )


def _failure(item: ReferencedInstance, held: dict[str, str], unknown: int) -> int:
    """Return the reason that is true of one instance (PS3.3 C.14.1.1)."""
    if not is_ct_class(item.sop_class_uid):
        return FAILED_CLASS_NOT_SUPPORTED  # it is only set aside, for a day
    if item.sop_instance_uid not in held:
        return unknown
    if held[item.sop_instance_uid] != item.sop_class_uid:
        return FAILED_CLASS_CONFLICT
    # It is here, and there is no room to keep it for good.
    return FAILED_RESOURCES
