"""Bone density: how dense the spongy bone of the vertebral bodies is, L1 first.

Trabecular density on scans made for other reasons tells low bone mass: at L1, 160 HU and below is 90 % sensitive and
110 HU and below more than 90 % specific for osteoporosis by DXA (Pickhardt et al., Ann Intern Med 2013;158:588-95). The
thresholds hold for plain scans at 120 kV.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from appliance.screenings.spine_picture import plane_shape, sagittal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.endplates import BodyShape
    from appliance.anatomy.native import Box
    from appliance.anatomy.spine import Spine, Vertebra
    from appliance.scan import Scan

_LEVELS = ("T12", "L1", "L2", "L3")
#: Of a body that could not be measured, this share of the distance between its discs' middles is bone.
_BODY_SHARE = 0.70
#: The region's back end, as a share of the half depth behind the middle: further back runs the basivertebral vein.
_BACK_SHARE = 0.30


class BoneDensitySettings(ScreeningSettings):
    """Thresholds and limits of the bone density screening."""

    finding_hu: float = Field(
        110.0, title="Trabecular density up to which low bone density is reported, HU (Pickhardt 2013)", ge=50, le=200
    )
    watch_hu: float = Field(
        160.0, title="Density up to which osteoporosis is not excluded, HU (Pickhardt 2013)", ge=50, le=250
    )
    border_mm: float = Field(4.5, title="Distance kept from the walls and endplates, mm", ge=4, le=8)
    dense_hu: float = Field(500.0, title="Voxels denser than this are metal or sclerosis, HU", ge=300, le=1500)
    patch_hu: float = Field(
        120.0, title="Patches this far from the body's average are sclerosis, cysts or veins, HU", ge=60, le=300
    )
    maximum_patches_percent: float = Field(
        25.0, title="Bodies with more of them than this are left out, %", ge=5, le=80
    )
    fracture_percent: float = Field(
        20.0, title="Bodies with this height loss are left out, % (Genant 1993: fractured)", ge=10, le=50
    )
    minimum_region_ml: float = Field(0.8, title="Least volume that must be measured in a body, mL", ge=0.2, le=5)
    maximum_noise_hu: float = Field(
        80.0, title="Noise within the bodies above which the scan is not used, HU (standard deviation)", ge=20, le=200
    )
    maximum_slice_mm: float = Field(5.0, title="Thickest slices accepted, mm", gt=0, le=5)
    lowest_kvp: float = Field(
        120.0, title="Lowest tube voltage, kV (the thresholds hold for 120 kV: Pickhardt 2013)", ge=70, le=150
    )
    highest_kvp: float = Field(
        120.0, title="Highest tube voltage, kV (the thresholds hold for 120 kV: Pickhardt 2013)", ge=70, le=150
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """What was measured of one body."""

    level: str
    box: Box
    mask: NDArray[np.bool_]
    mean_hu: float
    noise_hu: float
    centre_mm: NDArray[np.float64]


class BoneDensityScreening:
    """Mean trabecular density of the bodies T12 to L3."""

    name = "bone_density"
    title = "Bone density"
    order = 70
    settings_model = BoneDensitySettings

    def needs(self, settings: BoneDensitySettings) -> Needs:
        """A plain scan at 120 kV with vertebral bodies, no sharp kernel."""
        return Needs(
            structures=("vertebral_bodies",),
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            kernels=(KernelFamily.SOFT, KernelFamily.MEDIUM, KernelFamily.UNKNOWN),
            kvp_range=(settings.lowest_kvp, settings.highest_kvp),
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: BoneDensitySettings) -> Outcome:
        """Measure, or abstain with a reason."""
        from appliance.anatomy.spine import spine

        found = spine(anatomy)
        if found.vertebrae and not found.certain and not found.landmarks:
            text = "nothing in this scan tells which vertebrae these are"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.LEVELS_UNCERTAIN, text))
        regions, left_out = _regions(scan, anatomy, found, settings)
        if not regions:
            return Outcome(Status.ABSTAINED, reason=_why_none(found, left_out))
        noise = float(np.median([region.noise_hu for region in regions]))
        if noise > settings.maximum_noise_hu:
            text = f"noise is {noise:.0f} HU within the vertebral bodies; at most {settings.maximum_noise_hu:.0f} HU"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.NOISE_TOO_HIGH, text))
        return _outcome(scan, found, regions, left_out, settings)


def _why_none(found: Spine, left_out: dict[str, str]) -> Reason:
    if left_out:
        text = "; ".join(f"{level} {why}" for level, why in left_out.items())
        cut = all("cut" in why for why in left_out.values())
        return Reason(ReasonCode.ORGAN_CUT_OFF if cut else ReasonCode.ORGAN_IMPLAUSIBLE, text)
    seen = f"; the scan shows {found.vertebrae[-1].level} to {found.vertebrae[0].level}" if found.vertebrae else ""
    return Reason(ReasonCode.REGION_NOT_COVERED, f"none of the vertebrae T12 to L3 is in this scan{seen}")


def _regions(
    scan: Scan, anatomy: Anatomy, found: Spine, settings: BoneDensitySettings
) -> tuple[list[_Region], dict[str, str]]:
    """Measure every whole body of T12 to L3; also why others are left out."""
    from appliance.anatomy.endplates import body_shapes
    from appliance.anatomy.height_loss import height_losses

    shapes, losses = body_shapes(anatomy), height_losses(anatomy)
    regions, left_out = [], {}
    for level in _LEVELS:
        vertebra = found.level(level)
        if vertebra is None:
            continue
        if not vertebra.whole:
            left_out[level] = "is cut by the end of the scan"
        elif level in losses and losses[level].largest_percent >= settings.fracture_percent:
            left_out[level] = f"has lost {losses[level].largest_percent:.0f} % of its height"
        else:
            region = _region(scan, vertebra, shapes.get(level), settings)
            if isinstance(region, str):
                left_out[level] = region
            else:
                regions.append(region)
    return regions, left_out


def _region(scan: Scan, item: Vertebra, shape: BodyShape | None, settings: BoneDensitySettings) -> _Region | str:
    """Measure an ellipsoid in the front and middle of a body, or say why not."""
    inside = _ellipsoid(scan, item, shape, settings)
    if inside is None:
        return "is too small, or cut by the scan"
    box, mask, centre = inside
    hu = scan.volume.hu[box].astype(np.float32)
    kept = mask & ~_patches(hu, mask, scan.volume.spacing_mm, settings)
    whole, left = np.count_nonzero(mask), np.count_nonzero(kept)
    if left < (1.0 - settings.maximum_patches_percent / 100.0) * whole:
        return f"is {1 - left / whole:.0%} sclerosis, metal or cysts"
    if left * scan.volume.voxel_ml < settings.minimum_region_ml:
        return "leaves too little spongy bone to measure"
    values = hu[kept]
    return _Region(item.level, box, kept, float(values.mean()), float(values.std()), centre)


def _ellipsoid(
    scan: Scan, item: Vertebra, shape: BodyShape | None, settings: BoneDensitySettings
) -> tuple[Box, NDArray[np.bool_], NDArray[np.float64]] | None:
    volume = scan.volume
    if shape is not None:
        middle = shape.lines_mm[1].mean(axis=0)
        half_height = 0.5 * min(shape.anterior_mm, shape.middle_mm, shape.posterior_mm)
        rise = float((middle - item.centre_mm) @ item.up)
    else:
        half_height, rise = 0.5 * _BODY_SHARE * (item.high_mm - item.low_mm), 0.0
    # half a slice more at the endplates: their density spreads over the slices that hold them
    border = settings.border_mm
    up_mm = half_height - max(border, 3.0 + 0.75 * volume.spacing_mm[0])
    front, back = -(item.half_depth_mm - border), _BACK_SHARE * item.half_depth_mm
    radii = np.array([up_mm, 0.5 * (back - front), item.half_width_mm - border - 1.5])
    if radii.min() < 2.0:
        return None
    centre = item.centre_mm + rise * item.up + 0.5 * (front + back) * item.back
    axes = np.stack([item.up, item.back, item.left])
    reach = (radii[:, None] * np.abs(axes)).sum(axis=0) + 1.0
    corners = np.array(np.meshgrid(*[(-r, r) for r in reach], indexing="ij")).reshape(3, -1).T + centre
    index = volume.to_index(corners)
    first, last = np.floor(index.min(axis=0)).astype(int), np.ceil(index.max(axis=0)).astype(int)
    if (first < 0).any() or (last >= np.array(volume.shape)).any():
        return None
    grid = np.stack(np.meshgrid(*[np.arange(a, b + 1) for a, b in zip(first, last, strict=True)], indexing="ij"), -1)
    local = (volume.to_patient_mm(grid.astype(np.float64)) - centre) @ axes.T
    mask = ((local / radii) ** 2).sum(axis=-1) <= 1.0
    slices = [slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)]
    return (slices[0], slices[1], slices[2]), mask, centre


def _patches(
    hu: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    settings: BoneDensitySettings,
) -> NDArray[np.bool_]:
    """Voxels of metal or dense bone, and patches of a few mm that stand out from the rest of the body."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(hu, [2.0 / spacing for spacing in spacing_mm])
    middle = float(np.median(smooth[mask]))
    patches: NDArray[np.bool_] = np.abs(smooth - middle) > settings.patch_hu
    return patches | (hu > settings.dense_hu)


def _outcome(
    scan: Scan, found: Spine, regions: list[_Region], left_out: dict[str, str], settings: BoneDensitySettings
) -> Outcome:
    by_level = {region.level: region for region in regions}
    mean = float(np.mean([region.mean_hu for region in regions]))
    first = by_level.get("L1") if found.certain else None
    value = first.mean_hu if first is not None else mean
    names = ", ".join(region.level for region in regions)
    what = "L1" if first is not None else f"mean of {names}"
    low = value <= settings.finding_hu
    summary = f"trabecular bone {value:.0f} HU ({what})"
    if low:
        summary += f": low, at or below {settings.finding_hu:g} HU"
    elif value <= settings.watch_hu:
        summary += f": above {settings.finding_hu:g} HU, osteoporosis not excluded up to {settings.watch_hu:g} HU"
    else:
        summary += f": not low (that is up to {settings.finding_hu:g} HU)"
    measurements = [Measurement("vertebra_trabecular_hu", value, "[hnsf'U]", code="DCM:112181")]
    measurements += [
        Measurement("vertebra_trabecular_hu", r.mean_hu, "[hnsf'U]", site=f"vertebra_{r.level}", code="DCM:112181")
        for r in regions
    ]
    shown = first or min(regions, key=lambda region: region.mean_hu)
    evidence = _evidence(scan, shown, regions, value, what, settings)
    return Outcome(
        status=Status.FINDING if low else Status.NORMAL,
        summary=summary,
        measurements=tuple(measurements),
        findings=(_finding(scan, shown),) if low else (),
        evidence=evidence,
        caveats=_caveats(scan, found, left_out, first is not None),
    )


def _finding(scan: Scan, region: _Region) -> Finding:
    from appliance.screenings.region import corners_mm

    box_mm = corners_mm(scan.volume, region.box, region.mask)
    key_slice = round(0.5 * (region.box[0].start + region.box[0].stop - 1))
    return Finding("SCT:312894000", "Osteopenia", f"vertebra_{region.level}", box_mm, key_slice)


def _evidence(
    scan: Scan, shown: _Region, regions: list[_Region], value: float, what: str, settings: BoneDensitySettings
) -> Evidence:
    axis, index = sagittal(scan.volume, shown.centre_mm)
    mask = np.zeros(plane_shape(scan.volume, axis), dtype=bool)
    for region in regions:
        inside = index - region.box[axis].start
        if 0 <= inside < region.mask.shape[axis]:
            rows, columns = (part for other, part in enumerate(region.box) if other != axis)
            mask[rows, columns] |= np.take(region.mask, inside, axis=axis)
    lines = (
        f"{what}: {value:.0f} HU   (finding up to {settings.finding_hu:g} HU)",
        "   ".join(f"{region.level} {region.mean_hu:.0f}" for region in regions) + "   HU",
    )
    return Evidence(index, mask, None, (-150.0, 500.0), lines, axis=axis)


def _caveats(scan: Scan, found: Spine, left_out: dict[str, str], by_l1: bool) -> tuple[str, ...]:
    caveats = []
    if not found.certain:
        caveats.append("the vertebral levels are uncertain by one; neighbouring bodies differ little in density")
    elif not by_l1:
        caveats.append("L1 could not be measured: the mean of the other vertebrae measured stands for it")
    caveats += [f"{level} is not counted: it {why}" for level, why in left_out.items()]
    if scan.acquisition.kernel_family is KernelFamily.UNKNOWN:
        caveats.append("the sharpness of the reconstruction kernel is not known")
    return tuple(caveats)


SCREENING = BoneDensityScreening()
