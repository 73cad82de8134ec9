"""Modality Performed Procedure Step as SCP (PS3.4 Annex F): a scanner says what it has begun, made, or given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, cast

import structlog

from appliance.dicom.network.normalized_messages import (
    DUPLICATE_SOP_INSTANCE,
    INVALID_ATTRIBUTE_VALUE,
    INVALID_SOP_INSTANCE,
    MAY_NO_LONGER_BE_UPDATED,
    MISSING_ATTRIBUTE,
    NO_SUCH_SOP_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    RefusedError,
    decoded,
    is_uid,
    items_of,
    uid_of,
)
from appliance.dicom.network.transfer_syntaxes import is_ct_class
from appliance.dicom.procedure_steps import (
    PerformedSeries,
    ProcedureStep,
    StepExistsError,
    StepFinalError,
    StepStatus,
    StepUnknownError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset
    from pynetdicom.dimse_primitives import N_CREATE, N_SET
    from pynetdicom.events import Event

    from appliance.dicom.procedure_steps import ProcedureSteps

_log = structlog.get_logger()

_STATUS: Final = "PerformedProcedureStepStatus"
_SERIES: Final = "PerformedSeriesSequence"


class ProcedureStepService:
    """Serves the requests of one association; a change is durable before it is acknowledged.

    Parameters
    ----------
    steps
        Where steps are kept.
    peer_ae_title
        Who reports.
    has_room
        Whether more than the disk reserve is free.
    """

    def __init__(self, steps: ProcedureSteps, *, peer_ae_title: str, has_room: Callable[[], bool]) -> None:
        self._steps = steps
        self._peer = peer_ae_title
        self._has_room = has_room

    def create(self, event: Event) -> tuple[Dataset | int, None]:
        """Serve an N-CREATE request."""
        return self._serve(self._create, event)

    def set(self, event: Event) -> tuple[Dataset | int, None]:
        """Serve an N-SET request."""
        return self._serve(self._set, event)

    def _serve(self, serve: Callable[[Event], StepStatus], event: Event) -> tuple[Dataset | int, None]:
        try:
            status = serve(event)
        except RefusedError as refusal:
            _log.warning(
                "procedure_step_refused", peer=self._peer, status=f"0x{refusal.status:04X}", comment=refusal.comment
            )
            return refusal.answer(), None
        except OSError as error:
            _log.error("procedure_step_not_kept", peer=self._peer, error=error.strerror)
            comment = "The disk of this box cannot be written; send again later"
            return RefusedError(PROCESSING_FAILURE, comment).answer(), None
        _log.info("procedure_step", peer=self._peer, status=status.value)
        return SUCCESS, None

    def _create(self, event: Event) -> StepStatus:
        request = cast("N_CREATE", event.request)
        uid = request.AffectedSOPInstanceUID
        if uid is None or not is_uid(str(uid)):
            raise RefusedError(INVALID_SOP_INSTANCE, "The request names no SOP instance by a valid UID")
        dataset = decoded(request.AttributeList, event.context.transfer_syntax)
        if self._status(dataset) is not StepStatus.IN_PROGRESS:
            raise RefusedError(_wrong_status(dataset), "A step is created with the status IN PROGRESS")
        self._require_room()
        step = ProcedureStep(str(uid), self._peer, StepStatus.IN_PROGRESS, _series(dataset) or (), time.time())
        try:
            self._steps.create(step)
        except StepExistsError:
            raise RefusedError(DUPLICATE_SOP_INSTANCE, "There is a procedure step with this UID") from None
        return step.status

    def _set(self, event: Event) -> StepStatus:
        request = cast("N_SET", event.request)
        uid = str(request.RequestedSOPInstanceUID or "")
        dataset = decoded(request.ModificationList, event.context.transfer_syntax)
        status = self._status(dataset) if _STATUS in dataset else None
        self._require_room()
        try:
            step = self._steps.change(uid, status=status, series=_series(dataset), changed_at=time.time())
        except StepUnknownError:
            raise RefusedError(NO_SUCH_SOP_INSTANCE, "No procedure step with this UID was created here") from None
        except StepFinalError:
            comment = "Performed Procedure Step Object may no longer be updated"
            raise RefusedError(PROCESSING_FAILURE, comment, MAY_NO_LONGER_BE_UPDATED) from None
        return step.status

    def _require_room(self) -> None:
        if not self._has_room():
            raise RefusedError(RESOURCE_LIMITATION, "The receiver's disk is nearly full; send again later")

    @staticmethod
    def _status(dataset: Dataset) -> StepStatus:
        try:
            return StepStatus(str(dataset.get(_STATUS) or "").strip())
        except ValueError:
            raise RefusedError(
                _wrong_status(dataset), "The status is none of IN PROGRESS, COMPLETED, DISCONTINUED"
            ) from None


def _wrong_status(dataset: Dataset) -> int:
    return INVALID_ATTRIBUTE_VALUE if dataset.get(_STATUS) else MISSING_ATTRIBUTE


def _series(dataset: Dataset) -> tuple[PerformedSeries, ...] | None:
    """Return the series that a message names; ``None`` when it does not speak of series.

    An item that names no series, and an image that names none, are left out: they can complete nothing.
    """
    if _SERIES not in dataset:
        return None
    found: dict[str, dict[str, None]] = {}
    for item in items_of(dataset, _SERIES):
        series_uid = uid_of(item, "SeriesInstanceUID")
        if series_uid is None:
            continue
        images = found.setdefault(series_uid, {})
        for image in items_of(item, "ReferencedImageSequence"):
            sop_class, instance = uid_of(image, "ReferencedSOPClassUID"), uid_of(image, "ReferencedSOPInstanceUID")
            if instance is not None and sop_class is not None and is_ct_class(sop_class):
                images[instance] = None
    return tuple(PerformedSeries(uid, tuple(images)) for uid, images in found.items())
