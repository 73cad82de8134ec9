"""The organ map of several packs: first those that look at the whole scan, then those that look at one organ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog

from appliance.anatomy.mapper import map_with
from appliance.anatomy.merge import merge
from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.anatomy.region import region_box
from appliance.inference.resample import canonical_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from appliance.inference.engines import Engine
    from appliance.packs.pack import Pack
    from appliance.scan import Volume

_log = structlog.get_logger()


class Opened(Protocol):
    """A pack that can be run, as :class:`appliance.packs.runtime.OpenPack` is."""

    @property
    def pack(self) -> Pack:
        """What it is."""
        ...

    def engine(self) -> Engine:
        """Return the network."""
        ...


def map_in_stages(
    volume: Volume,
    packs: Sequence[Opened],
    providers: Mapping[str, str],
    order: Sequence[str] = (),
    on_detail: Callable[[str], None] | None = None,
) -> tuple[list[OrganMap], OrganMap]:
    """Map a scan with several packs, each with the region it asks for.

    Parameters
    ----------
    volume
        The scan.
    packs
        At least one.
    providers, order
        See :func:`appliance.anatomy.merge.merge`.
    on_detail
        Told, in words for people, which tile of which network is done.

    Returns
    -------
    maps : list[OrganMap]
        One per pack, those that see the whole scan first.
    organs : OrganMap
        All of them as one.

    Raises
    ------
    PackError, InferenceError
        A network cannot be used.
    """
    maps: list[OrganMap] = []
    for item in by_stage(packs):
        organs = merge(maps, providers, order) if item.pack.manifest.input.region and maps else None
        maps.append(map_region(volume, item, organs, on_detail))
    return maps, merge(maps, providers, order)


def map_region(
    volume: Volume, item: Opened, organs: OrganMap | None, on_detail: Callable[[str], None] | None = None
) -> OrganMap:
    """Map a scan with one pack.

    Parameters
    ----------
    volume
        The scan.
    item
        The pack.
    organs
        Where its region is looked for, when it names one.
    on_detail
        Told which tile is done.
    """

    def tell(done: int, total: int) -> None:
        if on_detail is not None:
            on_detail(f"network {item.pack.name}, tile {done} of {total}")

    wanted = item.pack.manifest.input
    if not wanted.region:
        return map_with(volume, item.pack, item.engine(), on_progress=tell)
    box = region_box(organs, wanted.region, wanted.region_margin_mm) if organs is not None else None
    if box is None:
        return _without_region(volume, item.pack)
    return map_with(volume, item.pack, item.engine(), on_progress=tell, box_mm=box)


def by_stage(packs: Sequence[Opened]) -> list[Opened]:
    """Order packs so that each comes after those that give the structures of its region."""
    left, ordered = list(packs), []
    while left:
        missing = {name for item in left for name in item.pack.structures}
        ready = [item for item in left if not missing.intersection(item.pack.manifest.input.region)]
        # Packs that wait for each other have no good order; one must begin, and finds no region.
        taken = ready or left[:1]
        ordered += sorted(taken, key=lambda item: bool(item.pack.manifest.input.region))
        left = [item for item in left if item not in taken]
    return ordered


def _without_region(volume: Volume, pack: Pack) -> OrganMap:
    region = " or ".join(pack.manifest.input.region)
    note = f"There is no {region} in the organ map of this scan, so this network did not run and labels nothing."
    _log.info("region_not_found", pack=pack.name, region=region)
    axes, _ = pack.manifest.input.axes
    spacing = pack.manifest.input.spacing_mm
    grid = canonical_grid(
        volume.shape, volume.affine, (spacing[axes.index(0)], spacing[axes.index(1)], spacing[axes.index(2)])
    )
    use = PackUse(pack.name, pack.version, pack.digest, "none", "none", "none", pack.trust, note)
    return OrganMap(np.zeros(grid.shape, np.uint8), grid.affine, dict(pack.structures), use)
