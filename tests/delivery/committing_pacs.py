"""A PACS that takes storage commitment and reports as it is told to, right or wrong."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import build_context

from appliance.dicom.network.link import Link, application_entity, associate
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as PUSH
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE as WELL_KNOWN
from appliance.dicom.uids import VERIFICATION
from tests.delivery.conftest import BOX, CLASSES, PACS

if TYPE_CHECKING:
    from collections.abc import Callable


class CommittingPacs:
    """Listens until closed.

    Parameters
    ----------
    box_port
        Where the box takes reports.

    Attributes
    ----------
    manner
        ``same`` reports on the association that asked, ``new`` on one of its own; ``never``; ``twice``;
        ``wrong_transaction``; ``refuse``; ``drop`` ends the association instead of answering.
    lose
        How many further requests are reported as failed, every object of them.
    """

    def __init__(self, box_port: int, *, offers: bool = True) -> None:
        self.box_port = box_port
        self.manner = "new"
        self.lose = 0
        self.requests: list[Dataset] = []
        self.stored: list[str] = []
        self.answers: list[int | None] = []
        self._threads: list[threading.Thread] = []
        ae = AE(ae_title=PACS)
        ae.add_supported_context(VERIFICATION)
        for uid in CLASSES.values():
            ae.add_supported_context(uid, ALL_TRANSFER_SYNTAXES)
        if offers:
            ae.add_supported_context(PUSH)
        handlers: list[tuple[Any, Callable[[evt.Event], Any]]] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._action),
        ]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def close(self) -> None:
        for thread in self._threads:
            thread.join(30)
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _action(self, event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        self.requests.append(request)
        if self.manner == "refuse":
            return 0x0110, None
        if self.manner == "drop":
            event.assoc.abort()
            return 0x0000, None
        if self.manner != "never":
            association = event.assoc if self.manner == "same" else None
            thread = threading.Thread(target=self._report, args=(request, association))
            self._threads.append(thread)
            thread.start()
        return 0x0000, None

    def _report(self, request: Dataset, association: Any) -> None:
        report, event_type = Dataset(), 1
        wrong = self.manner == "wrong_transaction"
        report.TransactionUID = generate_uid() if wrong else request.TransactionUID
        if self.lose:
            self.lose -= 1
            event_type = 2
            for item in request.ReferencedSOPSequence:
                item.FailureReason = 0x0112
            report.FailedSOPSequence = request.ReferencedSOPSequence
        else:
            report.ReferencedSOPSequence = request.ReferencedSOPSequence
        if association is not None:
            time.sleep(0.2)  # after the answer to the request
            self._send(association, report, event_type)
            return
        roles = [build_role(PUSH, scu_role=False, scp_role=True)]
        for _ in range(2 if self.manner == "twice" else 1):
            entity = application_entity(PACS, 30.0)
            link = associate(entity, [build_context(PUSH)], "127.0.0.1", self.box_port, BOX, None, negotiation=roles)
            if not isinstance(link, Link):
                self.answers.append(None)
                continue
            with link as own:
                self._send(own, report, event_type)

    def _send(self, association: Any, report: Dataset, event_type: int) -> None:
        answer, _ = association.send_n_event_report(report, event_type, PUSH, WELL_KNOWN)
        self.answers.append(answer.get("Status"))
