"""What is true of the phantom, told from its geometry and its chosen values and never from a screening's own code.

Volumes are counted on the phantom's own painting grid (1–2.5 mm, one point per voxel against continuous shapes), which
is independent of the scan's pixels; diameters, heights and densities are the numbers the shapes were built from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.phantom.frame import Frame
from appliance.phantom.options import VERTEBRAE
from appliance.phantom.resolution import softened
from appliance.phantom.tissues import Tissue

if TYPE_CHECKING:
    from appliance.phantom.canvas import Canvas
    from appliance.phantom.lesions import Lesion
    from appliance.phantom.options import PhantomOptions

_ORGANS = {
    "lung_left": (Tissue.LUNG_LEFT, Tissue.LUNG_VESSEL_LEFT),
    "lung_right": (Tissue.LUNG_RIGHT, Tissue.LUNG_VESSEL_RIGHT),
    "airways": (Tissue.AIRWAY_LUMEN,),
    "heart": (Tissue.HEART,),
    "aorta": (Tissue.AORTA,),
    "liver": (Tissue.LIVER,),
    "spleen": (Tissue.SPLEEN,),
    "kidney_left": (Tissue.KIDNEY_LEFT,),
    "kidney_right": (Tissue.KIDNEY_RIGHT,),
    "pancreas": (Tissue.PANCREAS,),
    "bone": (Tissue.BONE, *range(Tissue.VERTEBRA_FIRST, Tissue.VERTEBRA_LAST + 1)),
}
# Lowest and highest z on the reference patient.
_STRETCHES = {
    "heart": (0.0, 125.0),
    "ascending_aorta": (97.0, 146.0),
    "descending_aorta": (0.0, 150.0),
    "abdominal_aorta": (-182.0, -55.0),
    "pulmonary_trunk": (90.0, 150.0),
    "liver": (-135.0, 25.0),
    "kidneys": (-162.0, -35.0),
}


@dataclass(frozen=True, slots=True)
class VertebraTruth:
    """One vertebral body: heights at its front, middle and back, its density, and where it is."""

    name: str
    anterior_height_mm: float
    middle_height_mm: float
    posterior_height_mm: float
    trabecular_hu: float
    centre_mm: tuple[float, float, float]
    whole_in_scan: bool


@dataclass(frozen=True, slots=True)
class LesionTruth:
    """One digitised coronary plaque."""

    vessel: str
    centre_mm: tuple[float, float, float]
    peak_hu: float
    area_mm2: float
    slices: int
    agatston_score: float
    volume_mm3: float


@dataclass(frozen=True, slots=True)
class Truth:
    """Known answers of one phantom scan.

    Attributes
    ----------
    volumes_ml
        Of each organ, as far as it lies in the scan. Lungs include their vessels and exclude airways and effusion;
        the aorta ends at its bifurcation.
    lungs_whole
        Whether both lungs lie in the scan from apex to base.
    covered
        Whether the stretch that a measurement needs lies in the scan: ``heart``, ``ascending_aorta``,
        ``descending_aorta``, ``abdominal_aorta``, ``pulmonary_trunk``, ``liver``, ``kidneys``.
    laa950_percent
        Part of the lungs (both; vessels included, airways excluded) below −950 HU in the scan before noise.
    agatston_score
        Sum over plaques of slices × area × weight × spacing / 3 mm, where area counts the pixels whose centre lies in
        the plaque, the weight is 1/2/3/4 from 130/200/300/400 HU, and every pixel of a plaque has its peak density.
        It holds exactly for the noise-free scan on this pixel grid.
    diameters_mm
        Across the centreline, outer wall to outer wall: ascending, descending and abdominal aorta, pulmonary trunk.
    hu
        Chosen mean densities.
    effusion_left_ml, effusion_right_ml
        Counted volume of fluid.
    mid_l3_areas_cm2
        Muscle, subcutaneous, visceral and intermuscular fat in the plane through the middle of L3; ``None`` when the
        scan does not reach it.
    """

    volumes_ml: dict[str, float]
    lungs_whole: bool
    covered: dict[str, bool]
    laa950_percent: float | None
    agatston_score: float
    calcium_volume_mm3: float
    lesions: tuple[LesionTruth, ...]
    diameters_mm: dict[str, float]
    hu: dict[str, float]
    vertebrae: tuple[VertebraTruth, ...]
    wedge_height_loss_percent: dict[str, float]
    kidney_stone_diameter_mm: float
    kidney_stone_centre_mm: tuple[float, float, float] | None
    effusion_left_ml: float
    effusion_right_ml: float
    mid_l3_areas_cm2: dict[str, float] | None
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the truth as plain JSON values."""
        return asdict(self)


def plain_options(options: PhantomOptions) -> dict[str, Any]:
    """Return options as JSON values in a stable order."""
    values = asdict(options)
    values["missing_organs"] = sorted(options.missing_organs)
    return values


def tell_truth(options: PhantomOptions, canvas: Canvas, lesions: tuple[Lesion, ...]) -> Truth:
    """Tell what is true of a painted patient.

    Parameters
    ----------
    options
        What was asked for.
    canvas
        The patient as painted, before any noise or sampling by the scanner.
    lesions
        The digitised plaques.
    """
    frame = Frame(options)
    grid = canvas.grid
    low, high = options.coverage_mm
    seen = canvas.seen
    tissue = canvas.tissue[seen]
    counts = np.bincount(tissue.ravel(), minlength=256) * grid.voxel_ml
    volumes = {name: round(float(counts[list(labels)].sum()), 3) for name, labels in _ORGANS.items()}
    return Truth(
        volumes_ml=volumes,
        lungs_whole=low < -80.0 * frame.sz and high > 244.0 * frame.sz,
        covered={
            name: low <= first * frame.sz and last * frame.sz <= high for name, (first, last) in _STRETCHES.items()
        },
        laa950_percent=_laa950(canvas, seen),
        agatston_score=round(sum(lesion.agatston_score for lesion in lesions), 6),
        calcium_volume_mm3=round(sum(lesion.volume_mm3 for lesion in lesions), 6),
        lesions=tuple(
            LesionTruth(
                lesion.plaque.vessel,
                lesion.centre_mm,
                lesion.plaque.peak_hu,
                lesion.area_mm2,
                lesion.slices,
                lesion.agatston_score,
                lesion.volume_mm3,
            )
            for lesion in lesions
        ),
        diameters_mm={
            "ascending_aorta": options.ascending_aorta_diameter_mm,
            "descending_aorta": options.descending_aorta_diameter_mm,
            "abdominal_aorta": options.abdominal_aorta_diameter_mm,
            "pulmonary_trunk": options.pulmonary_trunk_diameter_mm,
        },
        hu=_densities(options),
        vertebrae=_vertebrae(options, frame, low, high),
        wedge_height_loss_percent=(
            {}
            if options.wedge_fracture is None
            else {options.wedge_fracture.vertebra: options.wedge_fracture.height_loss_percent}
        ),
        kidney_stone_diameter_mm=options.kidney_stone_diameter_mm,
        kidney_stone_centre_mm=_stone(options, canvas, frame),
        effusion_left_ml=round(float(counts[Tissue.EFFUSION_LEFT]), 3),
        effusion_right_ml=round(float(counts[Tissue.EFFUSION_RIGHT]), 3),
        mid_l3_areas_cm2=_areas(canvas, frame, low, high),
        options=plain_options(options),
    )


def _laa950(canvas: Canvas, seen: slice) -> float | None:
    tissue = canvas.tissue[seen]
    parenchyma = (tissue == Tissue.LUNG_LEFT) | (tissue == Tissue.LUNG_RIGHT)
    vessels = (tissue == Tissue.LUNG_VESSEL_LEFT) | (tissue == Tissue.LUNG_VESSEL_RIGHT)
    lung = int(np.count_nonzero(parenchyma)) + int(np.count_nonzero(vessels))
    if lung == 0:
        return None
    both = parenchyma | vessels
    rows, columns = np.flatnonzero(both.any(axis=(0, 2))), np.flatnonzero(both.any(axis=(0, 1)))
    box = slice(max(rows[0] - 3, 0), rows[-1] + 4), slice(max(columns[0] - 3, 0), columns[-1] + 4)
    image = softened(canvas.hu[:, box[0], box[1]], canvas.grid, canvas.blur_mm)[seen]
    below = int(np.count_nonzero((image < -950.0) & both[:, box[0], box[1]]))  # LAA-950
    return round(100.0 * below / lung, 4)


def _densities(options: PhantomOptions) -> dict[str, float]:
    enhanced = 1.0 if options.contrast_in_image else 0.0
    return {
        "blood": options.blood_hu + 150.0 * enhanced,
        "liver": options.liver_hu + 50.0 * enhanced,
        "spleen": options.spleen_hu + 70.0 * enhanced,
        "muscle": options.muscle_hu,
        "fat": options.fat_hu,
        "kidney": 32.0 + 110.0 * enhanced,
        "effusion": 12.0,
        "kidney_stone": options.kidney_stone_hu,
    }


def _vertebrae(options: PhantomOptions, frame: Frame, low: float, high: float) -> tuple[VertebraTruth, ...]:
    rows = []
    by_name = {body.name: body for body in frame.vertebrae()}
    for name in VERTEBRAE:
        body = by_name[name]
        loss = 0.0
        if options.wedge_fracture is not None and options.wedge_fracture.vertebra == name:
            loss = options.wedge_fracture.height_loss_percent / 100.0
        # Each endplate is dished by 1 mm in the middle.
        middle = body.height_mm * (1.0 - 0.5 * loss) - 2.0
        reach = 0.5 * body.height_mm + abs(body.lean) * body.half_depth_mm
        rows.append(
            VertebraTruth(
                name,
                round(body.height_mm * (1.0 - loss), 4),
                round(middle, 4),
                round(body.height_mm, 4),
                options.trabecular(name),
                (0.0, body.y_mm, body.z_mm),
                low < body.z_mm - reach and body.z_mm + reach < high,
            )
        )
    return tuple(rows)


def _stone(options: PhantomOptions, canvas: Canvas, frame: Frame) -> tuple[float, float, float] | None:
    from appliance.phantom.abdomen import AbdomenPainter

    if options.kidney_stone_diameter_mm <= 0.0 or f"kidney_{options.kidney_stone_side}" in options.missing_organs:
        return None
    z, y, x = AbdomenPainter(canvas, frame).stone_centre()
    return x, y, z


def _areas(canvas: Canvas, frame: Frame, low: float, high: float) -> dict[str, float] | None:
    body = next(b for b in frame.vertebrae() if b.name == "L3")
    if not low < body.z_mm < high:
        return None
    grid = canvas.grid
    plane = canvas.tissue[round((body.z_mm - grid.origin_mm[0]) / grid.spacing_mm[0])]
    trunk = np.abs(grid.axis(2)) < 1.04 * float(frame.skin_outline(np.array([body.z_mm], dtype=np.float32))[2][0])
    counts = np.bincount(plane[:, trunk].ravel(), minlength=256) * grid.spacing_mm[1] * grid.spacing_mm[2] / 100.0
    return {
        "muscle": round(float(counts[Tissue.MUSCLE]), 3),
        "subcutaneous_fat": round(float(counts[Tissue.SUBCUTANEOUS_FAT]), 3),
        "visceral_fat": round(float(counts[Tissue.VISCERAL_FAT]), 3),
        "intermuscular_fat": round(float(counts[Tissue.INTERMUSCULAR_FAT]), 3),
    }
