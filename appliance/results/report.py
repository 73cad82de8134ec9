"""The report: everything one scan's screening produced, in the shape that outsiders read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.anatomy.organ_map import PackUse
    from appliance.scan import Scan
    from appliance.screenings.contract import Outcome

NOTICE = "AI result, not reviewed. Not a certified medical device; not for diagnosis."


@dataclass(frozen=True, slots=True)
class ScreeningResult:
    """One screening's outcome with its name and how long it took."""

    name: str
    outcome: Outcome
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one scan.

    Attributes
    ----------
    appliance_version, config_digest
        What computed it.
    scan
        The scan; voxels are not part of the JSON.
    coverage
        Body regions seen: ``"chest"``, ``"upper_abdomen"``, …
    contrast
        ``"none"``, ``"given"`` or ``"unknown"``, as the contrast guard judged.
    packs
        Networks used.
    screenings
        In the order they were planned; every registered screening appears.
    timings
        Seconds: ``decode_s``, ``organ_map_s``, ``screenings_s``, ``total_s``.
    shared_seconds
        What screenings share and how long each part of it took; it is within ``screenings_s``.
    revision
        Revision of the scan.
    """

    appliance_version: str
    config_digest: str
    scan: Scan
    coverage: tuple[str, ...]
    contrast: str
    packs: tuple[PackUse, ...]
    screenings: tuple[ScreeningResult, ...]
    timings: dict[str, float] = field(default_factory=dict)
    shared_seconds: dict[str, float] = field(default_factory=dict)
    revision: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the object of ``screen --json`` (see ``docs/interfaces.md``)."""
        volume = self.scan.volume
        return {
            "appliance": {
                "version": self.appliance_version,
                "config_digest": self.config_digest,
                "notice": NOTICE,
            },
            "scan": {
                "study_instance_uid": self.scan.study_instance_uid,
                "series_instance_uid": self.scan.series_instance_uid,
                "modality": "CT",
                "slices": volume.shape[0],
                "spacing_mm": [round(value, 4) for value in volume.spacing_mm],
                "slice_thickness_mm": self.scan.acquisition.slice_thickness_mm,
                "kernel": self.scan.acquisition.kernel,
                "kernel_family": self.scan.acquisition.kernel_family.value,
                "kvp": self.scan.acquisition.kvp,
                "coverage": list(self.coverage),
                "contrast": self.contrast,
                "revision": self.revision,
                "notes": list(self.scan.notes),
            },
            "packs": [pack.to_json() for pack in self.packs],
            "screenings": [self._screening(result) for result in self.screenings],
            "timings": {
                **{name: round(seconds, 3) for name, seconds in self.timings.items()},
                "shared_s": {name: round(seconds, 3) for name, seconds in sorted(self.shared_seconds.items())},
            },
        }

    def _screening(self, result: ScreeningResult) -> dict[str, Any]:
        outcome = result.outcome
        frames = self.scan.volume.frames
        return {
            "name": result.name,
            "status": outcome.status.value,
            "urgency": outcome.urgency.value,
            "reason": outcome.reason.to_json() if outcome.reason else None,
            "seconds": round(result.seconds, 3),
            "summary": outcome.summary,
            "caveats": list(outcome.caveats),
            "measurements": [measurement.to_json() for measurement in outcome.measurements],
            "findings": [
                {
                    "code": finding.code,
                    "meaning": finding.meaning,
                    "site": finding.site,
                    "box_mm": [[round(value, 2) for value in corner] for corner in finding.box_mm],
                    "key_slice_sop_instance_uid": frames[finding.key_slice].sop_instance_uid if frames else None,
                }
                for finding in outcome.findings
            ],
        }
