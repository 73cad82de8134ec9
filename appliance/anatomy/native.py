"""Brings structures of the organ map back to the scan's own voxels, only inside the box where they are.

The surface is the zero level of the structure's signed distance, interpolated linearly: smooth between working voxels,
and it can be grown or shrunk by a margin in mm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Volume

Box = tuple[slice, slice, slice]


def native_mask(
    organs: OrganMap, volume: Volume, *names: str, margin_mm: float = 0.0, box: Box | None = None
) -> tuple[Box, NDArray[np.bool_]]:
    """Return the union of structures at the scan's resolution.

    Parameters
    ----------
    organs
        The organ map of this volume.
    volume
        The volume whose grid is asked for.
    *names
        Structure names, taken together.
    margin_mm
        How far the surface is moved outwards; negative moves it inwards.
    box
        Slices of the volume's ``(slice, row, column)`` index to fill. ``None`` takes the smallest box that holds the
        structures; all slices have explicit start and stop.

    Returns
    -------
    box, mask
        The box, and a boolean array of its shape. Both are empty when the structures are not in the map.
    """
    mask = organs.mask(*names)
    crop = _bounding_box(mask, margin=2 + int(np.ceil(max(margin_mm, 0.0) / min(organs.spacing_mm))))
    to_map = np.asarray(np.linalg.inv(organs.affine) @ volume.affine, dtype=np.float64)
    if crop is None:
        box = box or (slice(0, 0), slice(0, 0), slice(0, 0))
        return box, np.zeros([part.stop - part.start for part in box], dtype=bool)
    distance = signed_distance_mm(mask[crop], organs.spacing_mm)
    if box is None:
        box = _box_in_volume(crop, np.asarray(np.linalg.inv(to_map), dtype=np.float64), volume.shape)
    start = np.array([part.start for part in box], dtype=np.float64)
    matrix = to_map[:3, :3]
    offset = matrix @ start + to_map[:3, 3] - np.array([part.start for part in crop], dtype=np.float64)
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
    return box, _below(distance, matrix, offset, shape, margin_mm)


def _bounding_box(mask: NDArray[np.bool_], margin: int) -> Box | None:
    slices = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if hit.size == 0:
            return None
        slices.append(slice(max(0, int(hit[0]) - margin), min(mask.shape[axis], int(hit[-1]) + 1 + margin)))
    return slices[0], slices[1], slices[2]


def signed_distance_mm(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Distance to the surface, negative inside; the surface lies half a voxel outside the last voxel centre.

    Beyond the map's border a structure goes on: an organ cut by the scan is not rounded off at its last slice.
    """
    from scipy import ndimage

    half = min(spacing_mm) / 2.0
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm) if mask.any() else None
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm) if not mask.all() else None
    far = np.full(mask.shape, 1e3)
    positive = outside if outside is not None else far
    negative = inside if inside is not None else far
    return np.where(mask, half - negative, positive - half).astype(np.float32)


def _box_in_volume(crop: Box, to_volume: NDArray[np.float64], shape: tuple[int, int, int]) -> Box:
    corners = np.array(np.meshgrid(*[(part.start, part.stop - 1) for part in crop], indexing="ij")).reshape(3, -1)
    mapped = to_volume[:3, :3] @ corners + to_volume[:3, 3:]
    low = np.clip(np.floor(mapped.min(axis=1)).astype(int), 0, np.array(shape))
    high = np.clip(np.ceil(mapped.max(axis=1)).astype(int) + 1, low, np.array(shape))
    return (
        slice(int(low[0]), int(high[0])),
        slice(int(low[1]), int(high[1])),
        slice(int(low[2]), int(high[2])),
    )


def _below(
    field: NDArray[np.float32],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, int, int],
    level: float,
) -> NDArray[np.bool_]:
    """Return where the linearly interpolated field is at most ``level``, slice by slice."""
    axes = np.argmax(np.abs(matrix), axis=0)  # map axis that each volume axis follows
    aligned = np.zeros_like(matrix)
    aligned[axes, np.arange(3)] = matrix[axes, np.arange(3)]
    result = np.empty(shape, dtype=bool)
    if sorted(axes) == [0, 1, 2] and np.allclose(matrix, aligned, atol=1e-4):
        ordered = np.ascontiguousarray(field.transpose(axes))  # the field's axes in the volume's order
        taps = [
            _linear_taps(shape[axis], field.shape[map_axis], float(matrix[map_axis, axis]), float(offset[map_axis]))
            for axis, map_axis in enumerate(axes)
        ]
        for index in range(shape[0]):
            plane = _between(ordered, _one(taps[0], index))[0]
            # the transpose keeps the gathered axis first, where gathering is quick
            columns_first = _between(np.ascontiguousarray(plane.T), taps[2])
            result[index] = _between(np.ascontiguousarray(columns_first.T), taps[1]) <= level
        return result
    from scipy import ndimage

    for index in range(shape[0]):
        # an oblique scan: one slab at a time, so that no float volume of the scan's size ever exists
        slab_offset = offset + matrix[:, 0] * index
        plane = ndimage.affine_transform(
            field, matrix, offset=slab_offset, output_shape=(1, *shape[1:]), order=1, mode="nearest"
        )
        result[index] = plane[0] <= level
    return result


_Taps = tuple["NDArray[np.intp]", "NDArray[np.float32]"]


def _linear_taps(size: int, source_size: int, step: float, first: float) -> _Taps:
    """Lower neighbour and its distance for ``size`` positions on ``source_size`` samples; the ends go on outside."""
    position = np.clip(first + step * np.arange(size), 0.0, source_size - 1.0)
    lower = np.minimum(position.astype(np.intp), max(source_size - 2, 0))
    return lower, (position - lower).astype(np.float32)


def _one(taps: _Taps, index: int) -> _Taps:
    return taps[0][index : index + 1], taps[1][index : index + 1]


def _between(values: NDArray[np.float32], taps: _Taps) -> NDArray[np.float32]:
    """Interpolate linearly along the first axis."""
    lower, fraction = taps
    upper = np.minimum(lower + 1, values.shape[0] - 1)
    weight = fraction.reshape(-1, *(1,) * (values.ndim - 1))
    low = values[lower]
    interpolated: NDArray[np.float32] = low + weight * (values[upper] - low)
    return interpolated
