"""Body composition: muscle and fat in one slice through the middle of L3.

Areas of skeletal muscle and of fat under the skin, inside the belly and between the muscles, by the densities of the
Alberta protocol (Mitsiopoulos et al., J Appl Physiol 1998;85:115-22); with the patient's height, muscle area over
height squared. Default limits of that index are those of Prado et al. (Lancet Oncol 2008;9:629-35) for obese patients
with cancer in Canada; they do not hold for every population and are meant to be replaced by the site's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from appliance.reasons import Reason, ReasonCode
from appliance.scan import KernelFamily
from appliance.screenings.contract import (
    Evidence,
    Finding,
    Measurement,
    Needs,
    Outcome,
    ScreeningSettings,
    Status,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.compartments import Compartments
    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.spine import Spine
    from appliance.scan import Scan, Volume


class BodyCompositionSettings(ScreeningSettings):
    """Thresholds and limits of the body composition screening."""

    muscle_hu: float = Field(
        30.0, title="Mean density of muscle below which it is called fatty, HU (Aubrey 2014)", ge=10, le=60
    )
    smi_men: float = Field(
        52.4, title="Muscle index below which it is low in men, cm²/m²; 0 for none (Prado 2008)", ge=0, le=80
    )
    smi_women: float = Field(
        38.5, title="Muscle index below which it is low in women, cm²/m²; 0 for none (Prado 2008)", ge=0, le=80
    )
    smallest_muscle_cm2: float = Field(50.0, title="Smaller muscle areas are not believed, cm²", ge=10, le=100)
    largest_muscle_cm2: float = Field(350.0, title="Larger muscle areas are not believed, cm²", ge=200, le=500)
    maximum_slice_mm: float = Field(5.0, title="Thickest slices accepted, mm", gt=0, le=10)
    coarse_pixel_mm: float = Field(1.1, title="Coarser pixels than this get a caveat, mm", gt=0, le=3)


class BodyCompositionScreening:
    """Muscle and fat areas at the middle of L3."""

    name = "body_composition"
    title = "Body composition"
    order = 90
    settings_model = BodyCompositionSettings

    def needs(self, settings: BodyCompositionSettings) -> Needs:
        """A plain scan with vertebrae and the body's outline, no sharp kernel."""
        return Needs(
            structures=("vertebral_bodies", "body"),
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            kernels=(KernelFamily.SOFT, KernelFamily.MEDIUM, KernelFamily.UNKNOWN),
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: BodyCompositionSettings) -> Outcome:
        """Measure, or abstain with a reason."""
        from appliance.anatomy.compartments import compartments
        from appliance.anatomy.spine import spine

        found = spine(anatomy)
        reason = _no_l3(found)
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        plane = compartments(anatomy)
        if plane is None:
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.ORGAN_IMPLAUSIBLE, "no body is found around L3"))
        if plane.cut:
            text = "the field of view cuts the body at the middle of L3"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.ORGAN_CUT_OFF, text))
        muscle_cm2 = plane.area_cm2(plane.muscle)
        if not settings.smallest_muscle_cm2 <= muscle_cm2 <= settings.largest_muscle_cm2:
            text = (
                f"{muscle_cm2:.0f} cm² of muscle at L3; {settings.smallest_muscle_cm2:.0f} to "
                f"{settings.largest_muscle_cm2:.0f} cm² is expected"
            )
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.ORGAN_IMPLAUSIBLE, text))
        return _outcome(scan, plane, settings)


def _no_l3(found: Spine) -> Reason | None:
    """One slice stands for the body only if it is the right one."""
    if not found.vertebrae:
        return Reason(ReasonCode.REGION_NOT_COVERED, "no vertebra is seen")
    if not found.certain:
        seen = f" ({', '.join(found.landmarks)})" if found.landmarks else ""
        return Reason(ReasonCode.LEVELS_UNCERTAIN, f"too few landmarks agree on which vertebra is L3{seen}")
    level = found.level("L3")
    if level is None:
        span = f"{found.vertebrae[-1].level} to {found.vertebrae[0].level}"
        return Reason(ReasonCode.REGION_NOT_COVERED, f"L3 is not in this scan, which shows {span}")
    if not level.whole:
        return Reason(ReasonCode.ORGAN_CUT_OFF, "L3 is cut by the end of the scan")
    return None


def _outcome(scan: Scan, plane: Compartments, settings: BodyCompositionSettings) -> Outcome:
    muscle_cm2 = plane.area_cm2(plane.muscle)
    muscle_hu = float(plane.hu[plane.muscle].mean())
    areas = {
        "skeletal_muscle_area_cm2": muscle_cm2,
        "visceral_fat_area_cm2": plane.area_cm2(plane.visceral_fat),
        "subcutaneous_fat_area_cm2": plane.area_cm2(plane.subcutaneous_fat),
        "intermuscular_fat_area_cm2": plane.area_cm2(plane.intermuscular_fat),
    }
    measurements = [Measurement(name, value, "cm2", site="vertebra_L3") for name, value in areas.items()]
    measurements.append(Measurement("skeletal_muscle_hu", muscle_hu, "[hnsf'U]", site="vertebra_L3", code="DCM:112181"))
    height_m = scan.acquisition.patient_height_m
    smi = muscle_cm2 / height_m**2 if height_m and 1.0 <= height_m <= 2.4 else None
    if smi is not None:
        measurements.append(Measurement("skeletal_muscle_index", smi, "cm2/m2", site="vertebra_L3"))
    limit = {"M": settings.smi_men, "F": settings.smi_women}.get(scan.acquisition.patient_sex or "", 0.0)
    fatty = muscle_hu < settings.muscle_hu
    low = smi is not None and smi < limit
    evidence = _evidence(scan, plane, areas, muscle_hu, settings)
    return Outcome(
        status=Status.FINDING if fatty or low else Status.NORMAL,
        summary=_summary(areas, muscle_hu, smi, fatty, low, limit, settings),
        measurements=tuple(measurements),
        findings=_findings(plane, evidence.key_slice, fatty, low),
        evidence=evidence,
        caveats=_caveats(scan, smi, settings),
    )


def _summary(
    areas: dict[str, float],
    muscle_hu: float,
    smi: float | None,
    fatty: bool,
    low: bool,
    limit: float,
    settings: BodyCompositionSettings,
) -> str:
    summary = (
        f"at L3: muscle {areas['skeletal_muscle_area_cm2']:.0f} cm² of {muscle_hu:.0f} HU"
        + (f", index {smi:.1f} cm²/m²" if smi is not None else "")
        + f", visceral fat {areas['visceral_fat_area_cm2']:.0f} cm², "
        f"subcutaneous fat {areas['subcutaneous_fat_area_cm2']:.0f} cm²"
    )
    if fatty:
        summary += f": muscle below {settings.muscle_hu:g} HU"
    if low:
        summary += f"{' and' if fatty else ':'} index below {limit:g} cm²/m²"
    return summary


def _box_mm(plane: Compartments) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    from appliance.anatomy.abdominal_wall import PIXEL_MM

    rows, columns = np.nonzero(plane.muscle)
    x, y = plane.origin_mm
    return (
        (x + PIXEL_MM * float(columns.min()), y + PIXEL_MM * float(rows.min()), plane.z_mm),
        (x + PIXEL_MM * float(columns.max()), y + PIXEL_MM * float(rows.max()), plane.z_mm),
    )


def _findings(plane: Compartments, key_slice: int, fatty: bool, low: bool) -> tuple[Finding, ...]:
    found = []
    if low:
        found.append(Finding("SCT:88092000", "Muscle atrophy", "vertebra_L3", _box_mm(plane), key_slice))
    if fatty:
        found.append(Finding("SCT:29185008", "Fatty degeneration of muscle", "vertebra_L3", _box_mm(plane), key_slice))
    return tuple(found)


def _evidence(
    scan: Scan,
    plane: Compartments,
    areas: dict[str, float],
    muscle_hu: float,
    settings: BodyCompositionSettings,
) -> Evidence:
    """Muscle in red, the outline around the muscles and what they enclose; on the scan's slice nearest to the plane."""
    volume = scan.volume
    middle = np.array([*plane.origin_mm, plane.z_mm])
    half = 0.4 * np.array([plane.hu.shape[1], plane.hu.shape[0], 0.0])
    index = int(np.clip(round(float(volume.to_index(middle + half)[0])), 0, volume.shape[0] - 1))
    wall = plane.muscle | plane.visceral_fat | plane.intermuscular_fat
    muscle_cm2, visceral_cm2, subcutaneous_cm2, _ = areas.values()
    # the picture's font has no raised two
    lines = (
        f"muscle: {muscle_cm2:.0f} cm2, {muscle_hu:.0f} HU   (finding below {settings.muscle_hu:g} HU)",
        f"visceral fat: {visceral_cm2:.0f} cm2, subcutaneous: {subcutaneous_cm2:.0f} cm2",
    )
    return Evidence(
        index,
        _on_slice(volume, index, plane, plane.muscle),
        _on_slice(volume, index, plane, wall),
        (-160.0, 240.0),
        lines,
    )


def _on_slice(volume: Volume, index: int, plane: Compartments, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Show a mask of the plane on a slice of the scan: nearest pixels, seen from above."""
    from appliance.anatomy.abdominal_wall import PIXEL_MM

    rows, columns = np.indices(volume.shape[1:], dtype=np.float64)
    places = volume.to_patient_mm(np.stack([np.full_like(rows, index), rows, columns], axis=-1))
    row = np.rint((places[..., 1] - plane.origin_mm[1]) / PIXEL_MM).astype(np.int64)
    column = np.rint((places[..., 0] - plane.origin_mm[0]) / PIXEL_MM).astype(np.int64)
    inside = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    shown = np.zeros(volume.shape[1:], dtype=bool)
    shown[inside] = mask[row[inside], column[inside]]
    return shown


def _caveats(scan: Scan, smi: float | None, settings: BodyCompositionSettings) -> tuple[str, ...]:
    caveats = []
    if smi is None:
        caveats.append("the patient's height is not known: muscle is not related to it")
    elif scan.acquisition.patient_sex not in {"M", "F"}:
        caveats.append("the patient's sex is not known: the muscle index is not compared with a limit")
    else:
        caveats.append("limits of the muscle index differ between populations; the defaults are Canadian (Prado 2008)")
    pixel_mm = max(scan.volume.spacing_mm[1:])
    if pixel_mm > settings.coarse_pixel_mm:
        caveats.append(f"pixels of {pixel_mm:.1f} mm: thin fat between muscles is counted as muscle")
    if scan.acquisition.kernel_family is KernelFamily.UNKNOWN:
        caveats.append("the sharpness of the reconstruction kernel is not known")
    return tuple(caveats)


SCREENING = BodyCompositionScreening()
