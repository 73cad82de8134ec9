"""From a detection network's answer to boxes in the patient: anchors, decoding, selection; numpy only, as on the box.

The detector is RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017) with boxes coded as in Faster
R-CNN (Ren et al., NIPS 2015, section 3.1.2), in three dimensions and with the conventions of MONAI's
``RetinaNetDetector``: corners count from voxel centres, so that they go through the affine as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from appliance.errors import InferenceError
from appliance.inference.corner_grid import resample_for
from appliance.inference.logits import single
from appliance.inference.windows import stepped_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.inference.resample import CanonicalGrid
    from appliance.packs.detection_part import DetectionOutput
    from appliance.packs.manifest import NetworkInput
    from appliance.packs.pack import Pack
    from appliance.scan import Volume

    Floats = NDArray[np.float32]
    Point = tuple[float, float, float]

_CODE = 6
#: No box grows beyond this many times its anchor (MONAI's and torchvision's limit).
_MOST_GROWTH = np.float32(np.log(1000.0 / 16))
#: Least extent of a box in voxels, once it is cut off at the scan's border.
_LEAST_VOXELS = 1.0


@dataclass(frozen=True, slots=True)
class Detection:
    """Something that a detection pack found.

    Attributes
    ----------
    name
        Of :data:`appliance.anatomy.detectables.DETECTABLES`.
    score
        The network's own, 0…1; not a probability that anybody has calibrated.
    box_mm
        Lower and upper corner in the DICOM patient coordinate system (LPS), millimetres.
    """

    name: str
    score: float
    box_mm: tuple[Point, Point]

    @property
    def centre_mm(self) -> Point:
        """Middle of the box, LPS millimetres."""
        (a, b, c), (d, e, f) = self.box_mm
        return (a + d) / 2, (b + e) / 2, (c + f) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes on a grid.

    Attributes
    ----------
    corners
        float32 ``(boxes, 6)``: lower corner, then upper, in voxels along the network's axes.
    scores
        float32 ``(boxes,)``.
    classes
        Index of the class, ``(boxes,)``.
    """

    corners: Floats
    scores: Floats
    classes: NDArray[np.intp]


def detect(
    volume: Volume,
    pack: Pack,
    engine: Engine,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Detection]:
    """Find what a detection pack finds in a scan.

    Parameters
    ----------
    volume
        Hounsfield units with their place in the patient; any orientation.
    pack, engine
        A verified detection pack and its compiled network.
    on_progress
        Called with tiles done and tiles in all.

    Returns
    -------
    list[Detection]
        The highest score first.

    Raises
    ------
    PackError
        The pack does not detect.
    InferenceError
        The network answers with NaN or infinity, or not in the shape that the manifest describes.
    """
    found, grid = detect_on_grid(volume, pack, engine, on_progress=on_progress)
    part = pack.manifest.detection
    names = [item.name for item in part.classes] if part is not None else []
    corners_mm = to_patient(found.corners, grid, pack.manifest.input)
    return [
        Detection(names[kind], float(score), corners)
        for kind, score, corners in zip(found.classes, found.scores, corners_mm, strict=True)
    ]


def detect_on_grid(
    volume: Volume,
    pack: Pack,
    engine: Engine,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Boxes, CanonicalGrid]:
    """As :func:`detect`, on the network's grid and in its axes."""
    pack.require("detection")
    part, wanted = pack.manifest.detection, pack.manifest.input
    if part is None:  # the manifest's own check has made sure
        raise InferenceError(f"Pack {pack.name} {pack.version} does not say how boxes are read.")
    hu, grid = resample_for(volume, wanted)
    axes, flips = wanted.axes
    turned = hu.transpose(axes)[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    levels = stitched_levels(turned, engine, wanted, part, on_tile=on_progress)
    return select(levels, part, turned.shape), grid


def stitched_levels(
    hu: NDArray[np.int16],
    engine: Engine,
    wanted: NetworkInput,
    part: DetectionOutput,
    *,
    on_tile: Callable[[int, int], None] | None = None,
) -> list[Floats]:
    """Run a network tile by tile and take the mean of its answers where tiles overlap.

    Parameters
    ----------
    hu
        On the network's grid, in its axes.
    engine, wanted, part
        The network and what the manifest says of it.
    on_tile
        Called with tiles done and tiles in all.

    Returns
    -------
    list[NDArray[np.float32]]
        For each level ``(places, places, places, anchors, classes + 6)`` over the padded scan.
    """
    # Padding lies behind the scan's end, so that places keep their distance from its first voxel.
    whole = [
        max(-(-size // multiple) * multiple, tile)
        for size, multiple, tile in zip(hu.shape, part.divisible_by, wanted.patch, strict=True)
    ]
    starts = list(product(*(stepped_starts(whole[axis], wanted.patch[axis], wanted.overlap) for axis in range(3))))
    width = len(part.classes) + _CODE
    anchors = len(part.anchor_sizes[0])
    sums = [np.zeros((*_places(whole, stride), anchors, width), np.float32) for stride in part.strides]
    counts = [np.zeros(held.shape[:3], np.float32) for held in sums]
    tile = np.empty(wanted.patch, np.int16)
    for done, start in enumerate(starts, start=1):
        tile.fill(wanted.fill_hu)
        cut = hu[tuple(slice(low, low + size) for low, size in zip(start, wanted.patch, strict=True))]
        tile[: cut.shape[0], : cut.shape[1], : cut.shape[2]] = cut
        for held, count, stride, answer in zip(
            sums, counts, part.strides, split_levels(single(engine.run(tile)), wanted, part), strict=True
        ):
            where = tuple(
                slice(low // step, low // step + size)
                for low, step, size in zip(start, stride, answer.shape[:3], strict=True)
            )
            held[where] += answer
            count[where] += 1.0
        if on_tile is not None:
            on_tile(done, len(starts))
    means: list[Floats] = [
        (held / np.maximum(count, 1.0)[..., None, None]).astype(np.float32)
        for held, count in zip(sums, counts, strict=True)
    ]
    return means


def split_levels(answer: Floats, wanted: NetworkInput, part: DetectionOutput) -> list[Floats]:
    """Split a tile's answer ``(rows, classes + 6)`` into levels ``(places, places, places, anchors, classes + 6)``.

    Raises
    ------
    InferenceError
        The answer has another shape, or holds NaN or infinity.
    """
    anchors, width = len(part.anchor_sizes[0]), len(part.classes) + _CODE
    shapes = [_places(wanted.patch, stride) for stride in part.strides]
    rows = [int(np.prod(shape)) * anchors for shape in shapes]
    if answer.shape != (sum(rows), width):
        raise InferenceError(
            f"The detection network answers with shape {answer.shape}; {(sum(rows), width)} is what its pack describes."
        )
    if not np.isfinite(answer).all():
        raise InferenceError("The detection network answers with NaN or infinity, so nothing can be said of this scan.")
    ends = np.cumsum(rows)
    return [
        answer[end - count : end].reshape(*shape, anchors, width)
        for end, count, shape in zip(ends, rows, shapes, strict=True)
    ]


def select(levels: Sequence[Floats], part: DetectionOutput, shape: Sequence[int]) -> Boxes:
    """Choose boxes that score enough: the best of each level, cut off at the border, no two of one kind on one place.

    Parameters
    ----------
    levels
        As from :func:`stitched_levels`.
    part
        What the manifest says.
    shape
        Voxels of the scan on the network's grid, padding apart.
    """
    kinds = len(part.classes)
    chosen: list[tuple[Floats, Floats, NDArray[np.intp]]] = []
    for number, level in enumerate(levels):
        scores = sigmoid(level[..., :kinds]).reshape(-1)
        candidates = np.flatnonzero(scores > part.score_threshold)
        best = candidates[np.argsort(-scores[candidates], kind="stable")[: part.candidates_per_level]]
        corners = decode(level, number, best // kinds, part)
        corners[:, :3] = np.clip(corners[:, :3], 0, shape)
        corners[:, 3:] = np.clip(corners[:, 3:], 0, shape)
        there = (corners[:, 3:] - corners[:, :3] >= _LEAST_VOXELS).all(axis=1)
        chosen.append((corners[there], scores[best[there]], (best % kinds)[there]))
    found = Boxes(*(np.concatenate(parts) for parts in zip(*chosen, strict=True)))
    kept = suppress(found, part.nms_threshold, part.most_detections)
    return Boxes(found.corners[kept], found.scores[kept], found.classes[kept])


def decode(level: Floats, number: int, anchors: NDArray[np.intp], part: DetectionOutput) -> Floats:
    """Turn the network's codes into boxes for some anchors of a level.

    Parameters
    ----------
    level
        ``(places, places, places, anchors, classes + 6)``.
    number
        Of the level.
    anchors
        Indices into the level's anchors in C order, places first.
    part
        What the manifest says.

    Returns
    -------
    NDArray[np.float32]
        ``(len(anchors), 6)``: lower corner, then upper, voxels.
    """
    stride = np.asarray(part.strides[number])
    sizes = np.asarray(part.anchor_sizes[number], np.float32)
    place = np.stack(np.unravel_index(anchors // len(sizes), level.shape[:3]), axis=1)
    centre = (place * stride + stride // 2).astype(np.float32)
    size = sizes[anchors % len(sizes)]
    code = level.reshape(-1, level.shape[-1])[anchors, -_CODE:] / np.asarray(part.box_weights, np.float32)
    middle = centre + code[:, :3] * size
    half = np.exp(np.minimum(code[:, 3:], _MOST_GROWTH)) * size * np.float32(0.5)
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)


def suppress(boxes: Boxes, threshold: float, most: int) -> NDArray[np.intp]:
    """Non-maximum suppression among boxes of one kind.

    Parameters
    ----------
    boxes
        Any number.
    threshold
        Of two boxes whose intersection over union is larger, the lower one is dropped.
    most
        Boxes kept.

    Returns
    -------
    NDArray[np.intp]
        Indices kept, the highest score first.
    """
    left = np.argsort(-boxes.scores, kind="stable")
    volumes = np.prod(boxes.corners[:, 3:] - boxes.corners[:, :3], axis=1)
    kept: list[int] = []
    while left.size and len(kept) < most:
        first, rest = left[0], left[1:]
        kept.append(int(first))
        lower = np.maximum(boxes.corners[first, :3], boxes.corners[rest, :3])
        upper = np.minimum(boxes.corners[first, 3:], boxes.corners[rest, 3:])
        shared = np.prod(np.maximum(upper - lower, 0.0), axis=1)
        overlap = shared / (volumes[first] + volumes[rest] - shared + np.finfo(np.float32).eps)
        left = rest[(overlap <= threshold) | (boxes.classes[rest] != boxes.classes[first])]
    return np.asarray(kept, np.intp)


def to_patient(corners: Floats, grid: CanonicalGrid, wanted: NetworkInput) -> list[tuple[Point, Point]]:
    """Bring boxes from the network's axes into the patient.

    Parameters
    ----------
    corners
        ``(boxes, 6)`` voxels along the network's axes.
    grid
        Canonical grid of the resampled scan.
    wanted
        Tells the network's axes.

    Returns
    -------
    list[tuple[tuple[float, float, float], tuple[float, float, float]]]
        Lower and upper corner, LPS mm; around an oblique box, the smallest upright one.
    """
    axes, flips = wanted.axes
    result = []
    for box in np.asarray(corners, np.float64):
        points = np.ones((8, 4))
        for row, choice in enumerate(product((0, 3), repeat=3)):
            for axis, (grid_axis, flip) in enumerate(zip(axes, flips, strict=True)):
                index = box[axis + choice[axis]]
                points[row, grid_axis] = grid.shape[grid_axis] - 1 - index if flip else index
        millimetres = (points @ grid.affine.T)[:, :3]
        (a, b, c), (d, e, f) = millimetres.min(axis=0).tolist(), millimetres.max(axis=0).tolist()
        result.append(((a, b, c), (d, e, f)))
    return result


def sigmoid(logits: Floats) -> Floats:
    """Logits to scores, 0…1."""
    scores: Floats = np.float32(0.5) * (np.float32(1.0) + np.tanh(np.float32(0.5) * logits))
    return scores


def _places(shape: Sequence[int], stride: Sequence[int]) -> tuple[int, int, int]:
    return shape[0] // stride[0], shape[1] // stride[1], shape[2] // stride[2]
