"""The guards that every screening shares: calibration, noise, metal, and whether the scan is really without contrast.

They look at the image itself, through the organ map, and never at one screening's question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.structures import spoken
from appliance.reasons import Reason, ReasonCode
from appliance.scan import ContrastTag

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Scan

# Air is −1000 HU by definition; a scanner in service holds it within a few HU, and scatter beside a patient widens
# that: in the development set it reads −1011 to −992. A scale shifted by −30 HU reads about −1024, the end of most
# scanners' scale.
_AIR_HU = -1000.0
_AIR_TOLERANCE_HU = 15.0
# Median of the soft tissue between the lungs, a little fat included: 28 to 41 HU in the six plain chests of the
# development set, 66 to 151 HU in its eight enhanced ones. Between the two limits the image is not believed either way.
_PLAIN_BLOOD_HU = (5.0, 55.0)
_ENHANCED_BLOOD_HU = 62.0
# The aorta's blood itself reads 30 to 55 HU without contrast, less in anaemia; its wall and noise widen that.
_PLAIN_AORTA_HU = (15.0, 65.0)
_ENHANCED_AORTA_HU = 80.0
_ENOUGH_VOXELS = 500
# Above this is metal, not bone; a slice with a square centimetre of it is streaked throughout.
_METAL_HU = 2500
_METAL_MM2 = 100.0
_STREAKED_SHARE = 0.2
_SCALE_END_HU = -1020


@dataclass(frozen=True, slots=True)
class ImageJudgement:
    """What the image says of itself.

    Attributes
    ----------
    air_hu
        Most frequent value of air, HU; ``None`` where none was seen.
    blood_hu
        Typical value of the aorta's lumen, or where there is none, of the soft tissue between the lungs, HU.
    contrast
        ``"none"``, ``"given"`` or ``"unknown"``, header and image taken together.
    quality
        Why no number may be taken from this image, or ``None``.
    contrast_reason
        Why this is not a plain scan, or ``None``.
    streaked
        Structure name to the reason why metal in its slices forbids to measure it.
    """

    air_hu: float | None
    blood_hu: float | None
    contrast: str
    quality: Reason | None
    contrast_reason: Reason | None
    streaked: Mapping[str, Reason] = field(default_factory=dict)


def judge(scan: Scan, organs: OrganMap, doubts: Collection[str] = ()) -> ImageJudgement:
    """Look at air, blood and metal.

    Parameters
    ----------
    scan
        The scan.
    organs
        Its organ map, with at least ``body``; more structures give more certainty.
    doubts
        Structures whose part of the map is not believed.
    """
    sampled = sample_hu(scan, organs)
    outside = _outside_air(scan, sampled, organs)
    airway = _airway_air(sampled, organs)
    air_hu = _peak(outside) if outside.size >= _ENOUGH_VOXELS else _peak(airway) if airway.size >= 50 else None
    aorta_hu = None if "aorta" in doubts else _aorta(sampled, organs)
    blood_hu = _blood(sampled, organs) if aorta_hu is None else aorta_hu
    limits = (*_PLAIN_BLOOD_HU, _ENHANCED_BLOOD_HU) if aorta_hu is None else (*_PLAIN_AORTA_HU, _ENHANCED_AORTA_HU)
    contrast, contrast_reason = _contrast(scan.acquisition.contrast_tag, blood_hu, limits)
    streaked = _streaked(sampled, organs)
    return ImageJudgement(air_hu, blood_hu, contrast, _air_reason(air_hu), contrast_reason, streaked)


def airway_noise_hu(scan: Scan, organs: OrganMap) -> float | None:
    """Measure noise as the spread of air inside the large airways, at the scan's own resolution.

    Walls and secretions only ever make air look denser, so the spread is taken towards lower values: median minus the
    16th percentile, which is the standard deviation of a normal distribution. Where the scale ends there (−1024 HU on
    most scanners), it is taken towards higher values instead.

    Returns
    -------
    float or None
        Standard deviation, HU; ``None`` where too little airway is seen.
    """
    from appliance.anatomy.native import native_mask

    if "airways" not in organs.structures:
        return None
    box, lumen = native_mask(organs, scan.volume, "airways", margin_mm=-3.0)
    values = scan.volume.hu[box][lumen]
    values = values[values < -800]
    if values.size < _ENOUGH_VOXELS:
        return None
    low, middle, high = np.percentile(values, (16.0, 50.0, 84.0))
    return float(high - middle if low <= _SCALE_END_HU else middle - low)


def sample_hu(scan: Scan, organs: OrganMap) -> NDArray[np.int16]:
    """Take the scan's voxel nearest to each voxel of the organ map, noise and all.

    Returns
    -------
    ndarray
        int16, shape of the organ map; −1024 where the map reaches beyond the scan.
    """
    volume = scan.volume
    to_native = np.linalg.inv(volume.affine) @ organs.affine
    steps = to_native[:3, :3]
    result = np.full(organs.labels.shape, -1024, dtype=np.int16)
    axes = [np.arange(size, dtype=np.float32) for size in organs.labels.shape]
    in_plane = (
        steps[:, 1, None, None] * axes[1][None, :, None] + steps[:, 2, None, None] * axes[2][None, None, :]
    ) + to_native[:3, 3, None, None]
    shape = np.asarray(volume.shape)[:, None, None]
    for index in range(organs.labels.shape[0]):
        nearest = np.rint(in_plane + steps[:, 0, None, None] * index).astype(np.int32)
        inside = ((nearest >= 0) & (nearest < shape)).all(axis=0)
        result[index][inside] = volume.hu[tuple(nearest[:, inside])]
    return result


def _outside_air(scan: Scan, sampled: NDArray[np.int16], organs: OrganMap) -> NDArray[np.int16]:
    """Return air outside the body, averaged over neighbours so that noise does not pile up at the end of the scale."""
    from scipy import ndimage

    if "body" not in organs.values:
        return np.empty(0, dtype=np.int16)
    steps = max(1, round(12.0 / organs.spacing_mm[1]))
    away = ~ndimage.binary_dilation(organs.labels != 0, iterations=steps) & _reconstructed(scan, organs)
    smooth = ndimage.uniform_filter(sampled.astype(np.float32), size=3)[away]
    # above −850 is the table, a blanket or an arm
    values: NDArray[np.int16] = np.rint(smooth[smooth < -850]).astype(np.int16)
    return values


def _reconstructed(scan: Scan, organs: OrganMap) -> NDArray[np.bool_]:
    """Return where the organ map lies inside the circle that fits into the scan's slices; beyond it scanners pad."""
    volume = scan.volume
    to_native = np.linalg.inv(volume.affine) @ organs.affine
    index = np.indices(organs.labels.shape, dtype=np.float32)
    inside = np.ones(organs.labels.shape, dtype=bool)
    radius = np.zeros(organs.labels.shape, dtype=np.float32)
    for axis, size in enumerate(volume.shape):
        place = np.tensordot(to_native[axis, :3].astype(np.float32), index, axes=1) + np.float32(to_native[axis, 3])
        inside &= (place >= 0) & (place <= size - 1)
        if axis > 0:
            radius += ((place - (size - 1) / 2) / (size / 2)) ** 2
    return inside & (radius < 0.95**2)


def _airway_air(sampled: NDArray[np.int16], organs: OrganMap) -> NDArray[np.int16]:
    from scipy import ndimage

    if "airways" not in organs.structures:
        return np.empty(0, dtype=np.int16)
    values: NDArray[np.int16] = sampled[ndimage.binary_erosion(organs.mask("airways"), iterations=1)]
    return values


def _peak(values: NDArray[np.int16]) -> float:
    counts = np.bincount(values.astype(np.int64) + 1100, minlength=1100)[:1100].astype(np.float64)
    smooth = np.convolve(counts, [1, 2, 3, 4, 5, 4, 3, 2, 1], mode="same")
    return float(np.argmax(smooth) - 1100)


def _air_reason(air_hu: float | None) -> Reason | None:
    if air_hu is None:
        return Reason(ReasonCode.AIR_NOT_CALIBRATED, "no air is visible by which the Hounsfield scale could be checked")
    if abs(air_hu - _AIR_HU) > _AIR_TOLERANCE_HU:
        return Reason(
            ReasonCode.AIR_NOT_CALIBRATED,
            f"air reads {air_hu:.0f} HU; it must lie within {_AIR_TOLERANCE_HU:.0f} HU of −1000",
        )
    return None


def _aorta(sampled: NDArray[np.int16], organs: OrganMap) -> float | None:
    """Median of the aorta's lumen, away from its wall and what may be calcified there."""
    from scipy import ndimage

    if "aorta" not in organs.structures:
        return None
    lumen = ndimage.binary_erosion(organs.mask("aorta"), iterations=max(1, round(5.0 / organs.spacing_mm[1])))
    values = sampled[lumen]
    return float(np.median(values)) if values.size >= _ENOUGH_VOXELS // 2 else None


def _streaked(sampled: NDArray[np.int16], organs: OrganMap) -> dict[str, Reason]:
    """Find the structures of which too much lies in slices with metal."""
    metal_mm2 = np.count_nonzero(sampled > _METAL_HU, axis=(1, 2)) * organs.spacing_mm[1] * organs.spacing_mm[2]
    slices = metal_mm2 >= _METAL_MM2
    found: dict[str, Reason] = {}
    if not slices.any():
        return found
    for name in sorted(organs.structures - {"body", "bone"}):
        mask = organs.mask(name)
        total = int(np.count_nonzero(mask))
        share = np.count_nonzero(mask[slices]) / total if total else 0.0
        if share > _STREAKED_SHARE:
            text = f"{share:.0%} of the {spoken(name)} lies in slices with metal; at most {_STREAKED_SHARE:.0%}"
            found[name] = Reason(ReasonCode.METAL_ARTIFACTS, text)
    return found


def _blood(sampled: NDArray[np.int16], organs: OrganMap) -> float | None:
    """Median of what lies between the lungs and is neither bone, air nor fat: mostly heart and great vessels."""
    from scipy import ndimage

    if not {"lung_left", "lung_right", "bone"} <= organs.structures:
        return None
    left, right = organs.mask("lung_left"), organs.mask("lung_right")
    # columns grow towards the patient's left: right lung somewhere at smaller, left lung at larger columns of a row
    between = np.logical_or.accumulate(right, axis=2) & np.logical_or.accumulate(left[:, :, ::-1], axis=2)[:, :, ::-1]
    between &= organs.labels == organs.values.get("body", 0)
    region = ndimage.binary_erosion(between, iterations=2)
    smooth = ndimage.uniform_filter(sampled.astype(np.float32), size=3)
    values = smooth[region & (smooth > 0.0)]
    return float(np.median(values)) if values.size >= _ENOUGH_VOXELS else None


def _contrast(
    tag: ContrastTag, blood_hu: float | None, limits_hu: tuple[float, float, float]
) -> tuple[str, Reason | None]:
    """Put header and image together; the limits are the lowest and highest plain and the lowest enhanced value."""
    enhanced = blood_hu is not None and blood_hu > limits_hu[2]
    plain = blood_hu is not None and limits_hu[0] <= blood_hu <= limits_hu[1]
    if tag is ContrastTag.GIVEN:
        if plain:
            text = f"the header says contrast was given, but blood reads {blood_hu:.0f} HU as in a plain scan"
            return "unknown", Reason(ReasonCode.CONTRAST_DISAGREES, text)
        return "given", Reason(ReasonCode.CONTRAST_ENHANCED, "the header says that intravenous contrast was given")
    if enhanced:
        said = "that none was given" if tag is ContrastTag.NONE else "nothing about contrast"
        text = f"blood reads {blood_hu:.0f} HU as after contrast, but the header says {said}"
        return "unknown", Reason(ReasonCode.CONTRAST_DISAGREES, text)
    if blood_hu is not None and not plain:
        text = f"blood reads {blood_hu:.0f} HU, neither clearly plain nor clearly enhanced"
        return "unknown", Reason(ReasonCode.CONTRAST_DISAGREES, text)
    if plain or tag is ContrastTag.NONE:
        return "none", None
    return "unknown", None
