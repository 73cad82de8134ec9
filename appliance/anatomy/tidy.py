"""Light clean-up of a network's labels: what anatomy forbids, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.uint8]
    Mask = NDArray[np.bool_]

#: A part of a lung smaller than this share of its largest part is a mistake of the network…
_LUNG_SHARE = 0.02
#: …and so is a larger one far above or below the largest part, such as gas in the rectum.
_LUNG_FAR_SHARE = 0.3
_LUNG_FAR_LEVELS = 10
#: The same for the airways; a bronchus may be cut off from the trachea by a narrow place.
_AIRWAY_SHARE = 0.05
#: Bone comes in many parts; specks below this are dropped, mL.
_BONE_ML = 0.15
#: Least share of an organ's largest part that another part of it must have. An aorta without its arch is two; the
#: others are one, and a part of half their size is left for the plausibility gates to doubt.
_ORGAN_SHARES = {
    "aorta": 0.1,
    **dict.fromkeys(
        (
            *("heart", "pulmonary_trunk", "liver", "spleen", "kidney_left", "kidney_right"),
            *("gallbladder", "pancreas", "stomach", "urinary_bladder"),
        ),
        0.5,
    ),
}


def tidy(labels: Labels, values: dict[str, int], voxel_ml: float) -> None:
    """Tidy labels in place.

    The patient is one connected body, filled in every slice. Each lung is its large parts and what lies near them in
    height; a small part that touches the other lung joins it and any other becomes body. Enclosed holes of a lung
    (vessels, nodules) belong to it. Small islands of airway and of organs and specks of bone become body.

    Parameters
    ----------
    labels
        uint8 ``(slices, rows, columns)``; changed.
    values
        Structure name to label value; structures that a pack does not give are passed over.
    voxel_ml
        Volume of one voxel, mL.
    """
    body = values.get("body")
    if body is None:
        return
    _one_body(labels, body)
    lungs = [values[name] for name in ("lung_left", "lung_right") if name in values]
    for value in lungs:
        others = [other for other in lungs if other != value]
        _large_parts(labels, value, _LUNG_SHARE, others, body, far_share=_LUNG_FAR_SHARE)
    for value in lungs:
        _fill_holes(labels, value, body)
    if "airways" in values:
        _large_parts(labels, values["airways"], _AIRWAY_SHARE, lungs, body)
    for name, share in _ORGAN_SHARES.items():
        if name in values:
            _large_parts(labels, values[name], share, [], body)
    for name in ("bone", "vertebral_bodies"):
        if name in values:
            _drop_specks(labels, values[name], _BONE_ML / voxel_ml, body)


def _box(mask: Mask, rim: int = 1) -> tuple[slice, ...] | None:
    box = []
    for axis in range(mask.ndim):
        lines = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        if lines.size == 0:
            return None
        box.append(slice(max(0, int(lines[0]) - rim), min(mask.shape[axis], int(lines[-1]) + 1 + rim)))
    return tuple(box)


def _one_body(labels: Labels, body: int) -> None:
    from scipy import ndimage

    parts, count = ndimage.label(labels > 0)
    if count == 0:
        return
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    inside = parts == sizes.argmax()
    labels[~inside] = 0
    for level in range(labels.shape[0]):
        holes = ndimage.binary_fill_holes(inside[level]) & ~inside[level]
        labels[level][holes] = body


def _large_parts(
    labels: Labels, value: int, share: float, neighbours: list[int], body: int, far_share: float = 0.0
) -> None:
    from scipy import ndimage

    box = _box(labels == value)
    if box is None:
        return
    view = labels[box]
    parts, count = ndimage.label(view == value)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    boxes = ndimage.find_objects(parts)
    main = boxes[int(sizes.argmax()) - 1][0]
    for index, inner in enumerate(boxes, start=1):
        gap = max(main.start - inner[0].stop, inner[0].start - main.stop)
        if sizes[index] >= (far_share if gap > _LUNG_FAR_LEVELS else share) * sizes.max():
            continue
        around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in inner)
        part = parts[around] == index
        rim = view[around][ndimage.binary_dilation(part) & ~part]
        touched = [neighbour for neighbour in neighbours if np.count_nonzero(rim == neighbour) > 0.3 * rim.size]
        view[around][part] = touched[0] if touched else body


def _fill_holes(labels: Labels, value: int, body: int) -> None:
    from scipy import ndimage

    box = _box(labels == value)
    if box is None:
        return
    view = labels[box]
    holes = ndimage.binary_fill_holes(view == value) & (view == body)
    view[holes] = value


def _drop_specks(labels: Labels, value: int, voxels: float, body: int) -> None:
    from scipy import ndimage

    parts, _ = ndimage.label(labels == value, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    small = sizes < voxels
    small[0] = False
    labels[small[parts]] = body
