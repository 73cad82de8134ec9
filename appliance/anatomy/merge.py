"""Several packs' organ maps of one scan as one map, on the grid of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.organ_map import OrganMap
from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

#: Where a structure that lost to another pack's is removed, the body remains.
_BODY = "body"
_LARGEST_LABEL = 255


def merge(maps: Sequence[OrganMap], providers: Mapping[str, str], order: Sequence[str] = ()) -> OrganMap:
    """Put maps together.

    Parameters
    ----------
    maps
        At least one, each with another pack; any grids of the same scan.
    providers
        Structure to the name of the pack whose voxels count.
    order
        Names of packs; where voxels of two packs' structures overlap, the one named first stays. Packs that are not
        named give way to those that are.

    Returns
    -------
    OrganMap
        Labels of all provided structures. Its grid is that of the map that gives the body, otherwise of the first.

    Raises
    ------
    PackError
        There are more structures than labels.
    """
    if len(maps) == 1:
        return maps[0]
    base = next((item for item in maps if providers.get(_BODY) == item.pack.name), maps[0])
    rank = {name: len(order) - place for place, name in enumerate(order)}
    painted = sorted(maps, key=lambda item: (item is not base, rank.get(item.pack.name, 0)))
    values: dict[str, int] = {}
    labels = np.zeros(base.labels.shape, np.uint8)
    for item in painted:
        kept = [name for name in item.values if providers.get(name) == item.pack.name]
        for name in kept:
            values[name] = len(values) + 1
        if len(values) > _LARGEST_LABEL:
            raise PackError(f"The packs give {len(values)} structures; one map holds {_LARGEST_LABEL} at most.")
        found = item.labels if item is base else on_grid(item, base)
        table = np.zeros(256, np.uint8)
        if item is base and _BODY in kept:
            table[list(item.values.values())] = values[_BODY]
        for name in kept:
            table[item.values[name]] = values[name]
        renamed = table[found]
        np.copyto(labels, renamed, where=renamed > 0)
    return OrganMap(labels, base.affine, values, base.pack)


def on_grid(source: OrganMap, target: OrganMap) -> NDArray[np.uint8]:
    """Return a map's labels at the voxel centres of another's grid, nearest neighbour, background outside."""
    if source.labels.shape == target.labels.shape and np.allclose(source.affine, target.affine, atol=1e-3):
        return source.labels
    # index in the target -> patient -> index in the source
    matrix = np.linalg.inv(source.affine) @ target.affine
    from scipy.ndimage import affine_transform

    moved: NDArray[np.uint8] = affine_transform(
        source.labels, matrix[:3, :3], matrix[:3, 3], output_shape=target.labels.shape, order=0, mode="constant", cval=0
    )
    return moved
