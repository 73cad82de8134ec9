"""Labels by rules: body, lungs, airways and bone from Hounsfield units, with "do not know" where a rule may err.

These are not expert labels. Every scan's overlay was looked at (see README.md); the rules carry what was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813  # the name its own manual uses
from PIL import Image, ImageDraw
from scans import NO_TRACHEA, ORAL_CONTRAST
from scipy import ndimage
from scipy.spatial import ConvexHull

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scans import RawScan

    Mask = NDArray[np.bool_]

BACKGROUND, BODY, LUNG_LEFT, LUNG_RIGHT, AIRWAYS, BONE, IGNORE = 0, 1, 2, 3, 4, 5, 255


def _distance(mask: Mask, spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Signed distance to the border of the mask in mm, negative inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True))


def _dilate(mask: Mask, radius_mm: float, spacing: tuple[float, float, float]) -> Mask:
    return _distance(mask, spacing) <= radius_mm if mask.any() else mask


def _erode(mask: Mask, radius_mm: float, spacing: tuple[float, float, float]) -> Mask:
    return _distance(mask, spacing) <= -radius_mm if mask.any() else mask


def _open(mask: Mask, radius_mm: float, spacing: tuple[float, float, float]) -> Mask:
    return _dilate(_erode(mask, radius_mm, spacing), radius_mm, spacing) & mask


def _close(mask: Mask, radius_mm: float, spacing: tuple[float, float, float]) -> Mask:
    margin = [int(np.ceil(radius_mm / step)) + 1 for step in spacing]
    padded = np.pad(mask, [(m, m) for m in margin])
    closed = _erode(_dilate(padded, radius_mm, spacing), radius_mm, spacing)
    return closed[tuple(slice(m, -m) for m in margin)] | mask


def _largest(mask: Mask) -> Mask:
    components, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components == sizes.argmax()


def _small(mask: Mask, voxels: float) -> Mask:
    components, _ = ndimage.label(mask)
    sizes = np.bincount(components.ravel())
    return (sizes < voxels)[components] & mask


def _fill_slices(mask: Mask, axis: int = 0) -> Mask:
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(mask, axis, 0)])
    return np.moveaxis(filled, 0, axis)


def body_mask(hu: NDArray[np.int16], spacing: tuple[float, float, float]) -> Mask:
    """Body with everything inside it; table, mattress and loose clothes removed."""
    dense = hu > -250
    # A thin opening parts the body from what it lies on; only then is it safe to fill, slice by slice.
    body = _largest(_open(dense, 2.0, spacing))
    body = _dilate(body, 2.5, spacing) & (hu > -400)
    body = _fill_slices(body)
    # A slice whose thin wall was broken (ribs against the field of view's edge) is mended from its neighbours.
    reach = round(12.0 / spacing[0])
    padded = np.pad(body, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    body = ndimage.binary_closing(padded, np.ones((2 * reach + 1, 1, 1), bool))[reach:-reach]
    # 6 mm: thicker than a table's shell or a blanket's fold that still hangs on, thinner than an arm.
    return _largest(_open(body, 6.0, spacing))


def _discs(air: Mask, body: Mask, spacing: tuple[float, float, float]) -> list[list[tuple[float, float, int, int]]]:
    """Round dark regions per slice that could be a trachea: centre (row, column) in mm and an inner pixel."""
    pixel = spacing[1] * spacing[2]
    found: list[list[tuple[float, float, int, int]]] = []
    for z in range(body.shape[0]):
        found.append([])
        if not body[z].any():
            continue
        columns = np.nonzero(body[z].any(axis=0))[0]
        middle = (columns.min() + columns.max()) / 2
        components, _ = ndimage.label(air[z] & body[z])
        for index, box in enumerate(ndimage.find_objects(components), start=1):
            region = components[box] == index
            area = region.sum() * pixel
            height, width = region.shape[0] * spacing[1], region.shape[1] * spacing[2]
            if not 60 <= area <= 650 or max(height, width) > 2.0 * min(height, width):
                continue
            if area < 0.55 * height * width:
                continue
            row, column = box[0].start + region.shape[0] / 2, box[1].start + region.shape[1] / 2
            if abs(column - middle) * spacing[2] > 45:
                continue
            inner = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
            r, c = np.unravel_index(inner.argmax(), region.shape)
            found[z].append((row * spacing[1], column * spacing[2], box[0].start + int(r), box[1].start + int(c)))
    return found


def _seed_trachea(air: Mask, body: Mask, spacing: tuple[float, float, float]) -> tuple[int, int, int] | None:
    """Find the trachea: the longest upright chain of round dark discs near the middle, at least 30 mm long."""
    discs = _discs(air, body, spacing)
    best: list[tuple[int, int, int]] = []
    for top in range(len(discs) - 1, -1, -1):
        for start in discs[top]:
            chain, here = [(top, start[2], start[3])], start
            for z in range(top - 1, -1, -1):
                near = [d for d in discs[z] if (d[0] - here[0]) ** 2 + (d[1] - here[1]) ** 2 < 5.0**2]
                if not near:
                    break
                here = min(near, key=lambda d: (d[0] - chain[-1][1]) ** 2 + (d[1] - chain[-1][2]) ** 2)
                chain.append((z, here[2], here[3]))
            if len(chain) > len(best):
                best = chain
    if len(best) * spacing[0] < 30:
        return None
    return best[len(best) // 2]


def airway_mask(hu: NDArray[np.int16], body: Mask, spacing: tuple[float, float, float]) -> Mask:
    """Trachea and main bronchi: seeded growth whose threshold rises until it leaks, pruned to wide lumens."""
    empty = np.zeros(hu.shape, bool)
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.6)
    seed = _seed_trachea(smooth < -750, body, spacing)
    if seed is None:
        return empty
    voxel_ml = float(np.prod(spacing)) / 1000
    kept, previous = empty, 0.0
    for threshold in range(-960, -759, 20):
        components, _ = ndimage.label((smooth < threshold) & body)
        if components[seed] == 0:
            continue
        grown = components == components[seed]
        volume = grown.sum() * voxel_ml
        if volume > 150 or (previous > 25 and volume > 1.35 * previous):
            break
        kept, previous = grown, volume
    if not kept.any():
        return empty
    # The lumen's rim is half wall; main bronchi are 8 to 16 mm wide with it: what vanishes here is a small branch.
    kept = _dilate(kept, 2.6, spacing) & (hu < -500) & body
    core = _erode(kept, 1.6, spacing)
    core &= ~_small(core, 0.1 / voxel_ml)
    return _largest(_dilate(core, 3.6, spacing) & kept)


def lung_masks(
    hu: NDArray[np.int16], body: Mask, airways: Mask, spacing: tuple[float, float, float]
) -> tuple[Mask, Mask]:
    """Left and right lung with their vessels, without the central airways."""
    voxel_ml = float(np.prod(spacing)) / 1000
    inside = _erode(body, 4.0, spacing) | (_dilate(airways, 4.0, spacing) & body)
    air = (ndimage.gaussian_filter(hu.astype(np.float32), 0.5) < -450) & inside & ~_dilate(airways, 3.0, spacing)
    empty = np.zeros(hu.shape, bool)
    # Bowel and lung may touch through a thin diaphragm: told apart by their eroded cores.
    core = _erode(air, 2.6, spacing)
    components, count = ndimage.label(core)
    sizes = np.bincount(components.ravel(), minlength=count + 1) * voxel_ml
    sizes[0] = 0
    bottom, top = (set(np.unique(components[ends]).tolist()) for ends in (slice(2), slice(-2, None)))
    verdict = np.zeros(count + 1, np.uint8)
    for index, box in enumerate(ndimage.find_objects(components), start=1):
        if sizes[index] < 4:
            continue
        values = hu[box][components[box] == index]
        # Parenchyma holds blood; inside bowel gas there is nothing grey.
        grey = float(((values > -940) & (values < -550)).mean())
        # A scan may end in the bases of the lungs; where it ends below them, bowel lies.
        large = sizes[index] > 300 or (index in top and sizes[index] > 8) or (index in bottom and sizes[index] > 60)
        verdict[index] = 1 if grey > 0.3 and large else 2
    nearest = ndimage.distance_transform_edt(
        verdict[components] == 0, sampling=spacing, return_distances=False, return_indices=True
    )
    accepted = verdict[components] == 1
    lungs = air & (verdict[components][tuple(nearest)] == 1)
    components, count = ndimage.label(lungs)
    # A pocket of bowel gas too small for a core of its own must not follow the nearest lung.
    held = np.zeros(count + 1, bool)
    held[np.unique(components[accepted])] = True
    lungs &= held[components]
    if not lungs.any():
        return empty, empty
    left, right = _split_sides(lungs, body, spacing)
    sides = []
    for side, other in ((left, right), (right, left)):
        closed = _close(side, 7.0, spacing)
        closed = _fill_slices(closed) & body & ~other & ~airways
        sides.append(closed)
    both = sides[0] & sides[1]
    return sides[0] & ~both, sides[1] & ~both


def _split_sides(lungs: Mask, body: Mask, spacing: tuple[float, float, float]) -> tuple[Mask, Mask]:
    """Tell left from right even where the lungs touch at the anterior or posterior junction line."""
    voxel_ml = float(np.prod(spacing)) / 1000
    columns = np.nonzero(body.any(axis=(0, 1)))[0]
    middle = (columns.min() + columns.max()) / 2
    for radius in (0.0, 1.5, 2.5, 3.5, 5.0, 7.0, 9.0, 12.0):
        core = lungs if radius == 0 else _erode(lungs, radius, spacing)
        components, count = ndimage.label(core)
        sizes = np.bincount(components.ravel(), minlength=count + 1) * voxel_ml
        sizes[0] = 0
        markers = np.zeros(lungs.shape, np.int32)
        crossing = False
        total = {1: 0.0, 2: 0.0}
        for index, box in enumerate(ndimage.find_objects(components), start=1):
            region = components[box] == index
            where = box[2].start + np.nonzero(region)[2]
            left_share = float((where > middle).mean())
            if 0.12 < left_share < 0.88 and sizes[index] > 100:
                crossing = True
                break
            side = 1 if left_share > 0.5 else 2
            markers[box][region] = side
            total[side] += sizes[index]
        if not crossing:
            break
    if radius == 0.0:
        return markers == 1, markers == 2
    nearest = ndimage.distance_transform_edt(
        markers == 0, sampling=spacing, return_distances=False, return_indices=True
    )
    side = markers[tuple(nearest)]
    return lungs & (side == 1), lungs & (side == 2)


def bone_mask(
    hu: NDArray[np.int16], body: Mask, lungs: Mask, spacing: tuple[float, float, float], *, contrast: bool, oral: bool
) -> tuple[Mask, Mask]:
    """Bone with its marrow, and the voxels about which the rule says nothing.

    Returns
    -------
    bone, unsure
        ``unsure`` holds what is bright but may be contrast, calcified vessel, metal or oral contrast.
    """
    voxel_ml = float(np.prod(spacing)) / 1000
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.6)
    low, high = (180, 300) if contrast else (135, 220)
    bright = (smooth > low) & body
    components, count = ndimage.label(bright)
    peak = ndimage.maximum(smooth, components, np.arange(count + 1))
    sizes = np.bincount(components.ravel(), minlength=count + 1) * voxel_ml
    wanted = (peak > high) & (sizes > 1.0)
    wanted[0] = False
    candidate = wanted[components]
    unsure = bright & ~candidate
    if contrast or oral:
        doubtful = _doubtful(lungs, body, spacing, oral=oral)
        unsure |= bright & doubtful
        candidate &= ~doubtful
    shell = _close(candidate, 4.0, spacing) & body & ~lungs
    filled = shell | _fill_marrow(shell, hu, spacing)
    filled = _open(filled, 1.0, spacing) | candidate
    metal = _dilate(hu > 2400, 8.0, spacing)
    unsure = (_dilate(unsure, 2.0, spacing) | metal) & ~filled
    return filled & body & ~lungs, unsure & body & ~lungs


def _doubtful(lungs: Mask, body: Mask, spacing: tuple[float, float, float], *, oral: bool) -> Mask:
    """Where a bright voxel of an enhanced scan may be blood or bowel.

    Around the chest, what lies outside the lungs' outline is wall and shoulder blade, hence bone when bright;
    everything else, and every level without much lung, is left open. With oral contrast only, the front of the
    levels below the lungs is left open.
    """
    doubtful = np.ones(body.shape, bool)
    areas = lungs.sum(axis=(1, 2))
    for z in range(body.shape[0]):
        if not body[z].any():
            continue
        if oral:
            rows = np.nonzero(body[z].any(axis=1))[0]
            inner = ndimage.distance_transform_edt(body[z], sampling=spacing[1:]) > 28
            inner[int(rows.min() + 0.62 * (rows.max() - rows.min())) :] = False
            doubtful[z] = inner
        elif areas[z] > 0.5 * areas.max() > 0:
            points = np.argwhere(lungs[z])
            outline = _polygon(points[ConvexHull(points).vertices], lungs[z].shape)
            doubtful[z] = ndimage.distance_transform_edt(~outline, sampling=spacing[1:]) < 3.0
    return doubtful


def _polygon(corners: NDArray[np.int64], shape: tuple[int, int]) -> Mask:
    picture = Image.new("1", shape[::-1])
    ImageDraw.Draw(picture).polygon([(int(c), int(r)) for r, c in corners], fill=1)
    return np.asarray(picture)


def _fill_marrow(shell: Mask, hu: NDArray[np.int16], spacing: tuple[float, float, float]) -> Mask:
    """Fill what a cortex encloses in any of the three planes, but not the spinal canal."""
    added = np.zeros(shell.shape, bool)
    for axis in range(3):
        step = [spacing[i] for i in range(3) if i != axis]
        pixel = step[0] * step[1]
        for index in range(shell.shape[axis]):
            plane = np.take(shell, index, axis)
            if not plane.any():
                continue
            holes = ndimage.binary_fill_holes(plane) & ~plane
            components, count = ndimage.label(holes)
            if count == 0:
                continue
            values = np.take(hu, index, axis)
            labels = np.arange(1, count + 1)
            areas = ndimage.sum_labels(holes, components, labels) * pixel
            means = ndimage.mean(values, components, labels)
            # Cord and fluid lie at 0 to 45 HU; marrow is brighter, or, where it is fat, darker.
            marrow = (areas < 1500) & ((means > 55) | ((means < -15) & (means > -140)) | (areas < 40))
            fill = np.concatenate([[False], marrow])[components]
            selector: list[slice | int] = [slice(None)] * 3
            selector[axis] = index
            added[tuple(selector)] |= fill
    return added


def _chest(lungs: Mask) -> Mask:
    """Levels at which there is much lung: gas below them is bowel's, and a lesson."""
    areas = lungs.sum(axis=(1, 2))
    return np.broadcast_to((areas > 0.4 * max(1, areas.max()))[:, None, None], lungs.shape)


def _central_gas(hu: NDArray[np.int16], body: Mask, spacing: tuple[float, float, float]) -> Mask:
    """Small islands of gas near the middle: bronchi of a scan whose trachea the rule did not find."""
    columns = np.nonzero(body.any(axis=(0, 1)))[0]
    middle = (columns.min() + columns.max()) / 2
    central = np.zeros(hu.shape, bool)
    near = np.abs(np.arange(hu.shape[2]) - middle) * spacing[2] < 45
    for z in range(hu.shape[0]):
        gas = (hu[z] < -600) & body[z]
        central[z] = _small(gas, 900 / (spacing[1] * spacing[2])) & near
    return ndimage.binary_dilation(central, np.ones((1, 3, 3), bool))


def _apply_own_labels(labels: NDArray[np.uint8], scan: RawScan) -> None:
    """Take over what a source's own label map says, and leave open where it and the rules differ."""
    own = scan.labels
    if own is None:
        return
    if scan.name.startswith("totalsegmentator"):
        bone = ((own >= 25) & (own <= 50)) | ((own >= 69) & (own <= 78)) | ((own >= 92) & (own <= 115))
        labels[(own == 10) | (own == 11)] = LUNG_LEFT
        labels[(own >= 12) & (own <= 14)] = LUNG_RIGHT
        differ = ((labels == BONE) & ~bone) | ((labels == BODY) & bone)
        labels[differ] = IGNORE
    else:
        bone = (own == 299) | (own == 600) | ((own >= 409) & (own <= 505)) | ((own >= 686) & (own <= 692))
        soft = (own > 0) & ~bone & (own < 560)
        labels[soft & (labels != 0)] = BODY
        labels[bone] = BONE
        # The atlas does not hold every rib and process.
        labels[(scan.hu > 130) & (labels == BODY) & ~soft] = IGNORE


def rule_labels(scan: RawScan) -> NDArray[np.uint8]:
    """Label one scan at its own resolution; see the module's constants for the values."""
    spacing = scan.spacing_mm
    body = body_mask(scan.hu, spacing)
    airways = np.zeros(scan.hu.shape, bool)
    if not scan.name.startswith(NO_TRACHEA):
        airways = airway_mask(scan.hu, body, spacing)
    left, right = lung_masks(scan.hu, body, airways, spacing)
    gas = (scan.hu < -600) & _chest(left | right)
    bone, unsure = bone_mask(
        scan.hu,
        body,
        left | right | airways,
        spacing,
        contrast=scan.contrast,
        oral=scan.name.startswith(ORAL_CONTRAST),
    )
    labels = np.zeros(scan.hu.shape, np.uint8)
    labels[body] = BODY
    labels[unsure] = IGNORE
    # Bronchi beyond the airways' ends, gullet gas, and what the lungs' rule left over.
    labels[gas & body] = IGNORE
    labels[bone] = BONE
    labels[left], labels[right], labels[airways] = LUNG_LEFT, LUNG_RIGHT, AIRWAYS
    if not airways.any():
        labels[_central_gas(scan.hu, body, spacing) & (left | right)] = IGNORE
    _apply_own_labels(labels, scan)
    return labels
