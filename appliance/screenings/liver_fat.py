"""Liver fat: how dark the liver is on a plain scan, by itself and beside the spleen.

Mean density of liver tissue without its border, vessels and lesions: below about 40 HU a liver holds some 30 % of fat
or more (Kodama et al., AJR 2007;188:1307–1312). The liver-to-spleen ratio is graded at 1.0, 0.7 and 0.5 as in the
Chinese guideline on non-alcoholic fatty liver disease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
)
from appliance.screenings.region import corners_mm, listed, whole_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.native import Box
    from appliance.scan import Scan

# Densities are averaged over cubes of about this edge before vessels and lesions are looked for: noise falls to a few
# HU, and branches of the portal and hepatic veins still show.
_CUBE_MM = 4.0
_ROUNDS = 10


class LiverFatSettings(ScreeningSettings):
    """Thresholds and limits of the liver fat screening."""

    finding_hu: float = Field(
        40.0, title="Liver density below which a fatty liver is reported, HU (Kodama 2007)", ge=0, le=60
    )
    mild_ratio: float = Field(
        1.0, title="Liver-to-spleen ratio up to which a fatty liver is reported (Chinese guideline: mild)", gt=0, le=1.2
    )
    moderate_ratio: float = Field(
        0.7, title="Liver-to-spleen ratio up to which it is moderate (Chinese guideline)", gt=0, le=1.2
    )
    severe_ratio: float = Field(
        0.5, title="Liver-to-spleen ratio up to which it is severe (Chinese guideline)", gt=0, le=1.2
    )
    dense_hu: float = Field(
        75.0, title="Liver density above which a caveat is given: iron, amiodarone, contrast, HU", ge=60, le=120
    )
    typical_liver_ml: float = Field(1500.0, title="Volume of a typical liver, mL", ge=500, le=3000)
    minimum_share_percent: float = Field(
        30.0, title="Part of a typical liver that a scan which cuts it must show, %", ge=5, le=100
    )
    minimum_measured_ml: float = Field(
        50.0, title="Least liver that must be left without borders, vessels and lesions, mL", ge=1, le=500
    )
    minimum_spleen_ml: float = Field(10.0, title="Least spleen that must be left without its border, mL", ge=1, le=200)
    lowest_spleen_hu: float = Field(30.0, title="Spleens darker than this are not compared with, HU", ge=0, le=60)
    highest_spleen_hu: float = Field(70.0, title="Spleens denser than this are not compared with, HU", ge=50, le=120)
    liver_depth_mm: float = Field(8.0, title="How far inside the liver's border is measured, mm", ge=3, le=20)
    spleen_depth_mm: float = Field(5.0, title="How far inside the spleen's border is measured, mm", ge=3, le=20)
    window_hu: float = Field(
        12.0, title="Tissue further than this from the organ's average is a vessel or a lesion, HU", ge=5, le=40
    )
    maximum_noise_hu: float = Field(
        60.0, title="Noise of the liver above which the scan is not used, HU (standard deviation)", ge=10, le=150
    )
    maximum_slice_mm: float = Field(10.0, title="Thickest slices accepted, mm", gt=0, le=10)
    usual_kvp: float = Field(120.0, title="Tube voltage without a caveat, kV", ge=70, le=150)


@dataclass(frozen=True, slots=True, eq=False)
class _Tissue:
    """What of an organ was measured.

    Attributes
    ----------
    box, mask
        Box of the scan, and the voxels measured in it.
    mean_hu, noise_hu
        Mean density, and standard deviation within the cubes.
    measured_ml
        Volume of the voxels measured.
    kept
        Their part of what lies deep enough inside the organ.
    """

    box: Box
    mask: NDArray[np.bool_]
    mean_hu: float
    noise_hu: float
    measured_ml: float
    kept: float


class LiverFatScreening:
    """Mean density of liver and spleen, their difference and ratio."""

    name = "liver_fat"
    title = "Liver fat"
    order = 60
    settings_model = LiverFatSettings

    def needs(self, settings: LiverFatSettings) -> Needs:
        """A plain scan that shows liver; the spleen is welcome, not needed."""
        return Needs(
            structures=("liver",),
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: LiverFatSettings) -> Outcome:
        """Measure, or abstain with a reason."""
        reason = _too_little(anatomy, settings)
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        liver = _tissue(scan, anatomy, "liver", settings.liver_depth_mm, settings.window_hu)
        if liver is None or liver.measured_ml < settings.minimum_measured_ml:
            text = "hardly any liver is left without its border, vessels and lesions"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.REGION_NOT_COVERED, text))
        if liver.noise_hu > settings.maximum_noise_hu:
            text = f"noise is {liver.noise_hu:.0f} HU in the liver; at most {settings.maximum_noise_hu:.0f} HU"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.NOISE_TOO_HIGH, text))
        spleen, why_not = _spleen(scan, anatomy, settings)
        return _outcome(scan, liver, spleen, why_not, settings)


def _too_little(anatomy: Anatomy, settings: LiverFatSettings) -> Reason | None:
    """Where the scan cuts the liver, enough of it must be left to speak for the whole."""
    from appliance.anatomy.plausibility import cut_off

    faces = cut_off(anatomy.organs, "liver")
    seen_ml = anatomy.organs.volume_ml("liver")
    needed_ml = settings.minimum_share_percent / 100.0 * settings.typical_liver_ml
    if faces and seen_ml < needed_ml:
        text = (
            f"the liver is cut off at the {listed(faces)} of the scan: {seen_ml:.0f} mL are seen, "
            f"{needed_ml:.0f} mL are needed"
        )
        return Reason(ReasonCode.REGION_NOT_COVERED, text)
    return None


def _spleen(scan: Scan, anatomy: Anatomy, settings: LiverFatSettings) -> tuple[_Tissue | None, str]:
    """Return the spleen, or why it is not compared with."""
    if "spleen" not in anatomy.organs.structures or anatomy.organs.volume_ml("spleen") == 0.0:
        return None, "no spleen is seen: the liver's density stands alone"
    if "spleen" in anatomy.doubts:
        return None, "the map's spleen is implausible: the liver's density stands alone"
    spleen = _tissue(scan, anatomy, "spleen", settings.spleen_depth_mm, settings.window_hu)
    if spleen is None or spleen.measured_ml < settings.minimum_spleen_ml:
        return None, "too little spleen is seen: the liver's density stands alone"
    if not settings.lowest_spleen_hu <= spleen.mean_hu <= settings.highest_spleen_hu:
        return None, f"the spleen reads {spleen.mean_hu:.0f} HU, which is not a plain spleen: it is not compared with"
    return spleen, ""


def _tissue(scan: Scan, anatomy: Anatomy, name: str, depth_mm: float, window_hu: float) -> _Tissue | None:
    """Measure an organ's own tissue in whole cubes inside it; ``None`` where not one cube fits."""
    box, mask = anatomy.native(name, margin_mm=-depth_mm)
    steps = [max(1, int(np.ceil(_CUBE_MM / spacing - 0.2))) for spacing in scan.volume.spacing_mm]
    box, mask = _trimmed(box, mask, steps)
    if not mask.size:
        return None
    inside = _cubes(mask, steps).all(axis=(1, 3, 5))
    z, y, x = np.nonzero(inside)
    cubes = _cubes(scan.volume.hu[box], steps)[z, :, y, :, x, :]
    if not len(cubes):
        return None
    means = cubes.mean(axis=(1, 2, 3), dtype=np.float64)
    own = _own(means, window_hu)
    kept = np.zeros(inside.shape, dtype=bool)
    kept[inside] = own
    voxels = kept.repeat(steps[0], axis=0).repeat(steps[1], axis=1).repeat(steps[2], axis=2)
    # the spread within a cube is noise; between cubes it is texture
    noise_hu = float(np.sqrt(cubes[own].astype(np.float32).var(axis=(1, 2, 3)).mean()))
    measured_ml = float(np.count_nonzero(voxels)) * scan.volume.voxel_ml
    return _Tissue(box, voxels, float(means[own].mean()), noise_hu, measured_ml, float(own.mean()))


def _trimmed(box: Box, mask: NDArray[np.bool_], steps: list[int]) -> tuple[Box, NDArray[np.bool_]]:
    """Cut a box at its upper ends so that it holds whole cubes."""
    sizes = [size // step * step for size, step in zip(mask.shape, steps, strict=True)]
    first, second, third = (slice(part.start, part.start + size) for part, size in zip(box, sizes, strict=True))
    return (first, second, third), mask[: sizes[0], : sizes[1], : sizes[2]]


def _cubes(values: NDArray[Any], steps: list[int]) -> NDArray[Any]:
    """Return a view in which axes 1, 3 and 5 run within a cube."""
    shape = [part for size, step in zip(values.shape, steps, strict=True) for part in (size // step, step)]
    return values.reshape(shape)


def _own(means: NDArray[np.float64], window_hu: float) -> NDArray[np.bool_]:
    """Return which cubes are within the window around the average of those that are; it begins at their median."""
    middle = float(np.median(means))
    own = np.abs(means - middle) <= window_hu
    for _ in range(_ROUNDS):
        if not own.any():
            return np.ones(means.shape, dtype=bool)
        middle = float(means[own].mean())
        again = np.abs(means - middle) <= window_hu
        if (again == own).all():
            break
        own = again
    return own


def grade(ratio: float, settings: LiverFatSettings) -> str:
    """Return ``"severe"``, ``"moderate"``, ``"mild"`` or ``"none"`` for a liver-to-spleen ratio."""
    steps = ((settings.severe_ratio, "severe"), (settings.moderate_ratio, "moderate"), (settings.mild_ratio, "mild"))
    return next((name for limit, name in steps if ratio <= limit), "none")


def _outcome(scan: Scan, liver: _Tissue, spleen: _Tissue | None, why_not: str, settings: LiverFatSettings) -> Outcome:
    ratio = liver.mean_hu / spleen.mean_hu if spleen is not None else None
    graded = grade(ratio, settings) if ratio is not None else "none"
    found = liver.mean_hu < settings.finding_hu or graded != "none"
    measurements = [Measurement("liver_mean_hu", liver.mean_hu, "[hnsf'U]", site="liver", code="DCM:112181")]
    summary = f"liver {liver.mean_hu:.0f} HU"
    if spleen is not None and ratio is not None:
        measurements += [
            Measurement("spleen_mean_hu", spleen.mean_hu, "[hnsf'U]", site="spleen", code="DCM:112181"),
            Measurement("liver_spleen_difference_hu", liver.mean_hu - spleen.mean_hu, "[hnsf'U]"),
            Measurement("liver_spleen_ratio", ratio, "1"),
        ]
        summary += f", spleen {spleen.mean_hu:.0f} HU, ratio {ratio:.2f}"
    if found:
        words = f"{graded} by the ratio" if graded != "none" else f"below {settings.finding_hu:g} HU"
        summary += f": fatty liver, {words}"
    else:
        ratio_limit = f", or a ratio up to {settings.mild_ratio:g}" if ratio is not None else ""
        summary += f": not fatty (that is below {settings.finding_hu:g} HU{ratio_limit})"
    evidence = _evidence(scan, liver, spleen, ratio, settings)
    box_mm = corners_mm(scan.volume, liver.box, liver.mask)
    finding = Finding("SCT:29185008", "Fatty degeneration", "liver", box_mm, evidence.key_slice)
    return Outcome(
        status=Status.FINDING if found else Status.NORMAL,
        summary=summary,
        measurements=tuple(measurements),
        findings=(finding,) if found else (),
        evidence=evidence,
        caveats=_caveats(scan, liver, why_not, settings),
    )


def _evidence(
    scan: Scan, liver: _Tissue, spleen: _Tissue | None, ratio: float | None, settings: LiverFatSettings
) -> Evidence:
    """The slice with most of both organs that was measured."""
    area = np.zeros(scan.volume.shape[0])
    area[liver.box[0]] += np.count_nonzero(liver.mask, axis=(1, 2))
    if spleen is not None:
        shown = np.zeros_like(area)
        shown[spleen.box[0]] += np.count_nonzero(spleen.mask, axis=(1, 2))
        area = np.sqrt(area * shown) if (area * shown).any() else area
    index = int(np.argmax(area))
    mask = np.zeros(scan.volume.shape[1:], dtype=bool)
    for organ in (liver, spleen):
        if organ is not None and organ.box[0].start <= index < organ.box[0].stop:
            mask |= whole_plane(scan.volume, organ.box, organ.mask[index - organ.box[0].start])
    lines = [f"liver: {liver.mean_hu:.0f} HU   (finding below {settings.finding_hu:g} HU)"]
    if spleen is not None and ratio is not None:
        lines.append(f"spleen: {spleen.mean_hu:.0f} HU, ratio {ratio:.2f}   (finding up to {settings.mild_ratio:g})")
    return Evidence(index, mask, None, (-60.0, 160.0), tuple(lines))


def _caveats(scan: Scan, liver: _Tissue, why_not: str, settings: LiverFatSettings) -> tuple[str, ...]:
    caveats = [why_not] if why_not else []
    kvp = scan.acquisition.kvp
    if kvp != settings.usual_kvp:
        said = "is not known" if kvp is None else f"is {kvp:g} kV"
        caveats.append(f"the tube voltage {said}: the thresholds hold for {settings.usual_kvp:g} kV")
    if liver.mean_hu > settings.dense_hu:
        caveats.append("the liver is denser than usual (iron, amiodarone, gold or contrast): fat may be hidden")
    if liver.kept < 0.7:
        caveats.append(f"the liver is patchy: {1 - liver.kept:.0%} of it was left out as vessels or lesions")
    return tuple(caveats)


SCREENING = LiverFatScreening()
