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
    values: dict[str, int] = {}
    labels = np.zeros(base.labels.shape, np.uint8)
    if providers.get(_BODY) == base.pack.name:  # the canvas: every structure lies on it
        values[_BODY] = 1
        labels[base.labels > 0] = 1
    for item in sorted(maps, key=lambda item: (rank.get(item.pack.name, 0), item is not base)):
        kept = [name for name in item.values if name != _BODY and providers.get(name) == item.pack.name]
        table = np.zeros(256, np.uint8)
        for name in kept:
            values[name] = len(values) + 1
            if values[name] > _LARGEST_LABEL:
                raise PackError(f"The packs give more structures than the {_LARGEST_LABEL} labels of one map.")
            table[item.values[name]] = values[name]
        renamed = table[item.labels if item is base else on_grid(item, base)]
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
