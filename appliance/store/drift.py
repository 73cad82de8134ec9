"""What the daily drift message is made from, and the messages themselves.

Nothing is counted beforehand: the rows of results are read again for the days that a message covers.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.reasons import ReasonCode
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from appliance.store.database import Store

REPORTS_KEPT = 60


@dataclass(frozen=True, slots=True)
class DriftScan:
    """One screened scan, as far as drift asks.

    Attributes
    ----------
    scan_id
        Database id.
    study
        Study Instance UID, to count studies; it goes nowhere.
    calling_ae_title
        Who sent it; ``None`` where that is not known any more.
    manufacturer, model
        As in the header: free text that must not leave the box.
    inputs
        Numbers of the input by name, ``None`` where unknown: ``slice_thickness_mm``, ``kvp``, ``air_hu``, ``noise_hu``,
        ``age_decade``, ``total_s``.
    kernel_family, contrast
        Words of the report.
    screenings
        Name, status and reason code of each screening.
    measurements
        Name, value and site of each number.
    """

    scan_id: int
    study: str
    calling_ae_title: str | None
    manufacturer: str
    model: str
    inputs: dict[str, float | None]
    kernel_family: str
    contrast: str
    screenings: tuple[tuple[str, str, str | None], ...]
    measurements: tuple[tuple[str, float, str | None], ...]


@dataclass(frozen=True, slots=True)
class StoredDrift:
    """A message as it was made.

    Attributes
    ----------
    first_day, last_day
        The local days it covers, ISO 8601.
    message
        The JSON text.
    """

    first_day: str
    last_day: str
    message: str


class DriftReports:
    """The ``drift_reports`` table and the questions that a new row of it asks of the others."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def screened(self, since: float, until: float) -> list[DriftScan]:
        """Return the scans whose results were stored in a span of Unix time, its end excluded."""
        span = (since, until)
        screenings = self._grouped(
            "SELECT s.scan_id, s.name, s.status, s.reason_code FROM screenings s JOIN results r USING (scan_id) "
            "WHERE r.saved_at >= ? AND r.saved_at < ? ORDER BY s.scan_id, s.position",
            span,
        )
        measurements = self._grouped(
            "SELECT m.scan_id, m.name, m.value, m.site FROM measurements m JOIN results r USING (scan_id) "
            "WHERE r.saved_at >= ? AND r.saved_at < ? ORDER BY m.id",
            span,
        )
        rows = self._store.rows(
            """
            SELECT r.scan_id, s.study_instance_uid AS study, json_extract(r.report, '$.scan') AS scan, r.total_s,
                (SELECT a.calling_ae_title FROM instances i JOIN associations a ON a.name = i.association
                 WHERE i.scan_id = r.scan_id AND i.disposition = 'used' ORDER BY i.id LIMIT 1) AS caller
            FROM results r JOIN scans s ON s.id = r.scan_id
            WHERE r.saved_at >= ? AND r.saved_at < ? ORDER BY r.scan_id
            """,
            span,
        )
        return [_scan(row, screenings, measurements) for row in rows]

    def ended(self, since: float, until: float) -> list[tuple[ScanState, ReasonCode | None, int]]:
        """Count the series that came to an end in a span of Unix time, by state and reason."""
        rows = self._store.rows(
            """
            SELECT state, CASE WHEN state IN ('refused', 'failed') THEN reason_code END AS reason, count(*) AS number
            FROM scans WHERE finished_at >= ? AND finished_at < ? GROUP BY 1, 2 ORDER BY 1, 2
            """,
            (since, until),
        )
        return [
            (ScanState(row["state"]), ReasonCode(row["reason"]) if row["reason"] else None, row["number"])
            for row in rows
        ]

    def studies(self, since: float, until: float) -> int:
        """Count the studies of which a series came to an end or a result was stored in a span of Unix time."""
        rows = self._store.rows(
            """
            SELECT count(DISTINCT s.study_instance_uid) AS number FROM scans s LEFT JOIN results r ON r.scan_id = s.id
            WHERE (s.finished_at >= ? AND s.finished_at < ?) OR (r.saved_at >= ? AND r.saved_at < ?)
            """,
            (since, until, since, until),
        )
        return int(rows[0]["number"])

    def first_at(self) -> float | None:
        """Return when the first series came to an end, Unix time."""
        at: float | None = self._store.rows("SELECT min(finished_at) AS at FROM scans")[0]["at"]
        return at

    def latest(self) -> StoredDrift | None:
        """Return the newest message."""
        rows = self._store.rows("SELECT * FROM drift_reports ORDER BY last_day DESC LIMIT 1")
        return StoredDrift(rows[0]["first_day"], rows[0]["last_day"], rows[0]["message"]) if rows else None

    def save(self, made: StoredDrift, *, at: float | None = None) -> None:
        """Keep a message, and of the older ones the newest :data:`REPORTS_KEPT`; repeating a day changes nothing."""
        with self._store.atomic():
            self._store.execute(
                """
                INSERT INTO drift_reports (first_day, last_day, made_at, message) VALUES (?, ?, ?, ?)
                ON CONFLICT (last_day) DO NOTHING
                """,
                (made.first_day, made.last_day, time.time() if at is None else at, made.message),
            )
            self._store.execute(
                """
                DELETE FROM drift_reports
                WHERE id NOT IN (SELECT id FROM drift_reports ORDER BY last_day DESC LIMIT ?)
                """,
                (REPORTS_KEPT,),
            )

    def _grouped(self, sql: str, span: tuple[float, float]) -> dict[int, list[tuple[Any, ...]]]:
        grouped: dict[int, list[tuple[Any, ...]]] = {}
        for row in self._store.rows(sql, span):
            scan_id, *rest = row.values()
            grouped.setdefault(scan_id, []).append(tuple(rest))
        return grouped


def _scan(
    row: dict[str, Any], screenings: dict[int, list[tuple[Any, ...]]], measurements: dict[int, list[tuple[Any, ...]]]
) -> DriftScan:
    told = json.loads(row["scan"] or "{}")
    numbers = ("slice_thickness_mm", "kvp", "air_hu", "noise_hu", "age_decade")
    return DriftScan(
        scan_id=row["scan_id"],
        study=row["study"],
        calling_ae_title=row["caller"],
        manufacturer=str(told.get("manufacturer") or ""),
        model=str(told.get("model") or ""),
        inputs={name: _number(told.get(name)) for name in numbers} | {"total_s": _number(row["total_s"])},
        kernel_family=str(told.get("kernel_family") or ""),
        contrast=str(told.get("contrast") or ""),
        screenings=tuple(screenings.get(row["scan_id"], ())),
        measurements=tuple(measurements.get(row["scan_id"], ())),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
