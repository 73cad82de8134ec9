"""Vertebral fracture: how much height each vertebral body has lost.

Front, middle and back height of every body seen whole, from the middle sagittal slab, graded as by Genant et al.
(J Bone Miner Res 1993;8:1137-48): loss of 20 to 25 % is mild, 25 to 40 % moderate, above 40 % severe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from appliance.reasons import Reason, ReasonCode
from appliance.screenings.contract import (
    Evidence,
    Finding,
    Measurement,
    Needs,
    Outcome,
    ScreeningSettings,
    Status,
    Urgency,
)
from appliance.screenings.spine_picture import filled_between, plane_shape, sagittal, strokes_on

if TYPE_CHECKING:
    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.endplates import BodyShape
    from appliance.anatomy.height_loss import HeightLoss
    from appliance.anatomy.spine import Spine
    from appliance.scan import Scan


#: Slices thicker than preferred may lie this far from straight across the patient, degrees; at 12° and 2.5 mm a sound
#: body of the test patient read 24 % wedged and one of 30 % read 21 %.
_MOST_TILT_DEGREES = 8.0


class VertebralFractureSettings(ScreeningSettings):
    """Thresholds and limits of the vertebral fracture screening."""

    mild_percent: float = Field(
        20.0, title="Height loss from which a fracture is reported, % (Genant 1993: grade 1)", ge=10, le=40
    )
    moderate_percent: float = Field(
        25.0, title="Height loss from which it is moderate, % (Genant 1993: grade 2)", ge=15, le=50
    )
    severe_percent: float = Field(
        40.0, title="Height loss above which it is severe, % (Genant 1993: grade 3)", ge=25, le=80
    )
    maximum_slice_mm: float = Field(
        1.75, title="Thickest slices accepted, mm (on thicker ones heights were wrong by 10 to 30 %)", gt=0, le=3
    )
    preferred_slice_mm: float = Field(1.5, title="Thicker slices than this get a caveat, mm", gt=0, le=3)
    maximum_pixel_mm: float = Field(1.6, title="Coarsest pixels accepted, mm", gt=0, le=1.6)
    minimum_share_percent: float = Field(
        50.0, title="Part of the whole bodies that must be measured before none is called fractured, %", ge=0, le=100
    )


class VertebralFractureScreening:
    """Height loss of the vertebral bodies."""

    name = "vertebral_fracture"
    title = "Vertebral fracture"
    order = 75
    settings_model = VertebralFractureSettings

    def needs(self, settings: VertebralFractureSettings) -> Needs:
        """Vertebral bodies in thin slices; contrast does not matter."""
        return Needs(
            structures=("vertebral_bodies",),
            contrast_free=False,
            maximum_slice_mm=settings.maximum_slice_mm,
            preferred_slice_mm=settings.preferred_slice_mm,
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: VertebralFractureSettings) -> Outcome:
        """Measure, or abstain with a reason."""
        from appliance.anatomy.endplates import body_shapes
        from appliance.anatomy.height_loss import height_losses
        from appliance.anatomy.spine import spine

        pixel_mm = max(scan.volume.spacing_mm[1:])
        if pixel_mm > settings.maximum_pixel_mm:
            text = f"pixels of {pixel_mm:.1f} mm; at most {settings.maximum_pixel_mm:.1f} mm"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.SLICE_TOO_THICK, text))
        reason = _tilted(scan, settings)
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        found, shapes, losses = spine(anatomy), body_shapes(anatomy), height_losses(anatomy)
        if not shapes:
            return Outcome(Status.ABSTAINED, reason=_why_none(found))
        reason = _too_few(scan, found, losses, settings)
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        return _outcome(scan, found, shapes, losses, settings)


def _tilted(scan: Scan, settings: VertebralFractureSettings) -> Reason | None:
    """Thick slices that cross the endplates obliquely smear front and back unlike: sound bodies look wedged."""
    if scan.slice_thickness_mm <= settings.preferred_slice_mm * 1.01:
        return None
    along = scan.volume.affine[:3, 0]
    tilt = float(np.degrees(np.arccos(np.clip(abs(along[2]) / np.linalg.norm(along), 0.0, 1.0))))
    if tilt <= _MOST_TILT_DEGREES:
        return None
    text = f"slices of {scan.slice_thickness_mm:.1f} mm lie {tilt:.0f}° oblique to the patient: heights would be wrong"
    return Reason(ReasonCode.SLICE_TOO_THICK, text)


def _too_few(
    scan: Scan, found: Spine, losses: dict[str, HeightLoss], settings: VertebralFractureSettings
) -> Reason | None:
    """A fracture that is seen is told; that there is none may be said only of a spine that was measured."""
    if any(loss.largest_percent >= settings.mild_percent for loss in losses.values()):
        return None
    whole = sum(item.whole for item in found.vertebrae)
    if len(losses) >= settings.minimum_share_percent / 100.0 * whole:
        return None
    thick = scan.slice_thickness_mm > settings.preferred_slice_mm * 1.01
    text = f"endplates are clear in only {len(losses)} of {whole} vertebral bodies"
    if thick:
        return Reason(ReasonCode.SLICE_TOO_THICK, f"{text}, on slices of {scan.slice_thickness_mm:.1f} mm")
    return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, text)


def _why_none(found: Spine) -> Reason:
    if not any(item.whole for item in found.vertebrae):
        return Reason(ReasonCode.ORGAN_CUT_OFF, "no vertebral body is whole in this scan")
    return Reason(
        ReasonCode.ORGAN_IMPLAUSIBLE, "the endplates of the vertebral bodies are not clear enough to measure heights"
    )


def grade(loss_percent: float, settings: VertebralFractureSettings) -> str:
    """Return ``"severe"``, ``"moderate"``, ``"mild"`` or ``"none"`` for a height loss."""
    if loss_percent > settings.severe_percent:
        return "severe"
    if loss_percent >= settings.moderate_percent:
        return "moderate"
    return "mild" if loss_percent >= settings.mild_percent else "none"


def _outcome(
    scan: Scan,
    found: Spine,
    shapes: dict[str, BodyShape],
    losses: dict[str, HeightLoss],
    settings: VertebralFractureSettings,
) -> Outcome:
    worst = max(losses, key=lambda level: losses[level].largest_percent)
    fractured = {
        level: graded for level, loss in losses.items() if (graded := grade(loss.largest_percent, settings)) != "none"
    }
    measurements = [Measurement("vertebral_height_loss_percent", losses[worst].largest_percent, "%")]
    for level, shape in shapes.items():
        site = f"vertebra_{level}"
        measurements += [
            Measurement("vertebral_height_loss_percent", losses[level].largest_percent, "%", site=site),
            Measurement("vertebra_anterior_height_mm", shape.anterior_mm, "mm", site=site),
            Measurement("vertebra_middle_height_mm", shape.middle_mm, "mm", site=site),
            Measurement("vertebra_posterior_height_mm", shape.posterior_mm, "mm", site=site),
        ]
    evidence = _evidence(scan, shapes, losses, worst, fractured, settings)
    severe = "severe" in fractured.values()
    return Outcome(
        status=Status.FINDING if fractured else Status.NORMAL,
        summary=_summary(losses, worst, fractured, settings),
        urgency=Urgency.SOON if severe else Urgency.ROUTINE,
        measurements=tuple(measurements),
        findings=tuple(_finding(scan, level, shapes[level], graded) for level, graded in fractured.items()),
        evidence=evidence,
        caveats=_caveats(scan, found, shapes, settings),
    )


def _summary(
    losses: dict[str, HeightLoss], worst: str, fractured: dict[str, str], settings: VertebralFractureSettings
) -> str:
    loss = losses[worst]
    if not fractured:
        most = f"most {loss.largest_percent:.0f} % ({worst})"
        return f"no height loss from {settings.mild_percent:g} % on in {len(losses)} vertebrae, {most}"
    parts = [
        f"{level} {losses[level].largest_percent:.0f} % ({graded} {losses[level].shape})"
        for level, graded in fractured.items()
    ]
    return "height loss: " + ", ".join(parts)


def _finding(scan: Scan, level: str, shape: BodyShape, graded: str) -> Finding:
    ends = shape.lines_mm.reshape(-1, 3)
    half_width = np.array([15.0, 0.0, 0.0])
    low, high = ends.min(axis=0) - half_width, ends.max(axis=0) + half_width
    key_slice = round(float(scan.volume.to_index(ends.mean(axis=0))[0]))
    return Finding(
        "SCT:125605004",
        f"Fracture of bone ({graded} height loss)",
        f"vertebra_{level}",
        (
            (float(low[0]), float(low[1]), float(low[2])),
            (float(high[0]), float(high[1]), float(high[2])),
        ),
        int(np.clip(key_slice, 0, scan.volume.shape[0] - 1)),
    )


def _evidence(
    scan: Scan,
    shapes: dict[str, BodyShape],
    losses: dict[str, HeightLoss],
    worst: str,
    fractured: dict[str, str],
    settings: VertebralFractureSettings,
) -> Evidence:
    axis, index = sagittal(scan.volume, shapes[worst].lines_mm.mean(axis=(0, 1)))
    mask = np.zeros(plane_shape(scan.volume, axis), dtype=bool)
    for level in fractured:
        mask |= filled_between(scan.volume, axis, shapes[level].lines_mm)
    shape, loss = shapes[worst], losses[worst]
    lines = (
        f"{worst}: height loss {loss.largest_percent:.0f} %   (finding from {settings.mild_percent:g} %)",
        f"front {shape.anterior_mm:.1f}, middle {shape.middle_mm:.1f}, back {shape.posterior_mm:.1f} mm",
    )
    strokes = strokes_on(scan.volume, axis, (line for item in shapes.values() for line in item.lines_mm))
    return Evidence(index, mask, None, (-150.0, 500.0), lines, axis=axis, strokes=strokes)


def _caveats(
    scan: Scan, found: Spine, shapes: dict[str, BodyShape], settings: VertebralFractureSettings
) -> tuple[str, ...]:
    caveats = []
    if not found.certain:
        caveats.append("the vertebral levels are uncertain by one: count them on the image")
    whole = [item.level for item in found.vertebrae if item.whole]
    unclear = [level for level in whole if level not in shapes]
    if unclear:
        caveats.append(
            f"{len(shapes)} of {len(whole)} vertebrae could be measured; endplates are unclear at {', '.join(unclear)}"
        )
    if scan.slice_thickness_mm > settings.preferred_slice_mm * 1.01:
        caveats.append(f"{scan.slice_thickness_mm:.1f} mm slices: an endplate may be taken a slice off")
    return tuple(caveats)


SCREENING = VertebralFractureScreening()
