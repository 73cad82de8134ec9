"""From a scan to its organ map: resample, run the pack's network tile by tile, tidy up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import structlog

from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.anatomy.region import cut_out
from appliance.anatomy.tidy import tidy
from appliance.errors import InferenceError, PackError
from appliance.inference.corner_grid import resample_for
from appliance.inference.devices import complaint
from appliance.inference.engines import open_engine
from appliance.inference.fitting import fit
from appliance.inference.tiling import label_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.anatomy.region import Box
    from appliance.inference.engines import Engine
    from appliance.inference.resample import CanonicalGrid
    from appliance.packs.pack import Pack
    from appliance.scan import Volume

_log = structlog.get_logger()

#: Above this something is there at all: fat, muscle, table; lung and air are below.
_SOMETHING_HU = -500
#: Voxels kept around what is there.
_RIM = 4


def map_organs(
    volume: Volume,
    packs: Sequence[Pack],
    *,
    engine: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    cache: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> OrganMap:
    """Map the organs of a scan.

    Parameters
    ----------
    volume
        Hounsfield units with their place in the patient; any orientation.
    packs
        The packs to use.
    engine, precision, threads, cache
        See :func:`appliance.inference.engines.open_engine`.
    on_progress
        Called with tiles done and tiles in all.

    Returns
    -------
    OrganMap
        Labels on the pack's grid in canonical axes, covering the whole volume.

    Raises
    ------
    PackError
        There is no pack, or more than one.
    InferenceError
        No engine could run the network.
    """
    pack = _only(packs)
    opened = open_engine(pack, engine=engine, precision=precision, threads=threads, cache=cache)
    return map_with(volume, pack, opened, on_progress=on_progress)


def map_with(
    volume: Volume,
    pack: Pack,
    engine: Engine,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    box_mm: Box | None = None,
) -> OrganMap:
    """Map the organs of a scan with an engine that is already open, for a process that screens many.

    Parameters
    ----------
    volume, pack, engine, on_progress, box_mm
        As for :func:`network_labels`.

    Returns
    -------
    OrganMap
        On the pack's grid in canonical axes, covering the volume, or what of it lies in the box.
    """
    labels, grid = network_labels(volume, pack, engine, on_progress=on_progress, box_mm=box_mm)
    tidy(labels, pack.structures, abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000.0)
    _log.debug(
        "organs_mapped",
        pack=pack.name,
        engine=engine.name,
        device=engine.device,
        precision=engine.precision,
        shape=labels.shape,
    )
    use = PackUse(pack.name, pack.version, pack.digest, engine.precision, engine.device, engine.name, pack.trust)
    return OrganMap(labels, grid.affine, dict(pack.structures), use)


def network_labels(
    volume: Volume,
    pack: Pack,
    engine: Engine,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    box_mm: Box | None = None,
) -> tuple[NDArray[np.uint8], CanonicalGrid]:
    """Label a scan as the network says, with nothing tidied.

    Parameters
    ----------
    volume
        Hounsfield units with their place in the patient; any orientation.
    pack, engine
        A verified pack and its compiled network.
    on_progress
        Called with tiles done and tiles in all.
    box_mm
        Lowest and highest corner in the patient, LPS mm: all that the network sees. ``None`` shows it the whole volume.

    Returns
    -------
    labels : NDArray[np.uint8]
        The pack's label values in canonical axes.
    grid : CanonicalGrid
        Where they are.

    Raises
    ------
    InferenceError
        The engine cannot compute it, its answers are not finite, or the box lies outside the volume.
    """
    pack.require("segmentation")
    if box_mm is not None:
        volume = cut_out(volume, box_mm)
    wanted = pack.manifest.input
    axes, flips = wanted.axes
    back = tuple(int(axis) for axis in np.argsort(axes))
    hu, grid = resample_for(volume, wanted)
    box = _occupied(hu) if wanted.skip_air else (slice(None), slice(None), slice(None))
    turned = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
    found = _found(np.ascontiguousarray(hu[box].transpose(axes)[turned]), pack, engine, on_progress)
    labels = np.zeros(hu.shape, np.uint8)
    labels[box] = np.asarray(pack.channel_labels, np.uint8)[found[turned].transpose(back)]
    return labels, grid


def _found(
    hu: NDArray[np.int16], pack: Pack, engine: Engine, on_progress: Callable[[int, int], None] | None
) -> NDArray[np.uint8]:
    """Channels along the network's axes; where a device fails on the way, all of them from the one that took over."""
    wanted = pack.manifest.input
    try:
        fit(engine, (hu.shape[0], hu.shape[1], hu.shape[2]))
        while True:
            device = engine.device
            found = label_tiles(
                hu,
                engine.run,
                patch=engine.patch,
                overlap=wanted.overlap,
                fill_hu=wanted.fill_hu,
                weighting=wanted.weighting,
                tiling=wanted.tiling,
                mirror_axes=wanted.mirror_axes,
                padding=wanted.padding,
                on_tile=on_progress,
            )
            if engine.device == device:
                return found
    except (InferenceError, RuntimeError) as error:
        why = (
            f"Pack {pack.name} {pack.version} ({engine.name}, {engine.precision}, {engine.device}): {complaint(error)}"
        )
        _log.error("inference_failed", why=why)
        raise InferenceError(why) from error


def _only(packs: Sequence[Pack]) -> Pack:
    if not packs:
        raise PackError(
            "No model pack is installed, so no organ can be mapped; install one with `appliance packs install`."
        )
    if len(packs) > 1:
        names = ", ".join(pack.name for pack in packs)
        raise PackError(f"This version maps organs with one pack at a time; configure one of {names} (work.packs).")
    return packs[0]


def _occupied(hu: NDArray[np.int16]) -> tuple[slice, slice, slice]:
    """Box around whatever is not air, so that no tile is spent on the room around the patient."""
    there = hu > _SOMETHING_HU
    box = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        # A wire or a few noisy voxels do not count.
        lines = np.flatnonzero(there.sum(axis=others) > 8)
        if lines.size == 0:
            return slice(0, hu.shape[0]), slice(0, hu.shape[1]), slice(0, hu.shape[2])
        box.append(slice(max(0, int(lines[0]) - _RIM), min(hu.shape[axis], int(lines[-1]) + 1 + _RIM)))
    return box[0], box[1], box[2]
