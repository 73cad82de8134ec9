"""The report: everything one scan's screening produced, in the shape that outsiders read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from appliance.reasons import Reason, ReasonCode
from appliance.screenings.contract import Finding, Measurement, Outcome, Status, Urgency

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.anatomy.organ_map import PackUse
    from appliance.scan import Scan

NOTICE = "AI result, not reviewed. Not a certified medical device; not for diagnosis."


@dataclass(frozen=True, slots=True)
class ScreeningResult:
    """One screening's outcome with its name and how long it took."""

    name: str
    outcome: Outcome
    seconds: float

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> Self:
        """Return what people read of an entry of ``screenings`` in the public JSON: all but evidence and findings.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is not such an entry.
        """
        from appliance.reasons import Reason, ReasonCode
        from appliance.screenings.contract import Measurement, Outcome, Status, Urgency

        reason = item.get("reason")
        outcome = Outcome(
            status=Status(item["status"]),
            summary=item.get("summary") or "",
            urgency=Urgency(item.get("urgency") or Urgency.ROUTINE),
            reason=Reason(ReasonCode(reason["code"]), reason["text"]) if reason else None,
            measurements=tuple(Measurement(**measurement) for measurement in item.get("measurements") or ()),
            caveats=tuple(item.get("caveats") or ()),
        )
        return cls(item["name"], outcome, float(item.get("seconds") or 0.0))


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
    air_hu, noise_hu
        Air outside the body, and noise as :func:`appliance.screenings.guards.airway_noise_hu` measures it; ``None``
        where neither was seen.
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
    air_hu: float | None = None
    noise_hu: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object of ``screen --json`` (see ``docs/interfaces.md``)."""
        volume = self.scan.volume
        acquisition = self.scan.acquisition
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
                "slice_thickness_mm": acquisition.slice_thickness_mm,
                "kernel": acquisition.kernel,
                "kernel_family": acquisition.kernel_family.value,
                "kvp": acquisition.kvp,
                "manufacturer": acquisition.manufacturer,
                "model": acquisition.model,
                "age_decade": _decade(acquisition.patient_age_years),
                "air_hu": _rounded(self.air_hu),
                "noise_hu": _rounded(self.noise_hu),
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


def _decade(age_years: float | None) -> int | None:
    """Return the years of age without their last digit: enough to see that other patients come than before."""
    return None if age_years is None else int(age_years // 10.0) * 10


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def read_screenings(report: Mapping[str, Any]) -> tuple[ScreeningResult, ...]:
    """Read the outcomes back from a stored report, as far as it holds them: no evidence, and no index of a key slice.

    Parameters
    ----------
    report
        What :meth:`Report.to_json` has given, of this release or an earlier one.

    Raises
    ------
    KeyError, ValueError
        It is no such report.
    """
    return tuple(_read_screening(item) for item in report["screenings"])


def _read_screening(item: Mapping[str, Any]) -> ScreeningResult:
    reason = item.get("reason")
    outcome = Outcome(
        status=Status(item["status"]),
        summary=item.get("summary") or "",
        urgency=Urgency(item.get("urgency") or "routine"),
        reason=Reason(ReasonCode(reason["code"]), reason.get("text") or "") if reason else None,
        measurements=tuple(
            Measurement(each["name"], float(each["value"]), each["unit"], each.get("site"), each.get("code"))
            for each in item.get("measurements") or ()
        ),
        findings=tuple(
            Finding(each["code"], each.get("meaning") or "", each["site"], _corners(each["box_mm"]), -1)
            for each in item.get("findings") or ()
        ),
        caveats=tuple(item.get("caveats") or ()),
    )
    return ScreeningResult(item["name"], outcome, float(item.get("seconds") or 0.0))


def _corners(box_mm: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    low, high = ((float(x), float(y), float(z)) for x, y, z in box_mm)
    return low, high
