"""Procedure steps that scanners reported, and what they say of a series that is being received."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.dicom.procedure_steps import StepStatus

if TYPE_CHECKING:
    from appliance.dicom.procedure_steps import ProcedureStep
    from appliance.store.database import Store


@dataclass(frozen=True, slots=True)
class SeriesSignal:
    """What the procedure steps that name a series say of it.

    Attributes
    ----------
    statuses
        Of the steps; empty where none names it.
    named, missing
        CT images of the series that completed steps name, and how many of these are not here.
    """

    statuses: frozenset[StepStatus]
    named: int
    missing: int

    @property
    def tells_when_complete(self) -> bool:
        """Whether every step that names the series is completed and they say which images it has."""
        return self.statuses == {StepStatus.COMPLETED} and self.named > 0


class ProcedureSteps:
    """The ``procedure_steps`` and ``performed_series`` tables."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, step: ProcedureStep) -> None:
        """Store a step as it was reported last; repeating it changes nothing."""
        with self._store.atomic():
            self._store.execute(
                """
                INSERT INTO procedure_steps VALUES (?, ?, ?, ?) ON CONFLICT (sop_instance_uid) DO UPDATE
                SET status = excluded.status, changed_at = excluded.changed_at
                """,
                (step.sop_instance_uid, step.peer_ae_title, step.status.value, step.changed_at),
            )
            self._store.execute("DELETE FROM performed_series WHERE procedure_step = ?", (step.sop_instance_uid,))
            for series in step.series:
                self._store.execute(
                    "INSERT INTO performed_series VALUES (?, ?, ?)",
                    (step.sop_instance_uid, series.series_instance_uid, json.dumps(series.images)),
                )

    def signal(self, series_instance_uid: str) -> SeriesSignal:
        """Return what the steps say of a series."""
        rows = self._store.rows(
            """
            SELECT step.status, json_array_length(series.images) AS named,
                (SELECT count(*) FROM json_each(series.images) AS image WHERE NOT EXISTS (
                    SELECT 1 FROM instances WHERE sop_instance_uid = image.value AND disposition = 'used')) AS missing
            FROM performed_series series JOIN procedure_steps step ON step.sop_instance_uid = series.procedure_step
            WHERE series.series_instance_uid = ?
            """,
            (series_instance_uid,),
        )
        completed = [row for row in rows if row["status"] == StepStatus.COMPLETED]
        return SeriesSignal(
            statuses=frozenset(StepStatus(row["status"]) for row in rows),
            named=sum(row["named"] for row in completed),
            missing=sum(row["missing"] for row in completed),
        )

    def counts(self) -> dict[StepStatus, int]:
        """Return how many steps have each status."""
        rows = self._store.rows("SELECT status, count(*) AS number FROM procedure_steps GROUP BY status")
        return {StepStatus(row["status"]): row["number"] for row in rows}

    def forget(self, *, changed_before: float) -> int:
        """Delete the steps that were last changed before a time, Unix seconds; return how many."""
        with self._store.atomic():
            return self._store.execute("DELETE FROM procedure_steps WHERE changed_at < ?", (changed_before,))
