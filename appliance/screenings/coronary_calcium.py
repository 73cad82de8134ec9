"""Coronary calcium: the Agatston score of a plain chest scan.

Connected pixels of at least 130 HU and 1 mm² in a slice count with their area times a weight from their peak density
(Agatston et al., J Am Coll Cardiol 1990;15:827–832), scaled to slices of 3 mm. Categories are CAC-DRS A0 to A3
(Hecht et al., J Cardiovasc Comput Tomogr 2018;12:185–191).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from appliance.reasons import Reason, ReasonCode
from appliance.scan import KernelFamily
from appliance.screenings.agatston import REFERENCE_MM, agatston, along_plaque, category, shown, thick_peak_hu
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
from appliance.screenings.left_out import Kind, LeftOut
from appliance.screenings.plaque_surroundings import REACH_MM, surroundings
from appliance.screenings.region import corners_mm, listed, middle_and_spread, near, whole_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.native import Box
    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Scan

# Blood is sampled this far inside the aorta, or deeper inside the heart, where walls and fat do not reach.
_AORTA_DEPTH_MM, _HEART_DEPTH_MM, _ENOUGH_VOXELS = 5.0, 20.0, 500
# The grooves between the chambers, where the arteries run, are not wider than twice this.
_GROOVE_MM = 9.0
# A moving heart without fat around it makes bright spots at its border; calcium of arteries this thin is denser.
_FAINT_HU = 250


class CoronaryCalciumSettings(ScreeningSettings):
    """Thresholds and limits of the coronary calcium screening."""

    threshold_hu: int = Field(
        130, title="Density from which a pixel counts as calcium, HU (Agatston 1990)", ge=90, le=200
    )
    finding_score: float = Field(
        1.0, title="Agatston score from which calcium is reported as a finding (CAC-DRS A1: 1)", ge=0.1, le=1000
    )
    soon_score: float = Field(
        300.0, title="Agatston score from which a person should look soon (CAC-DRS A3: 300)", ge=1, le=10000
    )
    maximum_slice_mm: float = Field(5.0, title="Thickest slices accepted, mm", gt=0, le=5)
    preferred_slice_mm: float = Field(
        3.0, title="Thicker slices than this get a caveat, mm (Agatston 1990)", gt=0, le=5
    )
    lowest_kvp: float = Field(120.0, title="Lowest tube voltage, kV (130 HU holds for 120 kV)", ge=70, le=150)
    highest_kvp: float = Field(120.0, title="Highest tube voltage, kV (130 HU holds for 120 kV)", ge=70, le=150)
    youngest_years: float = Field(30.0, title="Youngest patient, years", ge=0, le=100)
    average_above_hu: float = Field(
        23.0,
        title="Noise of blood above which thin slices are averaged to 3 mm first, HU (McCollough 2007: 20 to 23)",
        ge=5,
        le=60,
    )
    maximum_noise_hu: float = Field(30.0, title="Noise of blood above which no score is given, HU", ge=5, le=60)
    noise_multiple: float = Field(
        5.0,
        title="Standard deviations of noise by which a plaque's peak must stand out from blood",
        ge=3,
        le=20,
    )
    heart_margin_mm: float = Field(2.0, title="How far outside the map's heart a plaque may lie, mm", ge=0, le=8)
    aorta_margin_mm: float = Field(2.0, title="Calcium this near the aorta belongs to its wall, mm", ge=0, le=8)
    bone_margin_mm: float = Field(2.0, title="Calcium this near bone is bone, mm", ge=0, le=8)
    valve_depth_mm: float = Field(
        20.0, title="Calcium without fat around it this deep in the heart is a valve or its ring, mm", ge=10, le=100
    )
    streak_score: float = Field(
        100.0,
        title="Agatston score of what looks like streaks of the heart's motion from which no score is given",
        ge=1,
        le=1000,
    )
    metal_hu: int = Field(
        2000, title="Density in the heart from which metal is assumed and no score is given, HU", ge=1200, le=3000
    )
    mass_factor: float = Field(
        0.78,
        title="Hydroxyapatite per volume and HU at 120 kV, mg/mL/HU (assumed, not calibrated for the scanner)",
        gt=0,
        le=2,
    )


@dataclass(frozen=True, slots=True)
class _Noise:
    """Blood: its density, its noise, and over how many slices the scan was averaged before scoring."""

    blood_hu: float
    spread_hu: float
    averaged: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class _Heart:
    """The heart's box of the scan: densities that are scored, the region of plaques, and the organ map near it."""

    box: Box
    hu: NDArray[np.int16]
    region: NDArray[np.bool_]
    noise: _Noise
    outline: OrganMap
    organs: OrganMap


@dataclass(frozen=True, slots=True, eq=False)
class _Calcium:
    """What was scored: one boolean per voxel of the heart's box, its score per slice, and what was left out."""

    mask: NDArray[np.bool_]
    by_slice: NDArray[np.float64]
    volume_mm3: float
    mass_mg: float
    plaques: int
    left_out: LeftOut

    @property
    def score(self) -> float:
        return float(self.by_slice.sum())


class CoronaryCalciumScreening:
    """Agatston score, volume and an uncalibrated mass of coronary calcium."""

    name = "coronary_calcium"
    title = "Coronary calcium"
    order = 40
    settings_model = CoronaryCalciumSettings

    def needs(self, settings: CoronaryCalciumSettings) -> Needs:
        """A plain scan at 120 kV with the whole heart."""
        return Needs(
            structures=("heart", "aorta"),
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            preferred_slice_mm=settings.preferred_slice_mm,
            kernels=(KernelFamily.SOFT, KernelFamily.MEDIUM, KernelFamily.UNKNOWN),
            kvp_range=(settings.lowest_kvp, settings.highest_kvp),
            age_range_years=(settings.youngest_years, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: CoronaryCalciumSettings) -> Outcome:
        """Score, or abstain with a reason."""
        from appliance.anatomy.plausibility import cut_off

        faces = cut_off(anatomy.organs, "heart")
        if faces:
            text = f"the heart is cut off at the {listed(faces)} of the scan"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.ORGAN_CUT_OFF, text))
        heart = _heart(scan, anatomy, settings)
        reason = _too_noisy(heart.noise, settings) or _metal(heart, settings)
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        calcium = _calcium(scan, heart, settings)
        reason = _moved(calcium, settings)
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        return _outcome(scan, heart, calcium, settings)


def _heart(scan: Scan, anatomy: Anatomy, settings: CoronaryCalciumSettings) -> _Heart:
    from appliance.anatomy.native import native_mask

    outline = _with_grooves(anatomy.organs)
    box, region = native_mask(outline, scan.volume, "heart", margin_mm=settings.heart_margin_mm)
    hu = scan.volume.hu[box]
    organs = near(anatomy.organs, scan.volume, box)
    blood = _blood(scan, organs, box)
    noise = _noise(hu, blood)
    slices = round(REFERENCE_MM / scan.volume.spacing_mm[0])
    if noise.spread_hu > settings.average_above_hu and slices > 1:
        hu = _averaged(hu, slices)
        noise = replace(_noise(hu, blood), averaged=slices)
    return _Heart(box, hu, region, noise, outline, organs)


def _with_grooves(organs: OrganMap) -> OrganMap:
    """Return a map of the heart with its grooves filled, for maps that hold its muscle and not the pericardium.

    A closing by distance; what belongs to another organ stays with it.
    """
    from scipy import ndimage

    heart = organs.mask("heart")
    labels = np.zeros(heart.shape, dtype=np.uint8)
    part = _around(heart, organs.spacing_mm)
    inside = np.pad(heart[part], 1)  # nothing is filled against the scan's own end
    wide = ndimage.distance_transform_edt(~inside, sampling=organs.spacing_mm) <= _GROOVE_MM
    closed = ndimage.distance_transform_edt(wide, sampling=organs.spacing_mm) > _GROOVE_MM
    free = organs.labels[part] == organs.values.get("body", 0)
    labels[part] = heart[part] | (closed[1:-1, 1:-1, 1:-1] & free)
    return replace(organs, labels=labels, values={"heart": 1})


def _around(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> tuple[slice, ...]:
    """Return the box of a mask with room for the closing."""
    part = []
    for axis, spacing in enumerate(spacing_mm):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        room = int(np.ceil(2.0 * _GROOVE_MM / spacing))
        part.append(slice(max(0, int(hit[0]) - room), int(hit[-1]) + 1 + room) if hit.size else slice(0, 0))
    return tuple(part)


def _blood(scan: Scan, organs: OrganMap, box: Box) -> NDArray[np.bool_]:
    """Return where blood is seen beside or in the heart."""
    from appliance.anatomy.native import native_mask

    _, aorta = native_mask(organs, scan.volume, "aorta", box=box, margin_mm=-_AORTA_DEPTH_MM)
    if np.count_nonzero(aorta) >= _ENOUGH_VOXELS:
        return aorta
    return native_mask(organs, scan.volume, "heart", box=box, margin_mm=-_HEART_DEPTH_MM)[1]


def _noise(hu: NDArray[np.int16], blood: NDArray[np.bool_]) -> _Noise:
    return _Noise(*middle_and_spread(hu[blood])) if blood.any() else _Noise(0.0, np.inf)


def _averaged(hu: NDArray[np.int16], slices: int) -> NDArray[np.int16]:
    """Return the running mean over so many slices: the mean over all ways to lay thicker slices through the scan."""
    from scipy import ndimage

    result = np.empty_like(hu)
    for row in range(hu.shape[1]):  # one row of pixels in all slices at a time: no float volume
        result[:, row] = np.rint(ndimage.uniform_filter1d(hu[:, row].astype(np.float32), slices, axis=0))
    return result


def _too_noisy(noise: _Noise, settings: CoronaryCalciumSettings) -> Reason | None:
    if not np.isfinite(noise.spread_hu):
        return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, "no blood is found in the aorta or the heart")
    if noise.spread_hu > settings.maximum_noise_hu:
        text = f"noise of blood is {noise.spread_hu:.0f} HU; at most {settings.maximum_noise_hu:.0f} HU"
        return Reason(ReasonCode.NOISE_TOO_HIGH, text)
    return None


def _metal(heart: _Heart, settings: CoronaryCalciumSettings) -> Reason | None:
    peak = int(heart.hu[heart.region].max())
    if peak >= settings.metal_hu:
        text = f"the heart holds something of {peak} HU: metal such as a lead, a valve or a stent"
        return Reason(ReasonCode.METAL_IN_ORGAN, text)
    return None


def _moved(calcium: _Calcium, settings: CoronaryCalciumSettings) -> Reason | None:
    """Streaks may hide calcium and may be taken for it; where they are the greater part, no number is right."""
    streak_score = calcium.left_out.score(Kind.STREAK)
    if streak_score < max(settings.streak_score, calcium.score):
        return None
    text = (
        f"the heart moved: streaks along its border would score {streak_score:.0f}, and calcium cannot be told "
        "from them"
    )
    return Reason(ReasonCode.MOTION_ARTIFACTS, text)


def _calcium(scan: Scan, heart: _Heart, settings: CoronaryCalciumSettings) -> _Calcium:
    from scipy import ndimage

    parts, _ = ndimage.label(heart.hu >= settings.threshold_hu, np.ones((3, 3, 3)))
    wanted, at_aorta = _coronary(scan, heart, parts, settings)
    spacing = scan.volume.spacing_mm
    pixel_mm2 = spacing[1] * spacing[2]
    slices = 1 if heart.noise.averaged > 1 else max(1, round(REFERENCE_MM / spacing[0]))
    mask = np.zeros(heart.hu.shape, dtype=bool)
    by_slice = np.zeros(heart.hu.shape[0])
    places = ndimage.find_objects(parts)
    plaques = 0
    hu_sum = 0.0
    left_out = LeftOut()
    for label in wanted + at_aorta:
        place = _grown(places[label - 1], heart.hu.shape, spacing)
        plaque, hu = parts[place] == label, heart.hu[place]
        scores, counted = agatston(along_plaque(hu, plaque, spacing[0]), plaque, pixel_mm2)
        if not counted.any() or thick_peak_hu(hu, plaque, slices) < settings.threshold_hu:
            continue
        scores *= spacing[0] / REFERENCE_MM
        blood = heart.noise.blood_hu, heart.noise.spread_hu
        around = surroundings(hu, plaque, spacing, blood, settings.threshold_hu)
        faint = int(hu[plaque].max()) < _FAINT_HU
        if label in at_aorta:
            left_out.add(Kind.WALL, float(scores.sum()))
        elif around.in_streak:
            left_out.add(Kind.STREAK, float(scores.sum()))
        elif not around.in_fat and (faint or _depth_mm(scan, heart, place, plaque) >= settings.valve_depth_mm):
            left_out.add(Kind.VALVE, float(scores.sum()))
        elif around.in_air:
            left_out.add(Kind.BRONCHIAL, float(scores.sum()))
        else:
            plaques += 1
            mask[place] |= counted
            by_slice[place[0]] += scores
            hu_sum += float(hu[counted].sum(dtype=np.int64))
    voxel_mm3 = scan.volume.voxel_ml * 1000.0
    mass_mg = settings.mass_factor * hu_sum * scan.volume.voxel_ml
    volume_mm3 = float(np.count_nonzero(mask)) * voxel_mm3
    return _Calcium(mask, by_slice, volume_mm3, mass_mg, plaques, left_out)


def _coronary(
    scan: Scan, heart: _Heart, parts: NDArray[np.int32], settings: CoronaryCalciumSettings
) -> tuple[list[int], list[int]]:
    """Return the labels of what lies mostly in the heart, not at bone, and is more than noise; at the aorta apart."""
    from appliance.anatomy.native import native_mask

    dense = np.flatnonzero(parts)  # few: everything below works on these voxels only
    labels = parts.ravel()[dense]
    size = np.bincount(labels)
    wanted = 2 * np.bincount(labels[heart.region.ravel()[dense]], minlength=size.size) > size
    at = {}
    for name, margin_mm in (("aorta", settings.aorta_margin_mm), ("bone", settings.bone_margin_mm)):
        at[name] = np.zeros(size.size, dtype=bool)
        if name in heart.organs.structures:
            _, other = native_mask(heart.organs, scan.volume, name, box=heart.box, margin_mm=margin_mm)
            at[name] = 2 * np.bincount(labels[other.ravel()[dense]], minlength=size.size) >= size
    peaks = np.full(size.size, -1024, dtype=np.int16)
    np.maximum.at(peaks, labels, heart.hu.ravel()[dense])
    wanted &= ~at["bone"] & (peaks >= heart.noise.blood_hu + settings.noise_multiple * heart.noise.spread_hu)
    coronary, at_aorta = (np.flatnonzero(wanted & chosen).tolist() for chosen in (~at["aorta"], at["aorta"]))
    return coronary, at_aorta


def _grown(place: Box, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> Box:
    """Return a box with room for what lies around what it holds."""
    reach = [int(np.ceil(REACH_MM / spacing)) for spacing in spacing_mm]
    low = [max(0, part.start - more) for part, more in zip(place, reach, strict=True)]
    high = [min(size, part.stop + more) for part, more, size in zip(place, reach, shape, strict=True)]
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _depth_mm(scan: Scan, heart: _Heart, place: Box, plaque: NDArray[np.bool_]) -> float:
    """Return how far a plaque's middle lies below the heart's surface."""
    from scipy import ndimage

    middle = np.argwhere(plaque).mean(axis=0) + [
        part.start + outer.start for part, outer in zip(place, heart.box, strict=True)
    ]
    affine = np.linalg.inv(heart.outline.affine)
    at = affine[:3, :3] @ scan.volume.to_patient_mm(middle) + affine[:3, 3]
    index = tuple(int(part) for part in np.clip(np.rint(at), 0, np.array(heart.outline.labels.shape) - 1))
    part_of = tuple(slice(max(0, part - 40), part + 41) for part in index)
    inside_mm = ndimage.distance_transform_edt(heart.outline.labels[part_of], sampling=heart.outline.spacing_mm)
    return float(inside_mm[tuple(part - where.start for part, where in zip(index, part_of, strict=True))])


def _outcome(scan: Scan, heart: _Heart, calcium: _Calcium, settings: CoronaryCalciumSettings) -> Outcome:
    score = calcium.score
    found = score >= settings.finding_score
    evidence = _evidence(scan, heart, calcium, settings)
    return Outcome(
        status=Status.FINDING if found else Status.NORMAL,
        summary=f"Agatston score {shown(score)} (CAC-DRS {category(score)})",
        urgency=Urgency.SOON if score >= settings.soon_score else Urgency.ROUTINE,
        measurements=(
            Measurement("agatston_score", score, "1", code="DCM:112058"),
            Measurement("calcium_volume_mm3", calcium.volume_mm3, "mm3", code="DCM:122660"),
            Measurement("calcium_mass_mg", calcium.mass_mg, "mg", code="DCM:122661"),
        ),
        findings=_findings(scan, heart, calcium, evidence.key_slice) if found else (),
        evidence=evidence,
        caveats=_caveats(scan, heart, calcium, settings),
    )


def _evidence(scan: Scan, heart: _Heart, calcium: _Calcium, settings: CoronaryCalciumSettings) -> Evidence:
    counted = calcium.by_slice
    index = int(np.argmax(counted if counted.any() else np.count_nonzero(heart.region, axis=(1, 2))))
    score = f"Agatston score: {shown(calcium.score)}, CAC-DRS {category(calcium.score)}"
    lines = (
        f"{score}   (finding from {settings.finding_score:g})",
        f"plaques of at least {settings.threshold_hu} HU: {calcium.plaques}, {calcium.volume_mm3:.0f} mm3",
    )
    return Evidence(
        int(heart.box[0].start) + index,
        whole_plane(scan.volume, heart.box, calcium.mask[index]),
        whole_plane(scan.volume, heart.box, heart.region[index]),
        (-160.0, 440.0),
        lines,
    )


def _findings(scan: Scan, heart: _Heart, calcium: _Calcium, key_slice: int) -> tuple[Finding, ...]:
    """One finding whose box holds all that was counted."""
    box_mm = corners_mm(scan.volume, heart.box, calcium.mask)
    return (Finding("SCT:237897009", "Vascular calcification", "heart", box_mm, key_slice),)


def _caveats(scan: Scan, heart: _Heart, calcium: _Calcium, settings: CoronaryCalciumSettings) -> tuple[str, ...]:
    noise = heart.noise
    caveats = ["non-gated estimate: the scan is not known to be triggered by the ECG"]
    if scan.slice_thickness_mm > settings.preferred_slice_mm * 1.01:
        caveats.append(f"{scan.slice_thickness_mm:.1f} mm slices: small plaques are missed")
    if noise.averaged > 1:
        caveats.append(f"thin slices are noisy: {noise.averaged} at a time were averaged before scoring")
    least_hu = noise.blood_hu + settings.noise_multiple * noise.spread_hu
    if least_hu > settings.threshold_hu:
        caveats.append(f"noise is {noise.spread_hu:.0f} HU: plaques that stay below {least_hu:.0f} HU are not counted")
    if scan.acquisition.kernel_family is KernelFamily.UNKNOWN:
        caveats.append("the sharpness of the reconstruction kernel is not known")
    caveats += calcium.left_out.caveats()
    if calcium.plaques:
        caveats.append("valves and pericardium are told from arteries only roughly; the mass is not calibrated")
    return tuple(caveats)


SCREENING = CoronaryCalciumScreening()
