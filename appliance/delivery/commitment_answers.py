"""Reports to those who asked this box for storage commitment, on an association of its own where theirs is closed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from appliance.delivery.commitment_inbox import report_of
from appliance.dicom.commitment_spool import Handover
from appliance.dicom.network.access import AllowList
from appliance.dicom.network.commitment import CommitmentNode, tell
from appliance.errors import ConfigurationError
from appliance.store.commitment_requests import RequestState

if TYPE_CHECKING:
    import threading

    from appliance.config import Peer, ReceiveSettings
    from appliance.delivery.backoff import Backoff
    from appliance.dicom.commitment_spool import CommitmentSpool
    from appliance.dicom.network.commitment import CommitmentAnswer
    from appliance.store.commitment_requests import CommitmentRequestRow
    from appliance.store.database import Store

log = structlog.get_logger()

GIVE_UP_AFTER_S = 86400.0
"""A report that was not taken for so long is not sent any more; its scanner keeps the images as not archived."""

_TIMEOUT_S = 20.0
_BEING_SENT_WAIT_S = 5.0


class CommitmentAnswers:
    """Sends what is due.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    spool
        Where reports are offered to the port.
    receive
        The ``receive`` section of the configuration: who may ask, their ports, and who this box is.
    backoff
        Waiting times between tries.
    stop
        Once it is set nothing more is begun.
    """

    def __init__(
        self, store: Store, spool: CommitmentSpool, receive: ReceiveSettings, backoff: Backoff, stop: threading.Event
    ) -> None:
        self._store = store
        self._spool = spool
        self._receive = receive
        self._backoff = backoff
        self._stop = stop

    def round(self) -> None:
        """Report what is due.

        It may be interrupted at any line and called again: at most the report in hand is sent a second time, with the
        same content.

        Raises
        ------
        StoreError
            The database cannot be used.
        OSError
            The spool cannot be used.
        """
        longest_s = self._backoff.longest_s + GIVE_UP_AFTER_S
        away: set[str] = set()
        for row in self._store.commitment_requests.due(time.time(), longest_wait_s=longest_s):
            if self._stop.is_set():
                return
            if row.peer_ae_title in away:
                continue
            if not self._report(row):
                away.add(row.peer_ae_title)

    def _report(self, row: CommitmentRequestRow) -> bool:
        """Report one request; return ``False`` when its peer cannot be had."""
        handover = self._spool.withdraw(row.name)
        if handover is Handover.BEING_SENT:
            self._store.commitment_requests.put_off(row.name, retry_at=time.time() + _BEING_SENT_WAIT_S)
            return True
        if handover is Handover.SENT:
            self._finish(row, RequestState.REPORTED, None)
            return True
        port = port_of(self._receive.peers, row.peer_ae_title, row.peer_address)
        if port is None:
            self._finish(row, RequestState.GIVEN_UP, _no_port(row.peer_ae_title, self._receive.ae_title))
            return True
        node = CommitmentNode(
            row.peer_address, port, row.peer_ae_title, self._receive.ae_title, self._receive.tls, _TIMEOUT_S
        )
        try:
            answer = tell(report_of(row.name, row.transaction_uid, row.instances), node, self._stop)
        except ConfigurationError as error:
            self._again(row, str(error))
            return False
        return self._note(row, answer)

    def _note(self, row: CommitmentRequestRow, answer: CommitmentAnswer) -> bool:
        if answer.problem is None:
            self._finish(row, RequestState.REPORTED, None)
            return True
        if self._stop.is_set():
            return True
        if answer.permanent:
            sentence = f"{answer.problem} The report of storage commitment was refused for good."
            self._finish(row, RequestState.GIVEN_UP, sentence)
            return True
        self._again(row, answer.problem)
        return answer.status is not None

    def _again(self, row: CommitmentRequestRow, problem: str) -> None:
        now = time.time()
        if now - row.received_at > GIVE_UP_AFTER_S:
            sentence = f"{problem} The report of storage commitment could not be given for a day; it is given up."
            self._finish(row, RequestState.GIVEN_UP, sentence)
            return
        wait_s = self._backoff.wait_s(1 + row.attempts)
        self._store.commitment_requests.put_off(row.name, retry_at=now + wait_s, reason=problem)
        log.warning("commitment_report_put_off", peer=row.peer_ae_title, wait_s=round(wait_s))

    def _finish(self, row: CommitmentRequestRow, state: RequestState, reason: str | None) -> None:
        self._store.commitment_requests.finish(row.name, state, reason=reason)
        self._spool.forget(row.name)
        log.info("commitment_request_done", peer=row.peer_ae_title, state=state.value)


def port_of(peers: tuple[Peer, ...], ae_title: str, address: str) -> int | None:
    """Return the port that a peer listens on, by its AE title and address; ``None`` where none is configured."""
    for peer in peers:
        if peer.port is not None and AllowList.from_peers([peer]).admits(ae_title, address):
            return peer.port
    return None


def _no_port(peer: str, own: str) -> str:
    return (
        f"{peer} asks this box for storage commitment and closes the association before the answer: clear the setting "
        f"for storage commitment of {own} on {peer}, or set port of that entry of receive.peers."
    )
