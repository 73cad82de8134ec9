"""Aorta: how wide it is, from the sinotubular junction down to the bifurcation.

The largest outer diameter (wall included) perpendicular to the centreline, as the ACC/AHA guideline on aortic
disease asks for (Isselbacher et al., Circulation 2022;146:e334–e482); the abdominal thresholds are also those of
the Society for Vascular Surgery (Chaikof et al., J Vasc Surg 2018;67:2–77).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from appliance.anatomy.vessels import Stretch, aorta
from appliance.reasons import Reason, ReasonCode
from appliance.screenings.contract import (
    Finding,
    Measurement,
    Needs,
    Outcome,
    ScreeningSettings,
    Status,
    Urgency,
)
from appliance.screenings.cross_section_picture import section_evidence
from appliance.screenings.region import as_corners

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.cross_sections import Borders
    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.vessels import Branch
    from appliance.scan import Scan
    from appliance.screenings.contract import Evidence

_SPOKEN = {
    Stretch.ASCENDING: "ascending aorta",
    Stretch.DESCENDING: "descending thoracic aorta",
    Stretch.ABDOMINAL: "abdominal aorta",
}
_CODES = {Stretch.ASCENDING: "LN:18012-5", Stretch.DESCENDING: "LN:18013-3", Stretch.ABDOMINAL: None}
#: Fewer planes than this (3 mm apart) are no segment.
_LEAST_PLANES = 6
#: An abdominal aorta that ends sooner than this below the diaphragm without being cut was lost by the network, mm.
_LEAST_ABDOMINAL_MM = 70.0


class AortaSettings(ScreeningSettings):
    """Thresholds and limits of the aortic screening."""

    ascending_dilated_mm: float = Field(
        40.0, title="Ascending aorta reported as dilated from, mm (ACC/AHA 2022)", ge=30, le=60
    )
    ascending_aneurysm_mm: float = Field(
        45.0, title="Ascending aorta reported as aneurysm from, mm (ACC/AHA 2022)", ge=35, le=60
    )
    descending_dilated_mm: float = Field(
        30.0, title="Descending thoracic aorta reported as dilated from, mm (ACC/AHA 2022)", ge=25, le=60
    )
    descending_aneurysm_mm: float = Field(
        40.0, title="Descending thoracic aorta reported as aneurysm from, mm (ACC/AHA 2022)", ge=30, le=60
    )
    abdominal_dilated_mm: float = Field(
        25.0, title="Abdominal aorta reported as ectatic from, mm (SVS 2018)", ge=20, le=50
    )
    abdominal_aneurysm_mm: float = Field(
        30.0, title="Abdominal aorta reported as aneurysm from, mm (SVS 2018; ACC/AHA 2022)", ge=25, le=50
    )
    urgent_mm: float = Field(
        55.0, title="Any segment is urgent from, mm (ACC/AHA 2022, SVS 2018: repair in men)", ge=45, le=80
    )
    maximum_slice_mm: float = Field(5.0, title="Thickest slices accepted, mm", gt=0, le=5)
    minimum_clear_percent: float = Field(
        45.0,
        title="A plane is trusted when at least this share of its border lies against fat or lung, %",
        ge=20,
        le=90,
    )
    clear_border_percent: float = Field(
        65.0,
        title="From this share of border against fat or lung on, a diameter just above a threshold is believed, %",
        ge=20,
        le=100,
    )
    unseen_border_mm: float = Field(
        2.0,
        title="How much too wide a diameter with less clear border may be, mm (3 mm seen on real scans)",
        ge=0,
        le=5,
    )
    minimum_trusted_percent: float = Field(
        33.0, title="A segment is measured when at least this share of its planes is trusted, %", ge=20, le=100
    )

    abdominal_clear_percent: float = Field(
        70.0,
        title="A wide abdominal aorta is believed where this share of its border lies against fat, %",
        ge=30,
        le=100,
    )
    most_oval: float = Field(
        1.3,
        title="A wide abdominal aorta below the urgent diameter is believed up to this ratio of its two diameters",
        ge=1.0,
        le=3.0,
    )

    def thresholds(self, stretch: Stretch) -> tuple[float, float]:
        """Return from which diameter a segment is called dilated, and from which an aneurysm, mm."""
        return {
            Stretch.ASCENDING: (self.ascending_dilated_mm, self.ascending_aneurysm_mm),
            Stretch.DESCENDING: (self.descending_dilated_mm, self.descending_aneurysm_mm),
            Stretch.ABDOMINAL: (self.abdominal_dilated_mm, self.abdominal_aneurysm_mm),
        }[stretch]


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """The widest trusted plane of one segment; ``note`` says what is missing of it."""

    stretch: Stretch
    diameter_mm: float
    branch: Branch
    plane: int
    note: str = ""


class AortaScreening:
    """Largest diameters of the ascending, descending thoracic and abdominal aorta."""

    name = "aorta"
    title = "Aorta"
    order = 20
    settings_model = AortaSettings

    def needs(self, settings: AortaSettings) -> Needs:
        """A plain scan of any kernel; the spine tells the ascending from the descending aorta."""
        return Needs(
            structures=("aorta", "vertebral_bodies", "body"),
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: AortaSettings) -> Outcome:
        """Measure what is seen whole, or abstain with a reason."""
        branches = aorta(anatomy)
        segments: list[_Segment] = []
        reasons: list[Reason] = []
        for stretch in _SPOKEN:
            answer = _segment(branches, stretch, settings)
            if isinstance(answer, Reason):
                reasons.append(answer)
            else:
                segments.append(answer)
        if not segments:
            text = "; ".join(reason.text for reason in reasons)
            telling = [reason.code for reason in reasons if reason.code is not ReasonCode.REGION_NOT_COVERED]
            return Outcome(
                Status.ABSTAINED, reason=Reason(telling[0] if telling else ReasonCode.REGION_NOT_COVERED, text)
            )
        return _outcome(scan, segments, reasons, settings)


def _segment(branches: tuple[Branch, ...], stretch: Stretch, settings: AortaSettings) -> _Segment | Reason:
    spoken = _SPOKEN[stretch]
    holding = [branch for branch in branches if len(branch.planes(stretch)) >= _LEAST_PLANES]
    if not holding:
        return Reason(ReasonCode.REGION_NOT_COVERED, f"the {spoken} is not in the scan")
    if len(holding) > 1:
        text = f"the {spoken} was found in {len(holding)} separate pieces: its widest place may lie between them"
        return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, text)
    branch = holding[0]
    found = _measured(branch, stretch, settings)
    whole = branch.borders.whole
    if isinstance(found, Reason) or whole is None:
        return found
    return _beside(found, _measured(replace(branch, borders=whole), stretch, settings), settings)


def _beside(found: _Segment, whole: _Segment | Reason, settings: AortaSettings) -> _Segment | Reason:
    """Weigh what stands out to one side: most often a neighbour that the map took in, but it may be a pouch.

    It never makes a segment narrow: where it would pass a threshold there is no number, or the wider one.
    """
    if isinstance(whole, Reason):
        return whole
    thresholds = (*settings.thresholds(found.stretch), settings.urgent_mm)
    if not any(found.diameter_mm < threshold <= whole.diameter_mm for threshold in thresholds):
        return found
    widths = f"{found.diameter_mm:.0f} mm wide, or {whole.diameter_mm:.0f} mm with what stands out to one side of it"
    text = f"the {_SPOKEN[found.stretch]} is {widths}: a neighbour or a pouch of its wall"
    if found.diameter_mm < thresholds[0]:
        return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, f"{text}; too uncertain beside {thresholds[0]:g} mm")
    return replace(whole, note="; ".join(part for part in (whole.note, text) if part))


def _measured(branch: Branch, stretch: Stretch, settings: AortaSettings) -> _Segment | Reason:
    spoken = _SPOKEN[stretch]
    planes = branch.planes(stretch)
    trusted = _supported(branch.borders.clear[planes] * 100.0 >= settings.minimum_clear_percent)
    if 100.0 * trusted.mean() < settings.minimum_trusted_percent:
        text = (
            f"the {spoken} lies against other organs and its border is hidden: only {100.0 * trusted.mean():.0f} % of "
            f"the planes across it have {settings.minimum_clear_percent:.0f} % of it against fat or lung"
        )
        return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, text)
    longest = np.where(trusted, branch.borders.longest_mm(planes), 0.0)
    at = int(np.argmax(longest))
    dilated_mm = settings.thresholds(stretch)[0]
    if longest[at] >= dilated_mm:
        believed = _believed(branch.borders, planes, longest, stretch, settings)
        if isinstance(believed, Reason):
            return believed
        at = believed
    missing = _missing(branch, stretch)
    if missing and longest[at] < dilated_mm:
        code = ReasonCode.ORGAN_IMPLAUSIBLE if "lost" in missing else ReasonCode.ORGAN_CUT_OFF
        return Reason(code, f"the {spoken} is not seen whole ({missing}): its widest place may be elsewhere")
    note = f"the {spoken} is not seen whole ({missing}): it may be wider elsewhere" if missing else ""
    return _Segment(stretch, float(longest[at]), branch, int(planes[at]), note)


def _believed(
    borders: Borders,
    planes: NDArray[np.intp],
    longest_mm: NDArray[np.float64],
    stretch: Stretch,
    settings: AortaSettings,
) -> int | Reason:
    """Return the widest plane that may be called wide: what lies against a vessel makes it look wider."""
    clear = borders.clear[planes]
    spoken, dilated_mm = _SPOKEN[stretch], settings.thresholds(stretch)[0]
    at = int(np.argmax(longest_mm))
    seems = f"the {spoken} seems {longest_mm[at]:.0f} mm wide"
    if stretch is Stretch.ABDOMINAL:
        # at the hiatus the crura, below it bowel and vena cava lie against the aorta; networks take them in
        round_enough = (borders.ovalness(planes) <= settings.most_oval) | (longest_mm >= settings.urgent_mm)
        sure = (clear * 100.0 >= settings.abdominal_clear_percent) & round_enough
        sure_mm = np.where(_supported(sure), longest_mm, 0.0)
        if sure_mm.max() < dilated_mm:
            least = f"{settings.abdominal_clear_percent:g} % of its border against fat and a round section"
            return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, f"{seems}, but nowhere that wide with {least}")
        at = int(np.argmax(sure_mm))
    beside = longest_mm[at] - settings.unseen_border_mm < dilated_mm
    if beside and clear[at] * 100.0 < settings.clear_border_percent:
        text = f"{seems} where only {clear[at]:.0%} of its border lies against fat or lung: too uncertain beside the"
        return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, f"{text} threshold of {dilated_mm:g} mm")
    return at


def _supported(trusted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the planes that are trusted together with those beside them: a lone one is doubted by its neighbours."""
    beside = np.pad(trusted, 1, mode="edge")
    supported: NDArray[np.bool_] = trusted & beside[:-2] & beside[2:]
    return supported


def _missing(branch: Branch, stretch: Stretch) -> str:
    """What a segment lacks at its ends; empty when it is whole."""
    seen = set(branch.stretches)
    if stretch is Stretch.ASCENDING:
        lower = "" if not branch.cut[0] else "its root is cut off"
        upper = "" if Stretch.ARCH in seen else "the arch is not seen"
        return lower or upper
    if stretch is Stretch.DESCENDING:
        upper = "" if Stretch.ARCH in seen else "the arch is not seen"
        lower = "" if Stretch.ABDOMINAL in seen else "the scan ends above the diaphragm"
        return upper or lower
    planes = branch.planes(stretch)
    upper = "" if Stretch.DESCENDING in seen else "the scan begins below the diaphragm"
    lower = "the scan ends above the bifurcation" if branch.cut[1] else ""
    along = branch.borders.course.along_mm
    short = along[planes[-1]] - along[planes[0]] < _LEAST_ABDOMINAL_MM
    return upper or lower or ("its lower part was lost" if short else "")


def _outcome(scan: Scan, segments: list[_Segment], reasons: list[Reason], settings: AortaSettings) -> Outcome:
    words = []
    urgency = Urgency.ROUTINE
    findings = []
    for segment in segments:
        dilated, aneurysm = settings.thresholds(segment.stretch)
        diameter = segment.diameter_mm
        words.append(f"{_SPOKEN[segment.stretch]} {diameter:.0f} mm ({_grade(diameter, dilated, aneurysm)})")
        if diameter >= dilated:
            findings.append(_finding(scan, segment, is_aneurysm=diameter >= aneurysm))
        if diameter >= settings.urgent_mm:
            urgency = Urgency.URGENT
        elif diameter >= aneurysm and urgency is Urgency.ROUTINE:
            urgency = Urgency.SOON
    worst = max(segments, key=lambda item: item.diameter_mm / settings.thresholds(item.stretch)[0])
    notes = [segment.note for segment in segments if segment.note] + [reason.text for reason in reasons]
    return Outcome(
        status=Status.FINDING if findings else Status.NORMAL,
        summary=", ".join(words),
        urgency=urgency,
        measurements=tuple(
            Measurement(f"{item.stretch.value}_diameter_mm", item.diameter_mm, "mm", code=_CODES[item.stretch])
            for item in segments
        ),
        findings=tuple(findings),
        evidence=_evidence(scan, worst, segments, settings),
        caveats=tuple(notes),
    )


def _grade(diameter_mm: float, dilated_mm: float, aneurysm_mm: float) -> str:
    if diameter_mm >= aneurysm_mm:
        return f"aneurysm, at or above {aneurysm_mm:g} mm"
    if diameter_mm >= dilated_mm:
        return f"dilated, at or above {dilated_mm:g} mm"
    return f"below {dilated_mm:g} mm"


def _finding(scan: Scan, segment: _Segment, *, is_aneurysm: bool) -> Finding:
    edge = segment.branch.borders.edge_mm(segment.plane)
    low, high = edge.min(axis=0), edge.max(axis=0)
    code, meaning = ("SCT:67362008", "Aortic aneurysm") if is_aneurysm else ("SCT:25322007", "Dilatation")
    return Finding(code, meaning, "aorta", as_corners(low, high), _key_slice(scan, segment))


def _key_slice(scan: Scan, segment: _Segment) -> int:
    middle = segment.branch.borders.edge_mm(segment.plane).mean(axis=0)
    return int(np.clip(np.rint(scan.volume.to_index(middle)[0]), 0, scan.volume.shape[0] - 1))


def _evidence(scan: Scan, worst: _Segment, segments: list[_Segment], settings: AortaSettings) -> Evidence:
    lines = tuple(
        f"{_SPOKEN[item.stretch]}: {item.diameter_mm:.1f} mm   (dilated from {settings.thresholds(item.stretch)[0]:g}, "
        f"aneurysm from {settings.thresholds(item.stretch)[1]:g} mm)"
        for item in segments
    )
    borders = worst.branch.borders
    return section_evidence(scan, borders.edge_mm(worst.plane), borders.longest_ends_mm(worst.plane), lines)


SCREENING = AortaScreening()
