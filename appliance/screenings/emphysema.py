"""Emphysema: how much of the lung is as thin as air.

The share of lung below −950 HU (LAA-950) and the 15th percentile of lung density (Perc15) on an inspiratory scan, as in
COPDGene (Regan et al., COPD 2010;7:32–43), which takes 5 % and more as emphysema (Lowe et al., Chronic Obstr Pulm Dis
2019;6:384–399). The Fleischner Society's statement on CT-definable subtypes of COPD (Lynch et al., Radiology
2015;277:192–205) grades what is seen, not this number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from appliance.anatomy.field_of_view import filled_edge_cm2
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
from appliance.screenings.guards import airway_noise_hu
from appliance.screenings.region import corners_mm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Scan

_LUNGS = ("lung_left", "lung_right")
_HISTOGRAM_FLOOR_HU = -1024
_BORDER_MM = 2.0
_BORDER_HU = -600


class EmphysemaSettings(ScreeningSettings):
    """Thresholds and limits of the emphysema screening."""

    finding_percent: float = Field(
        5.0,
        title="Lung below −950 HU from which emphysema is reported, % (COPDGene 2019)",
        ge=0.5,
        le=50,
    )
    threshold_hu: int = Field(
        -950, title="Density below which a voxel counts as emphysema, HU (COPDGene)", ge=-980, le=-900
    )
    maximum_slice_mm: float = Field(3.0, title="Thickest slices accepted, mm", gt=0, le=5)
    preferred_slice_mm: float = Field(1.5, title="Thicker slices than this get a caveat, mm", gt=0, le=5)
    maximum_noise_hu: float = Field(
        60.0,
        title="Noise in the trachea above which the scan is not used, HU (standard deviation)",
        gt=0,
        le=200,
    )
    denoise_above_hu: float = Field(
        25.0, title="Noise in the trachea above which slices are smoothed before counting, HU", ge=0, le=200
    )
    minimum_lung_volume_ml: float = Field(
        2000.0, title="Both lungs together below this are not taken as a full inspiration, mL", ge=0, le=5000
    )
    maximum_mean_lung_hu: float = Field(
        -700.0,
        title="Lungs denser than this on average are not taken as a full inspiration, HU",
        ge=-900,
        le=-500,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Lungs:
    """Lung parenchyma at the scan's own resolution, inside one box of it."""

    box: tuple[slice, slice, slice]
    hu: NDArray[np.int16]
    sides: dict[str, NDArray[np.bool_]]
    volume_ml: dict[str, float]
    noise_hu: float | None
    denoised: bool


class EmphysemaScreening:
    """Share of lung below −950 HU, 15th percentile, and lung volumes."""

    name = "emphysema"
    title = "Emphysema"
    order = 50
    settings_model = EmphysemaSettings

    def needs(self, settings: EmphysemaSettings) -> Needs:
        """Inspiratory plain chest, thin slices, no sharp kernel."""
        return Needs(
            structures=("lung_left", "lung_right", "airways", "body"),
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            preferred_slice_mm=settings.preferred_slice_mm,
            kernels=(KernelFamily.SOFT, KernelFamily.MEDIUM, KernelFamily.UNKNOWN),
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: EmphysemaSettings) -> Outcome:
        """Measure, or abstain with a reason."""
        lungs = _lungs(scan, anatomy.organs, settings)
        reason = (
            _cut_off(scan, lungs)
            or _outside_the_field(anatomy)
            or _noise(lungs, settings)
            or _inspiration(lungs, settings)
        )
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        return _outcome(scan, lungs, settings)


def _lungs(scan: Scan, organs: OrganMap, settings: EmphysemaSettings) -> _Lungs:
    from appliance.anatomy.native import native_mask

    # at its own resolution the scan knows the lung's border better than the 3 mm map: near it, what is air is lung
    box, near = native_mask(organs, scan.volume, *_LUNGS, margin_mm=_BORDER_MM)
    _, both = native_mask(organs, scan.volume, *_LUNGS, box=box)
    both |= near & (scan.volume.hu[box] < _BORDER_HU)
    hu = scan.volume.hu[box]
    noise_hu = airway_noise_hu(scan, organs)
    denoised = noise_hu is not None and noise_hu > settings.denoise_above_hu
    if denoised:
        hu = _smooth_in_plane(hu, scan.volume.spacing_mm)
    # the large airways and a wall's width around them are not parenchyma
    _, airways = native_mask(organs, scan.volume, "airways", box=box, margin_mm=2.0)
    both &= ~airways
    left = _of_the_left(scan, organs, box, both)
    sides = {"lung_left": both & left, "lung_right": both & ~left}
    volume_ml = {side: float(np.count_nonzero(mask)) * scan.volume.voxel_ml for side, mask in sides.items()}
    # vessels, walls and the half-filled border are not parenchyma either
    aerated = hu < -500
    sides = {side: mask & aerated for side, mask in sides.items()}
    return _Lungs(box, hu, sides, volume_ml, noise_hu, denoised)


def _of_the_left(
    scan: Scan, organs: OrganMap, box: tuple[slice, slice, slice], both: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which of the lungs' voxels are the left one's; what was added at a border belongs to the nearer lung."""
    from appliance.anatomy.native import native_mask

    _, left = native_mask(organs, scan.volume, "lung_left", box=box)
    _, right = native_mask(organs, scan.volume, "lung_right", box=box)
    _, wide = native_mask(organs, scan.volume, "lung_left", box=box, margin_mm=_BORDER_MM)
    return both & (left | (wide & ~right))


def _smooth_in_plane(hu: NDArray[np.int16], spacing_mm: tuple[float, float, float]) -> NDArray[np.int16]:
    """Gaussian of 0.6 mm within each slice: about halves white noise at 0.7 mm pixels, keeps 5 mm bullae."""
    from scipy import ndimage

    sigma = (0.6 / spacing_mm[1], 0.6 / spacing_mm[2])
    result = np.empty_like(hu)
    for index, plane in enumerate(hu):
        result[index] = np.rint(ndimage.gaussian_filter(plane.astype(np.float32), sigma))
    return result


def _cut_off(scan: Scan, lungs: _Lungs) -> Reason | None:
    """Both lungs must be whole: hardly any lung may touch the scan's first or last slice or its sides."""
    allowed_cm2 = 2.0
    both = lungs.sides["lung_left"] | lungs.sides["lung_right"]
    spacing = scan.volume.spacing_mm
    names = ("slices", "rows", "columns")
    for axis, name in enumerate(names):
        face_cm2 = float(np.prod([spacing[other] for other in range(3) if other != axis])) / 100.0
        for end, limit in ((0, 0), (-1, scan.volume.shape[axis])):
            edge = lungs.box[axis].start if end == 0 else lungs.box[axis].stop
            if edge != limit:
                continue
            area_cm2 = float(np.count_nonzero(np.take(both, end, axis=axis))) * face_cm2
            if area_cm2 > allowed_cm2:
                where = _end_name(scan, end) if axis == 0 else f"the edge of the field of view ({name})"
                text = f"the lungs are cut off at {where}: {area_cm2:.0f} cm² of lung touches it"
                return Reason(ReasonCode.ORGAN_CUT_OFF, text)
    return None


def _outside_the_field(anatomy: Anatomy) -> Reason | None:
    """The lungs may not run out of the round field of view either."""
    allowed_cm2 = 10.0  # the map's voxels are coarse, and lungs often come within a few mm of the circle
    area_cm2 = filled_edge_cm2(anatomy, *_LUNGS)
    if area_cm2 > allowed_cm2:
        text = f"the lungs are cut off at the round edge of the field of view: {area_cm2:.0f} cm² of lung touches it"
        return Reason(ReasonCode.ORGAN_CUT_OFF, text)
    return None


def _end_name(scan: Scan, end: int) -> str:
    towards_head = scan.volume.affine[2, 0] > 0
    return "the lowest slice" if (end == 0) == towards_head else "the highest slice"


def _noise(lungs: _Lungs, settings: EmphysemaSettings) -> Reason | None:
    if lungs.noise_hu is not None and lungs.noise_hu > settings.maximum_noise_hu:
        text = f"noise is {lungs.noise_hu:.0f} HU in the trachea; at most {settings.maximum_noise_hu:.0f} HU"
        return Reason(ReasonCode.NOISE_TOO_HIGH, text)
    return None


def _inspiration(lungs: _Lungs, settings: EmphysemaSettings) -> Reason | None:
    volume_ml = sum(lungs.volume_ml.values())
    if volume_ml < settings.minimum_lung_volume_ml:
        text = (
            f"the lungs hold {volume_ml / 1000:.1f} L, less than {settings.minimum_lung_volume_ml / 1000:.1f} L: "
            "not a full inspiration"
        )
        return Reason(ReasonCode.NOT_INSPIRATORY, text)
    mean_hu = float(lungs.hu[lungs.sides["lung_left"] | lungs.sides["lung_right"]].mean())
    if mean_hu > settings.maximum_mean_lung_hu:
        text = f"lung density is {mean_hu:.0f} HU on average: not a full inspiration, or widespread disease"
        return Reason(ReasonCode.NOT_INSPIRATORY, text)
    return None


def _outcome(scan: Scan, lungs: _Lungs, settings: EmphysemaSettings) -> Outcome:
    histograms = {side: _histogram(lungs.hu[mask]) for side, mask in lungs.sides.items()}
    total = sum(histograms.values(), np.zeros(1, dtype=np.int64))
    percent = _percent_below(total, settings.threshold_hu)
    by_side = {side: _percent_below(histogram, settings.threshold_hu) for side, histogram in histograms.items()}
    perc15 = _percentile(total, 0.15)
    volume_ml = sum(lungs.volume_ml.values())
    measurements = (
        Measurement("laa950_percent", percent, "%"),
        *(Measurement("laa950_percent", value, "%", site=side) for side, value in by_side.items()),
        Measurement("perc15_hu", perc15, "[hnsf'U]"),
        Measurement("lung_volume_ml", volume_ml, "mL"),
        *(Measurement("lung_volume_ml", value, "mL", site=side) for side, value in lungs.volume_ml.items()),
    )
    found = percent >= settings.finding_percent
    low = lungs.hu < settings.threshold_hu
    evidence = _evidence(lungs, low, percent, perc15, settings, scan)
    summary = (
        f"LAA-950 {percent:.1f} % of the lungs ({'at or above' if found else 'below'} {settings.finding_percent:g} %), "
        f"15th percentile {perc15:.0f} HU, lungs {volume_ml / 1000:.1f} L"
    )
    return Outcome(
        status=Status.FINDING if found else Status.NORMAL,
        summary=summary,
        measurements=measurements,
        findings=_findings(scan, lungs, low, by_side, evidence.key_slice) if found else (),
        evidence=evidence,
        caveats=_caveats(scan, lungs, settings),
    )


def _histogram(values: NDArray[np.int16]) -> NDArray[np.int64]:
    """Voxels per HU from −1024 to −501; lower values count at the floor."""
    shifted = np.maximum(values, _HISTOGRAM_FLOOR_HU).astype(np.int32) - _HISTOGRAM_FLOOR_HU
    return np.bincount(shifted, minlength=-500 - _HISTOGRAM_FLOOR_HU)


def _percent_below(histogram: NDArray[np.int64], threshold_hu: int) -> float:
    total = int(histogram.sum())
    return 100.0 * float(histogram[: threshold_hu - _HISTOGRAM_FLOOR_HU].sum()) / total if total else 0.0


def _percentile(histogram: NDArray[np.int64], share: float) -> float:
    cumulative = np.cumsum(histogram)
    return float(np.searchsorted(cumulative, share * cumulative[-1]) + _HISTOGRAM_FLOOR_HU)


def _evidence(
    lungs: _Lungs,
    low: NDArray[np.bool_],
    percent: float,
    perc15: float,
    settings: EmphysemaSettings,
    scan: Scan,
) -> Evidence:
    both = lungs.sides["lung_left"] | lungs.sides["lung_right"]
    counted = np.count_nonzero(low & both, axis=(1, 2))
    index = int(np.argmax(counted)) if counted.any() else int(np.argmax(np.count_nonzero(both, axis=(1, 2))))
    plane = scan.volume.shape[1:]
    mask, outline = np.zeros(plane, dtype=bool), np.zeros(plane, dtype=bool)
    mask[lungs.box[1:]] = low[index] & both[index]
    outline[lungs.box[1:]] = both[index]
    lines = (
        f"LAA-950: {percent:.1f} %   (finding from {settings.finding_percent:g} %)",
        f"Perc15: {perc15:.0f} HU",
        *(f"{side.replace('_', ' ')}: {volume / 1000:.2f} L" for side, volume in lungs.volume_ml.items()),
    )
    return Evidence(int(lungs.box[0].start) + index, mask, outline, (-1350.0, 150.0), lines)


def _findings(
    scan: Scan, lungs: _Lungs, low: NDArray[np.bool_], by_side: dict[str, float], key_slice: int
) -> tuple[Finding, ...]:
    """One finding on the side that has more of it; its box holds the lung in which it was counted."""
    side = max(by_side, key=lambda name: by_side[name])
    box_mm = corners_mm(scan.volume, lungs.box, low & lungs.sides[side])
    return (Finding("SCT:87433001", "Pulmonary emphysema", side, box_mm, key_slice),)


def _caveats(scan: Scan, lungs: _Lungs, settings: EmphysemaSettings) -> tuple[str, ...]:
    caveats = []
    if scan.slice_thickness_mm > settings.preferred_slice_mm * 1.01:
        caveats.append(
            f"{scan.slice_thickness_mm:.1f} mm slices: LAA-950 reads lower than at {settings.preferred_slice_mm:g} mm"
        )
    if scan.acquisition.kernel_family is KernelFamily.UNKNOWN:
        caveats.append("the sharpness of the reconstruction kernel is not known")
    if lungs.denoised and lungs.noise_hu is not None:
        caveats.append(f"noise is {lungs.noise_hu:.0f} HU in the trachea: slices were smoothed before counting")
    return tuple(caveats)


SCREENING = EmphysemaScreening()
