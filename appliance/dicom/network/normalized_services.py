"""What the DICOM port serves besides Storage and Verification, as far as the configuration offers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from pynetdicom import evt

from appliance.dicom.commitment_spool import CommitmentSpool
from appliance.dicom.network.commitment_service import CommitmentService
from appliance.dicom.network.procedure_step_service import ProcedureStepService
from appliance.dicom.procedure_steps import ProcedureSteps
from appliance.dicom.uids import MODALITY_PERFORMED_PROCEDURE_STEP, STORAGE_COMMITMENT_PUSH_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pynetdicom.association import Association

    from appliance.config import ReceiveSettings

_log = structlog.get_logger()


class NormalizedServices:
    """Modality Performed Procedure Step and Storage Commitment (PS3.4 Annexes F and J) for all associations.

    Parameters
    ----------
    settings
        The ``receive`` section of the configuration.
    spool
        Root of the spool.
    takes_reports
        Whether this box asks others for storage commitment, so that they may report to it here.
    has_room
        Whether more than the disk reserve is free.

    Attributes
    ----------
    classes
        SOP classes that are offered.
    """

    def __init__(
        self, settings: ReceiveSettings, spool: Path, *, takes_reports: bool, has_room: Callable[[], bool]
    ) -> None:
        self._takes_requests = settings.storage_commitment == "honest"
        self._has_room = has_room
        self._steps = ProcedureSteps(spool)
        self._commitments = CommitmentSpool(spool)
        offered = {
            MODALITY_PERFORMED_PROCEDURE_STEP: settings.procedure_steps,
            STORAGE_COMMITMENT_PUSH_MODEL: self._takes_requests or takes_reports,
        }
        self.classes = frozenset(uid for uid, wanted in offered.items() if wanted)
        self._made = False

    def make(self) -> None:
        """Make the folders, if that is still to be done; call it again later where the disk did not let it.

        Until then each request is answered with a failure: a full disk must not keep images from a port that has room
        again in a minute.
        """
        if self._made:
            return
        try:
            self._steps.make()
            self._commitments.make()
        except OSError as error:
            _log.error("folders_of_messages_not_made", error=error.strerror)
        else:
            self._made = True

    def bind(self, association: Association, peer_ae_title: str, peer_address: str) -> None:
        """Serve an admitted association; pynetdicom calls these in the association's own thread, never the reader's."""
        if MODALITY_PERFORMED_PROCEDURE_STEP in self.classes:
            steps = ProcedureStepService(self._steps, peer_ae_title=peer_ae_title, has_room=self._has_room)
            association.bind(evt.EVT_N_CREATE, steps.create)
            association.bind(evt.EVT_N_SET, steps.set)
        if STORAGE_COMMITMENT_PUSH_MODEL in self.classes:
            commitment = CommitmentService(
                self._commitments,
                association,
                peer_ae_title=peer_ae_title,
                peer_address=peer_address,
                takes_requests=self._takes_requests,
                has_room=self._has_room,
            )
            association.bind(evt.EVT_N_ACTION, commitment.action)
            association.bind(evt.EVT_N_EVENT_REPORT, commitment.event_report)
