"""Kidney stones: how many calcifications the kidneys hold, and how large they are.

Connected voxels of at least 130 HU within a kidney and its sinus. A stone is measured at half its height above what
surrounds it (full width at half maximum): there, blur and thick slices move an edge neither way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from appliance.anatomy.structures import spoken
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
from appliance.screenings.region import corners_mm, listed, middle_and_spread, near, whole_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.native import Box
    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Scan

_KIDNEYS = ("kidney_left", "kidney_right")
# Parenchyma is sampled this far inside the kidney, where neither fat nor the map's border reaches.
_DEPTH_MM, _ENOUGH_VOXELS = 4.0, 200


class KidneyStoneSettings(ScreeningSettings):
    """Thresholds and limits of the kidney stone screening."""

    finding_mm: float = Field(3.0, title="Largest diameter from which a stone is reported, mm", ge=1, le=30)
    threshold_hu: int = Field(130, title="Density from which a voxel counts as calcified, HU", ge=100, le=300)
    minimum_voxels: int = Field(4, title="Fewest connected voxels that are taken for a stone", ge=1, le=100)
    minimum_volume_mm3: float = Field(3.0, title="Smallest volume that is taken for a stone, mm³", ge=0, le=100)
    noise_multiple: float = Field(
        6.0,
        title="Standard deviations of noise by which a stone's peak must stand out from the kidney",
        ge=3,
        le=12,
    )
    maximum_noise_hu: float = Field(
        40.0, title="Noise of the kidney above which the scan is not used, HU (standard deviation)", ge=5, le=100
    )
    maximum_slice_mm: float = Field(5.0, title="Thickest slices accepted, mm", gt=0, le=5)
    preferred_slice_mm: float = Field(3.0, title="Thicker slices than this get a caveat, mm", gt=0, le=5)
    highest_kidney_hu: float = Field(
        60.0, title="Kidneys denser than this are taken for enhanced by contrast, HU", ge=40, le=120
    )
    region_margin_mm: float = Field(1.5, title="How far outside the map's kidney a stone may reach, mm", ge=0, le=5)
    aorta_margin_mm: float = Field(10.0, title="Calcium this near the aorta belongs to a vessel, mm", ge=0, le=30)
    metal_hu: int = Field(
        2500, title="Density in a kidney from which metal is assumed and no size is given, HU", ge=1500, le=3000
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Kidney:
    """One kidney with its sinus, at the scan's own resolution inside one box of it."""

    side: str
    box: Box
    hu: NDArray[np.int16]
    region: NDArray[np.bool_]
    middle_hu: float
    noise_hu: float


@dataclass(frozen=True, slots=True, eq=False)
class _Stone:
    """One stone: what was counted, in the kidney's box, and its size."""

    kidney: _Kidney
    mask: NDArray[np.bool_]
    diameter_mm: float
    volume_mm3: float
    mean_hu: float


class KidneyStoneScreening:
    """Count, largest diameter, volume and density of stones in the kidneys."""

    name = "kidney_stone"
    title = "Kidney stones"
    order = 70
    settings_model = KidneyStoneSettings

    def needs(self, settings: KidneyStoneSettings) -> Needs:
        """Plain scan with at least one kidney, no sharp kernel."""
        return Needs(
            structures=(),
            one_of=_KIDNEYS,
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            kernels=(KernelFamily.SOFT, KernelFamily.MEDIUM, KernelFamily.UNKNOWN),
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: KidneyStoneSettings) -> Outcome:
        """Measure, or abstain with a reason."""
        sides, left_out = _seen(anatomy)
        reason = _cut_off(anatomy.organs, sides)
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        kidneys = tuple(_kidney(scan, anatomy, side, settings) for side in sides)
        for kidney in kidneys:
            reason = _unusable(kidney, settings)
            if reason is not None:
                return Outcome(Status.ABSTAINED, reason=reason)
        stones = [stone for kidney in kidneys for stone in _stones(scan, anatomy, kidney, settings)]
        stones.sort(key=lambda stone: -stone.diameter_mm)
        return _outcome(scan, kidneys, tuple(stones), left_out, settings)


def _seen(anatomy: Anatomy) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the kidneys that are there and believed, and a sentence for each other: many people have one kidney."""
    sides, left_out = [], []
    for side in _KIDNEYS:
        if anatomy.organs.volume_ml(side) == 0.0:
            left_out.append(f"no {spoken(side)} was found in this scan: only the other one was searched")
        elif side in anatomy.doubts:
            why = anatomy.doubts[side].text.rstrip(".")
            left_out.append(f"the {spoken(side)} was not searched: {why[:1].lower()}{why[1:]}")
        else:
            sides.append(side)
    return tuple(sides), tuple(left_out)


def _cut_off(organs: OrganMap, sides: tuple[str, ...]) -> Reason | None:
    from appliance.anatomy.plausibility import cut_off

    if not sides:
        return Reason(ReasonCode.REGION_NOT_COVERED, "no kidney that can be searched is in this scan")
    for side in sides:
        faces = cut_off(organs, side)
        if faces:
            text = f"the {spoken(side)} is cut off at the {listed(faces)} of the scan"
            return Reason(ReasonCode.ORGAN_CUT_OFF, text)
    return None


def _kidney(scan: Scan, anatomy: Anatomy, side: str, settings: KidneyStoneSettings) -> _Kidney:
    from appliance.anatomy.native import native_mask

    whole = _with_sinus(anatomy.organs, side)
    box, region = native_mask(whole, scan.volume, side, margin_mm=settings.region_margin_mm)
    _, parenchyma = native_mask(anatomy.organs, scan.volume, side, box=box, margin_mm=-_DEPTH_MM)
    hu = scan.volume.hu[box]
    enough = np.count_nonzero(parenchyma) >= _ENOUGH_VOXELS
    middle_hu, noise_hu = middle_and_spread(hu[parenchyma]) if enough else (np.nan, np.nan)
    return _Kidney(side, box, hu, region, middle_hu, noise_hu)


def _with_sinus(organs: OrganMap, side: str) -> OrganMap:
    """Return a map of a kidney whose slices are convex, which holds its sinus and pelvis; other organs stay theirs."""
    kidney = organs.mask(side)
    free = kidney | (organs.labels == organs.values.get("body", 0))
    labels = np.zeros(kidney.shape, dtype=np.uint8)
    for index in np.flatnonzero(kidney.any(axis=(1, 2))):
        labels[index] = _hull(kidney[index]) & free[index]
    return replace(organs, labels=labels, values={side: 1})


def _hull(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the convex hull of the pixels of a plane."""
    from scipy.spatial import ConvexHull, QhullError

    places = np.argwhere(plane)
    try:
        hull = ConvexHull(places)
    except QhullError:  # fewer than three pixels, or all in a line
        return plane
    low, high = places.min(axis=0), places.max(axis=0) + 1
    grid = np.indices(high - low).reshape(2, -1).T + low
    inside = (grid @ hull.equations[:, :2].T + hull.equations[:, 2] <= 1e-6).all(axis=1)
    result = plane.copy()
    result[low[0] : high[0], low[1] : high[1]] |= inside.reshape(high - low)
    return result


def _unusable(kidney: _Kidney, settings: KidneyStoneSettings) -> Reason | None:
    words = spoken(kidney.side)
    if not np.isfinite(kidney.noise_hu):
        return Reason(ReasonCode.ORGAN_IMPLAUSIBLE, f"the {words} is too thin to be measured")
    if kidney.noise_hu > settings.maximum_noise_hu:
        text = f"noise is {kidney.noise_hu:.0f} HU in the {words}; at most {settings.maximum_noise_hu:.0f} HU"
        return Reason(ReasonCode.NOISE_TOO_HIGH, text)
    if kidney.middle_hu > settings.highest_kidney_hu:
        text = f"the {words} reads {kidney.middle_hu:.0f} HU, as after contrast"
        return Reason(ReasonCode.CONTRAST_DISAGREES, text)
    peak = int(kidney.hu[kidney.region].max())
    if peak >= settings.metal_hu:
        return Reason(ReasonCode.METAL_IN_ORGAN, f"the {words} holds something of {peak} HU: metal, such as a clip")
    return None


def _stones(scan: Scan, anatomy: Anatomy, kidney: _Kidney, settings: KidneyStoneSettings) -> list[_Stone]:
    from scipy import ndimage

    parts, _ = ndimage.label(kidney.hu >= settings.threshold_hu, np.ones((3, 3, 3)))
    places = ndimage.find_objects(parts)
    stones = []
    for label in _candidates(scan, anatomy, kidney, parts, settings):
        stone = _measure(scan, kidney, parts, label, places[label - 1])
        if stone.volume_mm3 >= settings.minimum_volume_mm3:
            stones.append(stone)
    return stones


def _candidates(
    scan: Scan, anatomy: Anatomy, kidney: _Kidney, parts: NDArray[np.int32], settings: KidneyStoneSettings
) -> list[int]:
    """Return the labels of what lies mostly in the kidney, not in bone or at the aorta, and is more than noise."""
    from appliance.anatomy.native import native_mask

    organs = near(anatomy.organs, scan.volume, kidney.box)
    dense = np.flatnonzero(parts)
    labels = parts.ravel()[dense]
    size = np.bincount(labels)
    wanted = 2 * np.bincount(labels[kidney.region.ravel()[dense]], minlength=size.size) > size
    wanted &= size >= settings.minimum_voxels
    for name, margin_mm in (("aorta", settings.aorta_margin_mm), ("bone", 0.0)):
        if wanted.any() and name in organs.structures:
            _, other = native_mask(organs, scan.volume, name, box=kidney.box, margin_mm=margin_mm)
            wanted &= 2 * np.bincount(labels[other.ravel()[dense]], minlength=size.size) < size
    peaks = np.full(size.size, -1024, dtype=np.int16)
    np.maximum.at(peaks, labels, kidney.hu.ravel()[dense])
    wanted &= peaks >= kidney.middle_hu + settings.noise_multiple * kidney.noise_hu
    return [int(label) for label in np.flatnonzero(wanted)]


def _measure(scan: Scan, kidney: _Kidney, parts: NDArray[np.int32], label: int, place: Box) -> _Stone:
    from appliance.screenings.stone_size import AROUND_MM, stone_size

    spacing = scan.volume.spacing_mm
    room = [int(np.ceil(AROUND_MM[1] / step)) + 1 for step in spacing]
    low = [max(0, side.start - more) for side, more in zip(place, room, strict=True)]
    high = [min(size, side.stop + more) for side, more, size in zip(place, room, parts.shape, strict=True)]
    part = slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
    others = (parts[part] != 0) & (parts[part] != label)
    measured = stone_size(kidney.hu[part], parts[part] == label, others, spacing, scan.slice_thickness_mm)
    mask = np.zeros(parts.shape, dtype=bool)
    mask[part] = measured.mask
    return _Stone(kidney, mask, measured.diameter_mm, measured.volume_mm3, measured.mean_hu)


def _outcome(
    scan: Scan,
    kidneys: tuple[_Kidney, ...],
    stones: tuple[_Stone, ...],
    left_out: tuple[str, ...],
    settings: KidneyStoneSettings,
) -> Outcome:
    largest_mm = stones[0].diameter_mm if stones else 0.0
    found = largest_mm >= settings.finding_mm
    evidence = _evidence(scan, kidneys, stones, settings)
    count = f"{len(stones)} kidney stone{'' if len(stones) == 1 else 's'}"
    where = f" in the {spoken(kidneys[0].side)}" if left_out else ""
    return Outcome(
        status=Status.FINDING if found else Status.NORMAL,
        summary=f"{count}{where}, the largest {largest_mm:.1f} mm" if stones else f"no kidney stone{where}",
        measurements=_measurements(kidneys, stones),
        findings=_findings(scan, stones, settings),
        evidence=evidence,
        caveats=left_out + _caveats(scan, stones, settings),
    )


def _measurements(kidneys: tuple[_Kidney, ...], stones: tuple[_Stone, ...]) -> tuple[Measurement, ...]:
    rows = []
    for site in (None, *(kidney.side for kidney in kidneys)):
        own = [stone for stone in stones if site in {None, stone.kidney.side}]
        rows.append(Measurement("kidney_stone_count", float(len(own)), "1", site=site))
        rows.append(
            Measurement("kidney_stone_max_mm", max((stone.diameter_mm for stone in own), default=0.0), "mm", site=site)
        )
        rows.append(
            Measurement("kidney_stone_volume_mm3", sum((stone.volume_mm3 for stone in own), 0.0), "mm3", site=site)
        )
    if stones:
        largest = stones[0]
        rows.append(
            Measurement(
                "kidney_stone_mean_hu", largest.mean_hu, "[hnsf'U]", site=largest.kidney.side, code="DCM:112181"
            )
        )
    return tuple(rows)


def _key_slice(stone: _Stone) -> int:
    """Index, in the kidney's box, of the slice with most of the stone."""
    return int(np.argmax(np.count_nonzero(stone.mask, axis=(1, 2))))


def _evidence(
    scan: Scan, kidneys: tuple[_Kidney, ...], stones: tuple[_Stone, ...], settings: KidneyStoneSettings
) -> Evidence:
    if stones:
        kidney, index = stones[0].kidney, _key_slice(stones[0])
    else:
        kidney = kidneys[0]
        index = int(np.argmax(np.count_nonzero(kidney.region, axis=(1, 2))))
    counted = np.zeros(kidney.hu.shape[1:], dtype=bool)
    for stone in stones:
        if stone.kidney is kidney:
            counted |= stone.mask[index]
    lines = [f"stones: {len(stones)}   (finding from {settings.finding_mm:g} mm)"]
    if stones:
        largest = stones[0]
        lines.append(
            f"largest: {largest.diameter_mm:.1f} mm, {largest.volume_mm3:.0f} mm3, {largest.mean_hu:.0f} HU, "
            f"{spoken(largest.kidney.side)}"
        )
    return Evidence(
        int(kidney.box[0].start) + index,
        whole_plane(scan.volume, kidney.box, counted),
        whole_plane(scan.volume, kidney.box, kidney.region[index]),
        (-160.0, 440.0),
        tuple(lines),
    )


def _findings(scan: Scan, stones: tuple[_Stone, ...], settings: KidneyStoneSettings) -> tuple[Finding, ...]:
    """One finding per stone that is large enough, the largest first."""
    return tuple(
        Finding(
            "SCT:386103008",
            "Renal stone",
            stone.kidney.side,
            corners_mm(scan.volume, stone.kidney.box, stone.mask),
            int(stone.kidney.box[0].start) + _key_slice(stone),
        )
        for stone in stones
        if stone.diameter_mm >= settings.finding_mm
    )


def _caveats(scan: Scan, stones: tuple[_Stone, ...], settings: KidneyStoneSettings) -> tuple[str, ...]:
    caveats = []
    if scan.slice_thickness_mm > settings.preferred_slice_mm * 1.01:
        caveats.append(f"{scan.slice_thickness_mm:.1f} mm slices: small stones are missed")
    if scan.acquisition.kernel_family is KernelFamily.UNKNOWN:
        caveats.append("the sharpness of the reconstruction kernel is not known")
    if stones:
        caveats.append("a calcified artery in the kidney, or a calcified cyst, looks like a stone")
    return tuple(caveats)


SCREENING = KidneyStoneScreening()
