"""From the working grid back to the scan's own voxels, for the one region that a screening measures in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.inference.resample import canonical_grid, region_to_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Volume

Box = tuple[slice, slice, slice]

#: Slices brought back at a time; bounds the memory beside the mask.
_CHUNK = 24


def native_mask(organs: OrganMap, volume: Volume, *names: str, margin_mm: float = 0.0) -> tuple[Box, NDArray[np.bool_]]:
    """Bring structures back to the scan's grid, inside a box around them.

    The mask's zeros and ones are interpolated trilinearly and cut at one half, so that its surface is smooth and not
    a staircase of working voxels.

    Parameters
    ----------
    organs
        The map of this very volume.
    volume
        The scan.
    names
        Structures; their union is returned.
    margin_mm
        How far the box reaches beyond them.

    Returns
    -------
    box : tuple[slice, slice, slice]
        Slices into ``volume.hu``; empty slices when the structures are not there.
    mask : NDArray[np.bool_]
        In the shape of the box.

    Raises
    ------
    KeyError
        The map does not hold a structure of that name.
    ValueError
        The map was not made of this volume.
    """
    spacing = organs.spacing_mm
    grid = canonical_grid(volume.shape, volume.affine, spacing)
    if grid.shape != organs.labels.shape or not np.allclose(grid.affine, organs.affine, atol=1e-3):
        raise ValueError("the organ map was not made of this volume")
    mask = organs.mask(*names)
    box = _native_box(grid.to_volume_axes(mask), grid.first_index, grid.step, volume, margin_mm)
    if box is None:
        return (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), bool)
    values = mask.astype(np.float32)
    out = np.empty(tuple(s.stop - s.start for s in box), bool)
    for start in range(box[0].start, box[0].stop, _CHUNK):
        stop = min(start + _CHUNK, box[0].stop)
        part = region_to_volume(values, grid, (slice(start, stop), box[1], box[2]))
        np.greater_equal(part, 0.5, out=out[start - box[0].start : stop - box[0].start])
    return box, out


def _native_box(
    mask: NDArray[np.generic],
    first_index: tuple[float, float, float],
    step: tuple[float, float, float],
    volume: Volume,
    margin_mm: float,
) -> Box | None:
    box = []
    for axis in range(3):
        lines = np.flatnonzero(mask.any(axis=tuple(i for i in range(3) if i != axis)))
        if lines.size == 0:
            return None
        # One working voxel more on each side: interpolation reaches that far.
        margin = margin_mm / volume.spacing_mm[axis]
        low = first_index[axis] + (int(lines[0]) - 1) * step[axis] - margin
        high = first_index[axis] + (int(lines[-1]) + 1) * step[axis] + margin
        box.append(slice(max(0, int(np.floor(low))), min(volume.shape[axis], int(np.ceil(high)) + 1)))
    return box[0], box[1], box[2]
