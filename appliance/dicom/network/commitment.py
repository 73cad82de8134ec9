"""Storage Commitment as the side that opens the association: asking a PACS (SCU), and reporting to who asked (SCP)."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pynetdicom import build_role, evt
from pynetdicom.presentation import build_context

from appliance.dicom import uids
from appliance.dicom.network.commitment_data import FAILURES_EXIST, SUCCESSFUL, report_data, request_data
from appliance.dicom.network.commitment_service import served_report
from appliance.dicom.network.link import Failure, Obstacle, application_entity, associate, node_name
from appliance.foreign_text import one_line

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.events import Event

    from appliance.dicom.commitment_spool import CommitmentReport, CommitmentSpool, ReferencedInstance
    from appliance.tls import TlsFiles

_ACTION_TYPE = 1
_STOP_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class CommitmentNode:
    """Whom to call, and as whom.

    Attributes
    ----------
    host, port, called_ae
        Where it listens and the AE title it answers to.
    calling_ae
        Ours.
    tls
        Our TLS files; ``None`` speaks plain TCP.
    timeout_s
        For connecting and for each answer.
    """

    host: str
    port: int
    called_ae: str
    calling_ae: str
    tls: TlsFiles | None = None
    timeout_s: float = 60.0

    @property
    def name(self) -> str:
        """How it is called in sentences."""
        return node_name(self.called_ae, self.host, self.port)


@dataclass(frozen=True, slots=True)
class CommitmentAnswer:
    """What a request or a report was answered with.

    Attributes
    ----------
    status
        Status of the response, or ``None`` when there was none.
    problem
        Why it was not taken, as a sentence; ``None`` when it was.
    permanent
        Whether trying again is pointless before somebody changes something.
    obstacle
        The same for a program.
    """

    status: int | None
    problem: str | None = None
    permanent: bool = False
    obstacle: Obstacle | None = None


def ask(
    transaction_uid: str,
    instances: tuple[ReferencedInstance, ...],
    node: CommitmentNode,
    *,
    spool: CommitmentSpool,
    linger_s: float,
    stop: threading.Event,
) -> CommitmentAnswer:
    """Ask for storage commitment with N-ACTION (PS3.4 J.3.2).

    Parameters
    ----------
    transaction_uid
        Unique to this request.
    instances
        What for.
    node
        The PACS.
    spool
        Where a report is kept that comes on the same association.
    linger_s
        How long the association is kept open for that; other PACS report on one of their own.
    stop
        Once it is set nothing is waited for.

    Returns
    -------
    CommitmentAnswer
        Nothing is raised for what the network or the peer does wrong.
    """
    reported = threading.Event()

    def on_report(event: Event) -> tuple[Dataset | int, None]:
        answer = served_report(event, spool, node.called_ae)
        reported.set()
        return answer

    entity = application_entity(node.calling_ae, node.timeout_s)
    context = build_context(uids.STORAGE_COMMITMENT_PUSH_MODEL)
    link = associate(
        entity,
        [context],
        node.host,
        node.port,
        node.called_ae,
        node.tls,
        stop,
        handlers=[(evt.EVT_N_EVENT_REPORT, on_report)],
    )
    if isinstance(link, Failure):
        return CommitmentAnswer(None, link.problem, link.permanent, link.obstacle)
    with link as association:
        try:
            response, _ = association.send_n_action(
                request_data(transaction_uid, instances),
                _ACTION_TYPE,
                uids.STORAGE_COMMITMENT_PUSH_MODEL,
                uids.STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            )
        except RuntimeError:
            return CommitmentAnswer(None, f"{node.name} broke off the association.", obstacle=Obstacle.NETWORK)
        answer = _judged(response, node)
        deadline = time.monotonic() + linger_s
        while answer.problem is None and association.is_established and time.monotonic() < deadline:
            if reported.wait(_STOP_INTERVAL_S) or stop.is_set():
                break
    return answer


def offered(node: CommitmentNode) -> CommitmentAnswer:
    """Find out whether a PACS offers storage commitment to us, without asking it for any.

    Parameters
    ----------
    node
        The PACS.

    Returns
    -------
    CommitmentAnswer
        Without a problem when it does; nothing is raised for what the network or the peer does wrong.
    """
    entity = application_entity(node.calling_ae, node.timeout_s)
    context = build_context(uids.STORAGE_COMMITMENT_PUSH_MODEL)
    link = associate(entity, [context], node.host, node.port, node.called_ae, node.tls)
    if isinstance(link, Failure):
        return CommitmentAnswer(None, link.problem, link.permanent, link.obstacle)
    with link:
        return CommitmentAnswer(None)


def tell(report: CommitmentReport, node: CommitmentNode, stop: threading.Event) -> CommitmentAnswer:
    """Report with N-EVENT-REPORT on an association of our own, as its provider (PS3.4 J.3.3, PS3.7 D.3.3.4).

    Parameters
    ----------
    report
        What is reported.
    node
        Who asked.
    stop
        Once it is set nothing is waited for.

    Returns
    -------
    CommitmentAnswer
        Nothing is raised for what the network or the peer does wrong.
    """
    entity = application_entity(node.calling_ae, node.timeout_s)
    context = build_context(uids.STORAGE_COMMITMENT_PUSH_MODEL)
    role = build_role(uids.STORAGE_COMMITMENT_PUSH_MODEL, scu_role=False, scp_role=True)
    link = associate(entity, [context], node.host, node.port, node.called_ae, node.tls, stop, negotiation=[role])
    if isinstance(link, Failure):
        return CommitmentAnswer(None, link.problem, link.permanent, link.obstacle)
    with link as association:
        try:
            response, _ = association.send_n_event_report(
                report_data(report),
                FAILURES_EXIST if report.failed else SUCCESSFUL,
                uids.STORAGE_COMMITMENT_PUSH_MODEL,
                uids.STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            )
        except (RuntimeError, ValueError):
            return CommitmentAnswer(None, f"{node.name} broke off the association.", obstacle=Obstacle.NETWORK)
    return _judged(response, node)


def _judged(response: Dataset, node: CommitmentNode) -> CommitmentAnswer:
    status = response.get("Status")
    if status is None:
        return CommitmentAnswer(None, f"{node.name} gave no answer.", obstacle=Obstacle.NETWORK)
    # PS3.7 Annex C: 0x0107 and 0x0116 are warnings.
    if status in {0x0000, 0x0107, 0x0116}:
        return CommitmentAnswer(status)
    comment = one_line(str(response.get("ErrorComment", "")))
    said = f": {comment}" if comment else ""
    return CommitmentAnswer(
        status, f"{node.name} answered 0x{status:04X}{said}.", status not in {0x0110, 0x0213}, Obstacle.STATUS
    )
