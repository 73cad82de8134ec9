"""What was found: the report as it was made, and the same in rows that can be asked."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.errors import StoreError
from appliance.results.missing import MissingKind
from appliance.store.alert_rules import URGENCIES
from appliance.store.events import EventKind
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from appliance.store.alert_rules import AlertRules
    from appliance.store.database import Store


class ReportInvalidError(StoreError):
    """A report lacks something that must be stored."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """The result of one scan.

    Attributes
    ----------
    scan_id
        Database id.
    report
        The object of ``results --json``.
    folder
        Name of its folder below the results.
    key_images
        Files in that folder.
    saved_at
        Unix time.
    """

    scan_id: int
    report: dict[str, Any]
    folder: str
    key_images: tuple[str, ...]
    saved_at: float


class Results:
    """The ``results``, ``screenings``, ``measurements``, ``findings`` and ``key_images`` tables."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(
        self,
        scan_id: int,
        report: Mapping[str, Any],
        *,
        folder: str,
        key_images: Sequence[str] = (),
        missing: Sequence[MissingKind] = (),
        alerts: AlertRules | None = None,
        at: float | None = None,
    ) -> bool:
        """Store a report, raise its alerts and make its scan ``screened``, all in one transaction.

        Repeating it changes nothing.

        Parameters
        ----------
        scan_id
            A scan that is being screened.
        report
            What :meth:`appliance.results.report.Report.to_json` gives.
        folder
            Name of the folder below the results that holds the report and its files.
        key_images
            Files in that folder.
        missing
            Kinds of DICOM objects that could not all be made; the fleet is told that there are some.
        alerts
            Which findings raise an alert; ``None`` raises none.
        at
            Unix time; now by default.

        Returns
        -------
        bool
            Whether it was stored now; ``False`` when it already was.

        Raises
        ------
        ReportInvalidError
            The report lacks something.
        StoreError
            The scan is not one that can be screened.
        """
        now = time.time() if at is None else at
        with self._store.atomic():
            if self._store.rows("SELECT 1 FROM results WHERE scan_id = ?", (scan_id,)):
                return False
            try:
                self._insert(scan_id, report, folder, key_images, now)
                self._insert_missing(scan_id, missing, now)
                alarming = [] if alerts is None else _alarming(report, alerts)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ReportInvalidError(
                    f"The report of scan {scan_id} cannot be stored: {type(error).__name__} {error}."
                ) from error
            self._store.scans.advance(scan_id, ScanState.SCREENED, cause="report stored", at=now)
            if alerts is not None:
                self._store.alerts.raise_for(scan_id, alarming, channels=alerts.channels, at=now)
        return True

    def get(self, scan_id: int) -> ResultRow | None:
        """Return the result of a scan, ``None`` when it has none."""
        rows = self._store.rows("SELECT * FROM results WHERE scan_id = ?", (scan_id,))
        if not rows:
            return None
        images = self._store.rows("SELECT file FROM key_images WHERE scan_id = ? ORDER BY file", (scan_id,))
        return ResultRow(
            scan_id=scan_id,
            report=json.loads(rows[0]["report"]),
            folder=rows[0]["folder"],
            key_images=tuple(row["file"] for row in images),
            saved_at=rows[0]["saved_at"],
        )

    def missing(self, scan_id: int) -> list[MissingKind]:
        """Return the kinds of DICOM objects of a scan that could not all be made."""
        rows = self._store.rows("SELECT * FROM missing_objects WHERE scan_id = ? ORDER BY kind", (scan_id,))
        return [MissingKind(row["kind"], row["error"], row["place"]) for row in rows]

    def _insert_missing(self, scan_id: int, missing: Sequence[MissingKind], now: float) -> None:
        for item in missing:
            row = {"scan_id": scan_id, "kind": item.kind, "error": item.error, "place": item.where}
            self._store.insert("missing_objects", row)
        if missing:
            self._store.events.record(
                EventKind.OBJECTS_MISSING, scan_id=scan_id, numbers={"kinds": len(missing)}, at=now
            )

    def _insert(
        self, scan_id: int, report: Mapping[str, Any], folder: str, key_images: Sequence[str], now: float
    ) -> None:
        insert = self._store.insert
        insert(
            "results",
            {
                "scan_id": scan_id,
                "report": json.dumps(dict(report), sort_keys=False, ensure_ascii=False, allow_nan=False),
                "folder": folder,
                "appliance_version": report["appliance"]["version"],
                "config_digest": report["appliance"]["config_digest"],
                "total_s": report["timings"].get("total_s"),
                "saved_at": now,
            },
        )
        self._store.execute("UPDATE scans SET slices = ? WHERE id = ?", (report["scan"]["slices"], scan_id))
        for position, screening in enumerate(report["screenings"]):
            self._insert_screening(scan_id, position, screening)
        for file in key_images:
            insert("key_images", {"scan_id": scan_id, "file": file})

    def _insert_screening(self, scan_id: int, position: int, screening: Mapping[str, Any]) -> None:
        reason = screening.get("reason") or {}
        name = screening["name"]
        self._store.insert(
            "screenings",
            {
                "scan_id": scan_id,
                "position": position,
                "name": name,
                "status": screening["status"],
                "urgency": screening.get("urgency") or "routine",
                "reason_code": reason.get("code"),
                "reason_text": reason.get("text"),
                "seconds": screening.get("seconds") or 0.0,
                "summary": screening.get("summary") or "",
            },
        )
        for measurement in screening.get("measurements") or ():
            row = {key: measurement.get(key) for key in ("name", "value", "unit", "site", "code")}
            self._store.insert("measurements", {"scan_id": scan_id, "screening": name, **row})
        for finding in screening.get("findings") or ():
            self._store.insert(
                "findings",
                {
                    "scan_id": scan_id,
                    "screening": name,
                    "code": finding["code"],
                    "meaning": finding.get("meaning") or "",
                    "site": finding["site"],
                    "box_mm": json.dumps(finding["box_mm"]),
                    "key_slice_sop_instance_uid": finding.get("key_slice_sop_instance_uid"),
                },
            )


def _alarming(report: Mapping[str, Any], rules: AlertRules) -> list[tuple[str, str]]:
    """Return the screenings whose finding raises an alert, each with its urgency."""
    found = [
        (screening["name"], screening.get("urgency") or URGENCIES[0])
        for screening in report["screenings"]
        if screening["status"] == "finding"
    ]
    return [(name, urgency) for name, urgency in found if rules.raises(name, urgency)]
