"""Pleural effusion: how much free fluid lies around each lung.

Fluid within the rib cage, outside the lung and every labelled organ, told from muscle, liver and collapsed lung by its
density. Thresholds of volume are the site's choice: about 200 mL are needed before a chest radiograph shows an effusion
(Light, N Engl J Med 2002;346:1971–1977), CT shows less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from appliance.anatomy.plausibility import cut_off
from appliance.anatomy.rib_cage import RibCage, rib_cage
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
from appliance.screenings.guards import airway_noise_hu
from appliance.screenings.region import corners_mm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Scan

_SIDES = ("left", "right")
#: Structures that are not pleural space. Around the first, one working voxel more is not counted either: what the
#: map is wrong, and the fluid in the pericardium, the stomach, the bowel and the gall bladder.
_WITH_MARGIN = (
    *("heart", "aorta", "pulmonary_trunk", "esophagus", "airways", "stomach", "gallbladder", "pancreas"),
    *("kidney_left", "kidney_right", "colon", "small_bowel", "duodenum", "spinal_cord", "vertebral_bodies"),
)
_WITHOUT_MARGIN = ("liver", "spleen", "bone")
_LUNG_HU = -850.0
_FAT_HU = -100.0
#: Less is half-filled with air, more with bone.
_SOFT_HU = (-60.0, 90.0)
_RIB_HU = 300.0
#: A body of fluid has at least this much in places at least two working voxels thick, mL.
_CORE_ML = 4.0
#: It may lie this far outside the ribs' smoothed inner surface, mm: the surface is that uncertain.
_CORE_OUTSIDE_MM = 4.0
#: What is as dense as that (within so many HU) and joins it may lie this far outside, mm: in the gutters beside the
#: spine, where rib heads and transverse processes stand in.
_ALIKE_HU = 14.0
_GUTTER_MM = 16.0
_GUTTER_REACH_MM = 65.0
#: Half-filled voxels reach this many working voxels beyond the sure ones.
_FRINGE = 2
#: Part of the height of the chest, from the table, in which free fluid has its greater part, or this much, mL.
_DEPENDENT_SHARE = 0.4
_MUCH_ML = 50.0
#: Of a lung that the scan cuts above, only the apex is missing when its section there is at most this share of its
#: largest one; fluid that lies flat behind a lung reaches as high as the lung.
_APEX_SHARE = 0.5
#: Part of it lies along the wall: at least this share within this distance, mm.
_AT_WALL_SHARE, _AT_WALL_MM = 0.1, 12.0


class PleuralEffusionSettings(ScreeningSettings):
    """Thresholds and limits of the effusion screening."""

    finding_ml: float = Field(
        100.0, title="Fluid on one side reported from, mL (site's choice; Light 2002: 200 mL show on a radiograph)",
        ge=30, le=500,
    )  # fmt: skip
    urgent_ml: float = Field(1000.0, title="Fluid on one side that is urgent from, mL (site's choice)", ge=300, le=4000)
    lowest_hu: float = Field(-15.0, title="Fluid is at least this dense, HU (transudate 0 to 20)", ge=-30, le=5)
    highest_hu: float = Field(
        32.0, title="Fluid is at most this dense, HU (above: collapsed lung, blood, muscle)", ge=20, le=45
    )
    maximum_spread_hu: float = Field(
        15.0, title="Density of one body of fluid varies by at most this, HU (standard deviation at 3 mm)", ge=5, le=40
    )
    maximum_slice_mm: float = Field(5.0, title="Thickest slices accepted, mm", gt=0, le=5)
    maximum_noise_hu: float = Field(
        80.0, title="Noise in the trachea above which the scan is not used, HU (standard deviation)", gt=0, le=200
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Fluid:
    """Fluid at working resolution: how much of each voxel is fluid, per side."""

    cage: RibCage
    filled: dict[str, NDArray[np.float32]]
    ml: dict[str, float]
    at_bottom: tuple[str, ...]


class PleuralEffusionScreening:
    """Volume of free fluid around each lung."""

    name = "pleural_effusion"
    title = "Pleural effusion"
    order = 40
    settings_model = PleuralEffusionSettings

    def needs(self, settings: PleuralEffusionSettings) -> Needs:
        """A plain chest; after contrast the fluid's neighbours have other densities."""
        return Needs(
            structures=("lung_left", "lung_right", "bone", "vertebral_bodies", "heart", "liver", "spleen", "body"),
            contrast_free=True,
            maximum_slice_mm=settings.maximum_slice_mm,
            age_range_years=(18.0, 120.0),
        )

    def run(self, scan: Scan, anatomy: Anatomy, settings: PleuralEffusionSettings) -> Outcome:
        """Measure, or abstain with a reason."""
        reason = _position(scan) or _cut_off(anatomy) or _noise(scan, anatomy, settings)
        if reason is not None:
            return Outcome(Status.ABSTAINED, reason=reason)
        cage = rib_cage(anatomy)
        if cage is None:
            text = "no lungs, ribs and spine were found around which fluid could be looked for"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.REGION_NOT_COVERED, text))
        fluid = _fluid(scan, anatomy, cage, settings)
        if fluid.at_bottom:
            sides = " and ".join(fluid.at_bottom)
            text = f"fluid on the {sides} goes on below the scan's lowest slice: its volume is not known"
            return Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.ORGAN_CUT_OFF, text))
        return _outcome(scan, anatomy, fluid, settings)


def _cut_off(anatomy: Anatomy) -> Reason | None:
    for side in _SIDES:
        ends = cut_off(anatomy.organs, f"lung_{side}") - {"top"}
        if ends:
            where = " and the ".join(sorted(ends))
            return Reason(ReasonCode.ORGAN_CUT_OFF, f"the {side} lung is cut off at the {where} of the scan")
        area = np.count_nonzero(anatomy.organs.mask(f"lung_{side}"), axis=(1, 2))
        # networks are unsure in the very last slice
        if area[-3:].max(initial=0) > _APEX_SHARE * area.max(initial=0):
            text = f"only the base of the {side} lung is in the scan: fluid may lie above"
            return Reason(ReasonCode.ORGAN_CUT_OFF, text)
    return None


def _position(scan: Scan) -> Reason | None:
    """Fluid is looked for where it sinks to; of a patient on the side that is not known here."""
    if (scan.acquisition.patient_position or "").upper()[2:] in {"DR", "DL"}:
        return Reason(ReasonCode.POSITION_UNSUITABLE, "the patient lay on the side; fluid gathers elsewhere then")
    return None


def _noise(scan: Scan, anatomy: Anatomy, settings: PleuralEffusionSettings) -> Reason | None:
    noise_hu = airway_noise_hu(scan, anatomy.organs)
    if noise_hu is not None and noise_hu > settings.maximum_noise_hu:
        text = f"noise is {noise_hu:.0f} HU in the trachea; at most {settings.maximum_noise_hu:.0f} HU"
        return Reason(ReasonCode.NOISE_TOO_HIGH, text)
    return None


def _fluid(scan: Scan, anatomy: Anatomy, cage: RibCage, settings: PleuralEffusionSettings) -> _Fluid:
    from scipy import ndimage

    hu = cage.volume.hu.astype(np.float32)
    lung = cage.organs.mask("lung_left", "lung_right")
    free = ~_organs(cage.organs) & ~lung
    # noise is averaged among soft voxels only: lung or bone next to thin fluid must not change how it looks
    soft = ((hu > _SOFT_HU[0]) & (hu < _SOFT_HU[1])).astype(np.float32)
    smooth = ndimage.gaussian_filter(hu * soft, 0.8) / np.maximum(ndimage.gaussian_filter(soft, 0.8), 1e-3)
    wet = (smooth >= settings.lowest_hu) & (smooth <= settings.highest_hu) & (soft > 0) & free
    amount = _amount(hu, lung, cage.organs.mask("bone"), settings)
    prone = (scan.acquisition.patient_position or "").upper() in {"HFP", "FFP"}
    allowed_mm = _allowed_mm(cage, prone=prone)
    filled, ml, at_bottom = {}, {}, []
    for side in _SIDES:
        depth = cage.depth_mm[side]
        region = _region(wet, smooth, depth, allowed_mm, cage, prone=prone)
        fringe = ndimage.binary_dilation(
            region, iterations=_FRINGE, mask=(depth > -allowed_mm) & free & (hu > _LUNG_HU)
        )
        # no thin plane of fat between the muscles of the back
        thick = ndimage.binary_opening(fringe & (amount > 0.3), np.ones((1, 3, 3)))
        part = np.where(fringe & (thick | (depth > 0.0)), amount, 0.0).astype(np.float32)
        part *= _even(part > 0.5, hu, settings)
        filled[side] = part
        ml[side] = float(part.sum()) * cage.volume.voxel_ml
        if _touches_bottom(part, cage, anatomy):
            at_bottom.append(side)
    return _Fluid(cage, filled, ml, tuple(at_bottom))


def _allowed_mm(cage: RibCage, *, prone: bool) -> NDArray[np.float32]:
    """How far outside the ribs' inner surface fluid may lie, ``(1, rows, columns)``: farther in the gutters.

    On the front of a patient who lies on it, where cartilage instead of bone marks the wall, the surface is no reason
    to go beyond it.
    """
    places = np.argwhere(cage.organs.mask("vertebral_bodies"))
    _, row, column = places.mean(axis=0)
    rows, columns = np.indices(cage.volume.shape[1:])
    reach = _GUTTER_REACH_MM / cage.volume.spacing_mm[2]
    gutters = (rows > row) & (np.abs(columns - column) < reach)
    outside = np.where((rows < row) & prone, 0.0, _CORE_OUTSIDE_MM)
    return np.where(gutters & (not prone), _GUTTER_MM, outside).astype(np.float32)[None]


def _even(region: NDArray[np.bool_], hu: NDArray[np.float32], settings: PleuralEffusionSettings) -> NDArray[np.bool_]:
    """Return where bodies of fluid are alike throughout, as fluid is; muscle with fat between its fibres is not.

    A body's half-filled border counts neither for nor against it, and belongs to it.
    """
    from scipy import ndimage

    inner = ndimage.binary_erosion(region)
    bodies, count = ndimage.label(ndimage.binary_dilation(region, iterations=2))
    labels, values = bodies[inner], hu[inner].astype(np.float64)
    voxels = np.bincount(labels, minlength=count + 1)
    inside = voxels > 0  # a body without an inner voxel has no spread
    many = np.maximum(voxels, 1)
    mean = np.bincount(labels, values, minlength=count + 1) / many
    spread = np.sqrt(np.bincount(labels, (values - mean[labels]) ** 2, minlength=count + 1) / many)
    good = inside & (spread <= settings.maximum_spread_hu)
    good[0] = False
    even: NDArray[np.bool_] = good[bodies]
    return even


def _organs(organs: OrganMap) -> NDArray[np.bool_]:
    """Everything labelled but the lungs, with its margin."""
    from scipy import ndimage

    near = organs.mask(*(name for name in _WITH_MARGIN if name in organs.structures))
    found: NDArray[np.bool_] = ndimage.binary_dilation(near)
    return found | organs.mask(*(name for name in _WITHOUT_MARGIN if name in organs.structures))


def _amount(
    hu: NDArray[np.float32], lung: NDArray[np.bool_], bone: NDArray[np.bool_], settings: PleuralEffusionSettings
) -> NDArray[np.float32]:
    """How much of each voxel is fluid, if it lies at the fluid's border: 0 … 1.

    Towards the lung the density says it. Towards soft tissue, fat and bone a voxel is fluid on the nearer side of half
    way.
    """
    from scipy import ndimage

    water = 0.5 * (max(settings.lowest_hu, 0.0) + 20.0)
    beside_lung = ndimage.binary_dilation(lung | (hu < -500.0), iterations=2)
    from_lung = np.clip((hu - _LUNG_HU) / (water - _LUNG_HU), 0.0, 1.0)
    from_fat = hu >= 0.5 * (_FAT_HU + water)
    amount = np.where(beside_lung, from_lung, from_fat)
    densest = np.where(ndimage.binary_dilation(bone), 0.5 * (_RIB_HU + water), settings.highest_hu)
    result: NDArray[np.float32] = np.where(hu <= densest, amount, 0.0).astype(np.float32)
    return result


def _region(
    wet: NDArray[np.bool_],
    smooth: NDArray[np.float32],
    depth_mm: NDArray[np.float32],
    allowed_mm: NDArray[np.float32],
    cage: RibCage,
    *,
    prone: bool,
) -> NDArray[np.bool_]:
    """Return the bodies of fluid that are thick enough to be real and reach into the dependent part of the chest."""
    from scipy import ndimage

    near_mm = np.minimum(allowed_mm, _CORE_OUTSIDE_MM)
    within = depth_mm > -near_mm
    # a sheet where lung meets muscle, or fat does, is one half-filled voxel thick
    core = ndimage.binary_opening(wet & within, np.ones((2, 2, 2)))
    labels, count = ndimage.label(core)
    rows = np.flatnonzero((depth_mm > 0.0).any(axis=(0, 2)))
    if count == 0 or not rows.size:
        return np.zeros(wet.shape, dtype=bool)
    reach = round(_DEPENDENT_SHARE * (rows[-1] - rows[0]))
    dependent = slice(0, rows[0] + reach) if prone else slice(rows[-1] - reach, None)
    sizes = np.bincount(labels.ravel())
    low = np.bincount(labels[:, dependent].ravel(), minlength=count + 1)
    at_wall = np.bincount(labels[depth_mm < _AT_WALL_MM], minlength=count + 1)
    in_voxels = 1.0 / cage.volume.voxel_ml
    good = (sizes >= _CORE_ML * in_voxels) & ((low >= 0.5 * sizes) | (low >= _MUCH_ML * in_voxels))
    good &= at_wall >= _AT_WALL_SHARE * sizes
    good[0] = False
    kept: NDArray[np.bool_] = good[labels]
    if not kept.any():
        return kept
    grown = ndimage.binary_dilation(kept, iterations=2, mask=wet & within)
    # into the gutters goes only what is as dense as the rest
    gutters = wet & (np.abs(smooth - float(np.median(smooth[kept]))) <= _ALIKE_HU) & (depth_mm > -allowed_mm)
    return np.asarray(ndimage.binary_dilation(grown, iterations=6, mask=grown | gutters))


def _touches_bottom(part: NDArray[np.float32], cage: RibCage, anatomy: Anatomy) -> bool:
    """Whether more than 3 cm² of fluid lie in the scan's lowest slices."""
    lowest_mm = cage.volume.affine[2, 3]
    scan_end_mm = anatomy.organs.affine[2, 3]
    if lowest_mm > scan_end_mm + 9.0:
        return False
    spacing = cage.volume.spacing_mm
    return float(part[:2].max(axis=0).sum()) * spacing[1] * spacing[2] > 300.0


def _grade(ml: float, settings: PleuralEffusionSettings) -> str:
    reached = [limit for limit in (settings.finding_ml, settings.urgent_ml) if ml >= limit]
    return f"at or above {max(reached):g} mL" if reached else f"below {settings.finding_ml:g} mL"


def _outcome(scan: Scan, anatomy: Anatomy, fluid: _Fluid, settings: PleuralEffusionSettings) -> Outcome:
    findings = [side for side in _SIDES if fluid.ml[side] >= settings.finding_ml]
    largest = max(fluid.ml.values())
    urgency = Urgency.ROUTINE
    if findings:
        urgency = Urgency.URGENT if largest >= settings.urgent_ml else Urgency.SOON
    evidence = _evidence(scan, fluid, settings)
    caveats = []
    if not scan.acquisition.patient_position:
        caveats.append("the header does not say how the patient lay: taken as lying on the back")
    if any("top" in cut_off(anatomy.organs, f"lung_{side}") for side in _SIDES):
        caveats.append("the tops of the lungs are not in the scan")
    words = ", ".join(f"{side} {fluid.ml[side]:.0f} mL ({_grade(fluid.ml[side], settings)})" for side in _SIDES)
    return Outcome(
        status=Status.FINDING if findings else Status.NORMAL,
        summary=f"pleural fluid: {words}",
        urgency=urgency,
        measurements=tuple(Measurement(f"pleural_effusion_{side}_ml", fluid.ml[side], "mL") for side in _SIDES),
        findings=tuple(_finding(fluid, side, evidence.key_slice) for side in findings),
        evidence=evidence,
        caveats=tuple(caveats),
    )


def _finding(fluid: _Fluid, side: str, key_slice: int) -> Finding:
    slices, rows, columns = fluid.cage.volume.shape
    everything = slice(0, slices), slice(0, rows), slice(0, columns)
    box_mm = corners_mm(fluid.cage.volume, everything, fluid.filled[side] > 0.5)
    return Finding("SCT:60046008", "Pleural effusion", f"lung_{side}", box_mm, key_slice)


def _evidence(scan: Scan, fluid: _Fluid, settings: PleuralEffusionSettings) -> Evidence:
    from scipy import ndimage

    both = np.maximum(fluid.filled["left"], fluid.filled["right"])
    area = both.sum(axis=(1, 2))
    if not area.any():  # nothing found: the lungs' lower third is where it would be
        lung = fluid.cage.organs.mask("lung_left", "lung_right")
        slices = np.flatnonzero(lung.any(axis=(1, 2)))
        at = int(slices[len(slices) // 3])
    else:
        at = int(np.argmax(area))
    working = fluid.cage.volume
    middle = working.to_patient_mm(np.array([at, working.shape[1] / 2, working.shape[2] / 2]))
    key_slice = int(np.clip(np.rint(scan.volume.to_index(middle)[0]), 0, scan.volume.shape[0] - 1))
    to_working = np.linalg.inv(working.affine) @ scan.volume.affine
    rows, columns = np.indices(scan.volume.shape[1:])
    index = np.stack([np.full(rows.shape, key_slice), rows, columns, np.ones(rows.shape)])
    places = np.tensordot(to_working[:3], index, axes=1)
    mask = ndimage.map_coordinates(both, places, order=1, mode="nearest") >= 0.5
    lines = tuple(
        f"{side}: {fluid.ml[side]:.0f} mL   (finding from {settings.finding_ml:g} mL, urgent from "
        f"{settings.urgent_ml:g} mL)"
        for side in _SIDES
    )
    return Evidence(key_slice, mask, None, (-160.0, 240.0), lines)


SCREENING = PleuralEffusionScreening()
