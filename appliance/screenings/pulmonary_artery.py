"""Pulmonary artery: how wide the trunk is where it divides, alone and against the ascending aorta.

The diameter of the main pulmonary artery across its course at the level of the bifurcation, as in the Framingham Heart
Study's reference values for plain CT (Truong et al., Circ Cardiovasc Imaging 2012;5:147–154): the 90th percentile of
healthy people is 29 mm in men and 27 mm in women. Nearer to the valve the trunk is wider. On its right the ascending
aorta often lies against it without fat between: there a plain scan shows no border, and a number that this could carry
across a threshold is not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from appliance.anatomy.plausibility import cut_off
from appliance.anatomy.pulmonary_trunk import Trunk, pulmonary_trunk
from appliance.anatomy.vessels import Stretch, aorta
from appliance.reasons import Reason, ReasonCode
from appliance.screenings.contract import (
    Finding,
    Measurement,
    Needs,
    Outcome,
    ScreeningSettings,
    Status,
)
from appliance.screenings.cross_section_picture import section_evidence
from appliance.screenings.region import as_corners

if TYPE_CHECKING:
    from appliance.anatomy.derived import Anatomy
    from appliance.scan import Scan
    from appliance.screenings.contract import Evidence

#: Planes before the bifurcation that are measured (3 mm apart).
_PLANES = 3
#: An end of the diameter is seen when at least this share of the rays beside it meets fat or lung.
_SEEN_SHARE = 0.3
#: The ascending aorta is measured in the plane nearest in height, at most this far away, mm.
_SAME_LEVEL_MM = 5.0
_SITE = "pulmonary_trunk"


class PulmonaryArterySettings(ScreeningSettings):
    """Thresholds and limits of the pulmonary artery screening."""

    men_mm: float = Field(29.0, title="Reported in men from, mm (Truong 2012: 90th percentile)", ge=25, le=40)
    women_mm: float = Field(27.0, title="Reported in women from, mm (Truong 2012: 90th percentile)", ge=23, le=40)
    maximum_ratio: float = Field(
        1.0, title="Reported when wider than the ascending aorta by more than this factor", ge=0.8, le=1.5
    )
    maximum_slice_mm: float = Field(5.0, title="Thickest slices accepted, mm", gt=0, le=5)
    minimum_clear_percent: float = Field(
        30.0,
        title="A plane is trusted when at least this share of its border lies against fat or lung, %",
        ge=20,
        le=90,
    )
    unseen_border_mm: float = Field(
        4.5,
        title="How much too wide a diameter may be whose one end lies against the aorta without fat between, mm "
        "(the worst of eleven real scans)",
        ge=0,
        le=8,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Diameter:
    """The trunk's diameter where it divides; ``doubt_mm`` is how far an end that was not seen may be wrong."""

    trunk: Trunk
    plane: int
    diameter_mm: float
    doubt_mm: float
    aorta_mm: float | None

    @property
    def ratio(self) -> float | None:
        return None if self.aorta_mm is None else self.diameter_mm / self.aorta_mm


class PulmonaryArteryScreening:
    """Diameter of the main pulmonary artery at the bifurcation, and its ratio to the ascending aorta there."""

    name = "pulmonary_artery"
    title = "Pulmonary artery"
    order = 30
    settings_model = PulmonaryArterySettings

    def needs(self, settings: PulmonaryArterySettings) -> Needs:
        """A plain scan of any kernel."""
        return Needs(
            structures=("pulmonary_trunk", "aorta", "vertebral_bodies", "body"),
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: PulmonaryArterySettings) -> Outcome:
        """Measure, or abstain with a reason."""
        answer = _measured(anatomy, settings)
        if not isinstance(answer, Reason):
            answer = _doubtful(scan, answer, settings) or answer
        if isinstance(answer, Reason):
            return Outcome(Status.ABSTAINED, reason=answer)
        return _outcome(scan, anatomy, answer, settings)


def _measured(anatomy: Anatomy, settings: PulmonaryArterySettings) -> _Diameter | Reason:
    organs = anatomy.organs
    if not organs.mask(_SITE).any():
        return Reason(ReasonCode.REGION_NOT_COVERED, "the pulmonary trunk is not in the scan")
    ends = cut_off(organs, _SITE)
    if ends:
        where = " and the ".join(sorted(ends))
        return Reason(ReasonCode.ORGAN_CUT_OFF, f"the pulmonary trunk is cut off at the {where} of the scan")
    trunk = pulmonary_trunk(anatomy)
    if trunk is None:
        text = "the place where the pulmonary trunk divides was not found in the organ map"
        return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, text)
    borders = trunk.borders
    planes = np.arange(len(borders.clear))[-_PLANES:]
    widths, seen = borders.level_mm(planes)
    # against the lung on its left the trunk always ends visibly, unless motion or a tumour hides it
    trusted = (borders.clear[planes] * 100.0 >= settings.minimum_clear_percent) & (seen.max(axis=1) >= _SEEN_SHARE)
    if 2 * np.count_nonzero(trusted) < len(planes):
        text = "the border of the pulmonary trunk cannot be told from its neighbours where it divides"
        return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, text)
    # the middle one of the three: a plane may be led astray by a branch
    at = int(np.argsort(widths)[len(widths) // 2])
    plane = int(planes[at])
    both_seen = np.median(seen.min(axis=1)) >= _SEEN_SHARE
    height_mm = float(borders.course.points_mm[plane, 2])
    doubt_mm = 0.0 if both_seen else settings.unseen_border_mm
    return _Diameter(trunk, plane, float(widths[at]), doubt_mm, _aorta_mm(anatomy, height_mm))


def _doubtful(scan: Scan, measured: _Diameter, settings: PulmonaryArterySettings) -> Reason | None:
    """Why no answer is given where an end that was not seen decides it."""
    threshold_mm, _ = _threshold(scan, settings)
    diameter, doubt = measured.diameter_mm, measured.doubt_mm
    verdicts = {_is_found(measured, diameter + shift, threshold_mm, settings) for shift in (-doubt, 0.0)}
    if len(verdicts) == 1:
        return None
    text = (
        f"the pulmonary trunk lies against the aorta without fat: {diameter - doubt:.0f} to {diameter:.0f} mm is "
        "too uncertain beside the threshold"
    )
    return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, text)


def _is_found(measured: _Diameter, diameter_mm: float, threshold_mm: float, settings: PulmonaryArterySettings) -> bool:
    wider = measured.aorta_mm is not None and diameter_mm > settings.maximum_ratio * measured.aorta_mm
    return diameter_mm >= threshold_mm or wider


def _aorta_mm(anatomy: Anatomy, height_mm: float) -> float | None:
    """Diameter of the ascending aorta at a height, mm; ``None`` where none is seen there."""
    if "aorta" in anatomy.doubts:
        return None
    for branch in aorta(anatomy):
        planes = branch.planes(Stretch.ASCENDING)
        if not len(planes):
            continue
        apart = np.abs(branch.borders.course.points_mm[planes, 2] - height_mm)
        if apart.min() <= _SAME_LEVEL_MM:
            return float(branch.borders.longest_mm(planes)[int(np.argmin(apart))])
    return None


def _threshold(scan: Scan, settings: PulmonaryArterySettings) -> tuple[float, str]:
    """Threshold for this patient, mm, and what must be said about it."""
    if scan.acquisition.patient_sex == "M":
        return settings.men_mm, ""
    if scan.acquisition.patient_sex == "F":
        return settings.women_mm, ""
    higher = max(settings.men_mm, settings.women_mm)
    return higher, f"the patient's sex is not known: the higher threshold of {higher:g} mm was used"


def _outcome(scan: Scan, anatomy: Anatomy, measured: _Diameter, settings: PulmonaryArterySettings) -> Outcome:
    threshold_mm, caveat = _threshold(scan, settings)
    ratio = measured.ratio
    wide = measured.diameter_mm >= threshold_mm
    found = _is_found(measured, measured.diameter_mm, threshold_mm, settings)
    measurements = [Measurement("pulmonary_trunk_diameter_mm", measured.diameter_mm, "mm", code="LN:18020-8")]
    summary = (
        f"pulmonary trunk {measured.diameter_mm:.0f} mm ({'at or above' if wide else 'below'} {threshold_mm:g} mm)"
    )
    caveats = [caveat] if caveat else []
    if measured.doubt_mm:
        caveats.append(f"no fat lies between trunk and aorta: the diameter may read {measured.doubt_mm:g} mm too wide")
    if ratio is None:
        caveats.append("the ascending aorta could not be measured at the same level: no ratio")
    else:
        measurements.append(Measurement("pa_to_aorta_ratio", ratio, "1"))
        above = ratio > settings.maximum_ratio
        summary += (
            f", {ratio:.2f} of the ascending aorta ({'above' if above else 'not above'} {settings.maximum_ratio:g})"
        )
    evidence = _evidence(scan, anatomy, measured, threshold_mm, settings)
    return Outcome(
        status=Status.FINDING if found else Status.NORMAL,
        summary=summary,
        measurements=tuple(measurements),
        findings=(_finding(measured, evidence.key_slice),) if found else (),
        evidence=evidence,
        caveats=tuple(caveats),
    )


def _finding(measured: _Diameter, key_slice: int) -> Finding:
    edge = measured.trunk.borders.edge_mm(measured.plane)
    low, high = edge.min(axis=0), edge.max(axis=0)
    return Finding("SCT:25322007", "Dilatation", _SITE, as_corners(low, high), key_slice)


def _evidence(
    scan: Scan, anatomy: Anatomy, measured: _Diameter, threshold_mm: float, settings: PulmonaryArterySettings
) -> Evidence:
    borders = measured.trunk.borders
    lines = [f"pulmonary trunk: {measured.diameter_mm:.1f} mm   (finding from {threshold_mm:g} mm)"]
    if measured.ratio is not None:
        lines.append(
            f"ascending aorta there: {measured.aorta_mm:.1f} mm, ratio {measured.ratio:.2f}   "
            f"(finding above {settings.maximum_ratio:g})"
        )
    ends = borders.level_ends_mm(measured.plane)
    # across the trunk, which rises obliquely, its border is not what the slice shows
    return section_evidence(scan, borders.edge_mm(measured.plane), ends, tuple(lines), anatomy.native(_SITE))


SCREENING = PulmonaryArteryScreening()
