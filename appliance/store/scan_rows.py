"""Scans as the other rooms see them: frozen rows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from appliance.reasons import Reason, ReasonCode
from appliance.store.lifecycle import ScanState


@dataclass(frozen=True, slots=True)
class ScanRow:
    """One revision of a series.

    Attributes
    ----------
    id
        Database id; opaque, so that it may leave the box.
    study_instance_uid, series_instance_uid, accession_number, modality
        From the headers; the accession number is empty where the header is silent.
    revision
        1, and one more for each time that instances came after the series was complete.
    state, completion_reason
        Where it stands; why it was taken to be complete: ``released+quiet``, ``aborted+quiet``, ``mpps`` or
        ``forced``.
    reason_code, reason_text
        Why it was refused, failed or parked.
    instances
        How many it is made of, earlier revisions included.
    slices
        Slices of the volume, once it was screened.
    attempts
        How often a worker took it.
    lease_owner, lease_deadline
        Who works on it, and until when without a sign of life, Unix time.
    created_at, last_instance_at, completed_at, finished_at
        Unix time.
    """

    id: int
    study_instance_uid: str
    series_instance_uid: str
    revision: int
    accession_number: str
    modality: str
    state: ScanState
    completion_reason: str | None
    reason_code: ReasonCode | None
    reason_text: str | None
    instances: int
    slices: int | None
    attempts: int
    lease_owner: str | None
    lease_deadline: float | None
    created_at: float
    last_instance_at: float
    completed_at: float | None
    finished_at: float | None

    @property
    def reason(self) -> Reason | None:
        """The stored reason as the public object."""
        if self.reason_code is None:
            return None
        return Reason(self.reason_code, self.reason_text or "")

    @property
    def folder(self) -> str:
        """Name of its folder below the results."""
        return f"{self.id}-r{self.revision}"


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """One step of a scan's life."""

    from_state: ScanState | None
    to_state: ScanState
    at: float
    cause: str
    reason_code: ReasonCode | None
    reason_text: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``status`` shows of the queue.

    Attributes
    ----------
    counts
        Scans by state; every state is there.
    oldest_s
        Age in seconds of the longest waiting scan of each state that is not terminal and not empty.
    last_finished_at
        Unix time, ``None`` when none has finished.
    last
        Newest scans first.
    """

    counts: dict[ScanState, int]
    oldest_s: dict[ScanState, float]
    last_finished_at: float | None
    last: tuple[ScanRow, ...]


def scan_row(row: dict[str, Any]) -> ScanRow:
    """Build the value from a row of the ``scans`` table."""
    values = {field.name: row[field.name] for field in fields(ScanRow)}
    values["state"] = ScanState(values["state"])
    values["reason_code"] = ReasonCode(values["reason_code"]) if values["reason_code"] else None
    return ScanRow(**values)
