"""Heart, aorta and pulmonary trunk from hand-made contours, their borders refined by Hounsfield units.

Where hand and picture disagree, or where the picture shows no border, a voxel is marked "do not know" (255).

python chest.py ../../../../shared/data /somewhere/outside/the/repository [scan ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from drawing import Tube, ball_distance, read_drawing, stacked_distance
from prepare import SPACING_MM
from scans import RawScan, read_all
from scipy import ndimage
from spine import bodies_of, vertebral_bodies

from appliance.inference.resample import canonical_grid, resample_to

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORE = 255
#: How far beyond the hand's wall a vessel is looked for, and how far inside the hand is believed whatever the HU, mm.
REACH_MM = 6.0
#: Distance within which the hand may be wrong, mm.
HAND_MM = 2.5
#: Below this a smoothed voxel is lung, fat or air and no vessel, HU.
NOT_TISSUE_HU = -15.0
LUNG_HU = -250.0
#: How far from the last click, across, an aorta may lie that nobody followed further down, mm.
BELOW_MM = 25.0
#: How far above the heart's last outline its auricles may reach, mm.
AURICLES_MM = 16.0
#: Hounsfield units by which enhanced blood must stand out from muscle before it may draw borders.
VISIBLE_BLOOD_HU = 110.0


def _nearest_tube(
    tubes: dict[str, list[Tube]], hu: NDArray[np.int16], spacing: tuple[float, float, float]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.bool_]]]:
    """Distance to each structure's wall (mm, negative inside), and the voxels about its open ends."""
    distances, ends = {}, {}
    for name, parts in tubes.items():
        distance = np.full(hu.shape, 1e3, np.float32)
        about = np.zeros(hu.shape, bool)
        for tube in parts:
            box = tube.box(hu.shape, spacing, REACH_MM + 2)
            wall, beyond = tube.distance(box, spacing)
            near = wall < REACH_MM
            cut = near & (beyond > 0) & (beyond < 5.0)
            about[box] |= cut | (near & (beyond > -2.0) & (beyond <= 0))
            wall = np.where(beyond > 0, np.maximum(wall, beyond + 0.1), wall)
            distance[box] = np.minimum(distance[box], wall)
        # Where one part ends another may go on.
        distances[name], ends[name] = distance, about & (distance > -2.0)
    return distances, ends


def _lumen(
    distance: NDArray[np.float32], own: NDArray[np.bool_], smooth: NDArray[np.float32], *, oversized: float = 220.0
) -> NDArray[np.bool_] | None:
    """Enhanced blood about a tube, or ``None`` when it does not stand out."""
    core = distance < -0.5 * np.abs(distance.min())
    slices = np.nonzero(core.any(axis=(1, 2)))[0]
    blood = np.full(distance.shape[0], np.nan)
    for z in slices:
        blood[z] = np.median(smooth[z][core[z]])
    if np.nanmedian(blood) < VISIBLE_BLOOD_HU:
        return None
    known = np.nonzero(~np.isnan(blood))[0]
    level = np.interp(np.arange(len(blood)), known, ndimage.median_filter(blood[known], 9, mode="nearest"))
    low = np.maximum((level + 45.0) / 2, 75.0)[:, None, None]
    high = (level + oversized)[:, None, None]
    # Brighter than its own blood only inside the hand's wall: that is calcium there, and another vessel elsewhere.
    blood_like = (smooth > low) & ((smooth < high) | (distance < 1.0)) & own & (distance < REACH_MM)
    components, _ = ndimage.label(blood_like)
    held = np.unique(components[core & blood_like])
    return np.isin(components, held[held > 0])


def _vessel(
    hu: NDArray[np.int16],
    distance: NDArray[np.float32],
    others: NDArray[np.float32],
    contours: dict[str, Any],
    *,
    contrast: bool,
) -> NDArray[np.uint8]:
    """Label one vessel: 1 where hand and picture agree, 255 where they do not."""
    label = np.zeros(hu.shape, np.uint8)
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.5)
    tissue = smooth > NOT_TISSUE_HU
    own = distance <= others
    lumen = _lumen(distance, own, smooth) if contrast else None
    if lumen is None:
        label[tissue & own & (distance < HAND_MM)] = IGNORE
        label[tissue & (distance < -HAND_MM / 2) & (own | (distance < -4.0))] = 1
        # Where fat or lung stands right outside, there is no doubt about the border.
        outside = ndimage.binary_dilation(~tissue, iterations=2)
        label[outside & tissue & own & (distance < 0.5)] = 1
        return label
    agreed = (lumen & (distance < 2.5)) | (tissue & (distance < -4.0))
    # A straight border moves out by 0.67 voxels where the smoothed mask is a quarter, by 1.2 where it is an eighth.
    nearness = ndimage.gaussian_filter(agreed.astype(np.float32), 1.0)
    beside = tissue & own & (distance < 3.5)
    label[(lumen & ~agreed) | (tissue & own & (distance < 0.0)) | (beside & (nearness > 0.125))] = IGNORE
    label[agreed | (beside & (nearness > 0.25))] = 1
    below = contours.get("thrombus_below_slice", -1)
    clot = np.zeros(hu.shape, bool)
    clot[: below + 1] = True
    label[clot & tissue & own & (distance < -1.0)] = 1
    return label


def _heart(
    hu: NDArray[np.int16],
    contours: dict[str, Any],
    vessels: list[NDArray[np.uint8]],
    spacing: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Label the heart as it lies in the pericardium, great vessels excluded."""
    signed = stacked_distance(contours["heart"], hu.shape, spacing)
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.5)
    lung = smooth < LUNG_HU
    label = np.zeros(hu.shape, np.uint8)
    label[(signed > -2 * HAND_MM) & ~lung] = IGNORE
    label[(signed < -HAND_MM) & ~lung] = np.where(signed > -2 * HAND_MM, IGNORE, 0)[(signed < -HAND_MM) & ~lung]
    label[(signed > HAND_MM) & ~lung] = 1
    # Against lung the border is plain to see: what tissue the hand holds there is heart.
    beside_lung = ndimage.binary_dilation(lung, iterations=2)
    label[beside_lung & ~lung & (signed > -1.0)] = 1
    label[(signed < -HAND_MM) & beside_lung] = 0
    levels = [int(z) for z in contours["heart"]]
    for end, outward in ((min(levels), -1), (max(levels), 1)):
        for step in (-1, 0, 1, 2, 3, 4):
            z = end + outward * step
            if 0 <= z < len(label):
                plane = np.maximum(signed[z], signed[min(max(end, 0), len(label) - 1)])
                label[z][(plane > -HAND_MM) & ~lung[z]] = IGNORE
    for vessel in vessels:
        label[vessel == 1] = 0
        # About a valve either may be meant.
        label[(vessel == IGNORE) & (signed > -2 * REACH_MM)] = IGNORE
    return label


def chest_labels(scan: RawScan, contours: dict[str, Any]) -> dict[str, NDArray[np.uint8]]:
    """Label what somebody drew in one scan, at the scan's own resolution.

    Returns
    -------
    dict
        ``heart``, ``aorta``, ``pulmonary_trunk``, ``vertebral_bodies``, those of them that were drawn: uint8 in the
        scan's canonical axes, 0 no, 1 yes, 255 do not know.
    """
    spacing = scan.spacing_mm
    if "own" in contours:
        return _own_labels(scan, contours)
    tubes: dict[str, list[Tube]] = {}
    if "aorta" in contours:
        tubes["aorta"] = [Tube.through(part, spacing) for part in _parts(contours["aorta"])]
    if "pulmonary_trunk" in contours:
        tubes["pulmonary_trunk"] = [Tube.through(part, spacing) for part in contours["pulmonary_trunk"].values()]
    distances, ends = _nearest_tube(tubes, scan.hu, spacing)
    beside = ball_distance(contours.get("beside", []), scan.hu.shape, spacing, REACH_MM)
    result: dict[str, NDArray[np.uint8]] = {}
    for name, distance in distances.items():
        others = np.minimum.reduce([beside, *(d for other, d in distances.items() if other != name)])
        label = _vessel(scan.hu, distance, others, contours, contrast=scan.contrast)
        label[ends[name] & (distance < 3.0)] = IGNORE
        result[name] = _without_islands(label)
    if "aorta" in contours and contours.get("aorta_goes_on_below"):
        _doubt_below(result["aorta"], scan.hu, _parts(contours["aorta"]), spacing)
    doubt = ball_distance(contours.get("doubt", []), scan.hu.shape, spacing, 1.0) < 0
    for label in result.values():
        label[doubt] = IGNORE
    if "heart" in contours:
        result["heart"] = _heart(scan.hu, contours, list(result.values()), spacing)
        # Auricles and the mouths of the veins stand beside the great vessels; the outlines do not hold them all.
        near = (beside < 1.0) & (result["heart"] == 0)
        near[max(int(z) for z in contours["heart"]) + int(np.ceil(AURICLES_MM / spacing[0])) :] = False
        result["heart"][near] = IGNORE
    if "spine" in contours:
        result["vertebral_bodies"] = vertebral_bodies(scan.hu, contours, spacing, result.get("aorta"))
    return result


def _doubt_below(
    label: NDArray[np.uint8], hu: NDArray[np.int16], parts: list[list[list[float]]], spacing: tuple[float, float, float]
) -> None:
    """Doubt the middle of the belly below the last click, where the aorta goes on and nobody followed it."""
    z, y, x = (int(v) for v in min(row for part in parts for row in part)[:3])
    rows, columns = (int(BELOW_MM / step) for step in spacing[1:])
    # The lumbar spine curves forward, and the aorta with it.
    block = (slice(0, z), slice(max(0, y - 2 * rows), y + rows), slice(max(0, x - columns), x + columns))
    label[block][hu[block] > NOT_TISSUE_HU] = IGNORE


def _without_islands(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Doubt what is not joined to the largest part, for a vessel is one."""
    components, count = ndimage.label(label == 1)
    if count > 1:
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        label[(components > 0) & (sizes[components] < 0.1 * sizes.max())] = IGNORE
    return label


def _own_labels(scan: RawScan, contours: dict[str, Any]) -> dict[str, NDArray[np.uint8]]:
    """Take the source's own aorta, and of its vertebrae the bodies."""
    if scan.labels is None:
        raise ValueError(f"The contours of {scan.name} name labels of its source, but it came without any.")
    aorta, vertebrae = (np.isin(scan.labels, contours["own"][name]) for name in ("aorta", "vertebrae"))
    return {"aorta": aorta.astype(np.uint8), "vertebral_bodies": bodies_of(vertebrae, contours, scan.spacing_mm)}


def _parts(clicked: Any) -> list[list[list[float]]]:
    """An aorta is one line, or several where the scan or the reader left a gap."""
    return list(clicked.values()) if isinstance(clicked, dict) else [clicked]


def to_grid(label: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Bring a label to the appliance's 3 mm grid: yes by the larger share, unknown where over a quarter is."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    grid = canonical_grid(label.shape, affine, SPACING_MM)
    share = resample_to(label == 1, grid)
    unknown = resample_to(label == IGNORE, grid)
    result = (share > 0.5).astype(np.uint8)
    result[(unknown > 0.25) & (share < 0.6) & (share + unknown > 0.5)] = IGNORE
    return result


def main() -> None:
    """Label every scan that has contours and write one file each."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for scan in read_all(data):
        if sys.argv[3:] and not scan.name.startswith(tuple(sys.argv[3:])):
            continue
        contours = read_drawing(scan.name)
        if contours is None:
            continue
        labels = {name: to_grid(label, scan.spacing_mm) for name, label in chest_labels(scan, contours).items()}
        np.savez_compressed(out / f"{scan.name}.npz", **labels)
        cubic = float(np.prod(SPACING_MM)) / 1000
        print(
            scan.name,
            " ".join(
                f"{name}:{np.count_nonzero(label == 1) * cubic:.0f}ml(?{np.count_nonzero(label == IGNORE) * cubic:.0f})"
                for name, label in labels.items()
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
