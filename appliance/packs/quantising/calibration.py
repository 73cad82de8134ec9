"""Calibration tiles: exactly what the network is given when the appliance labels a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.mapper import network_labels
from appliance.errors import InputRefusedError, PackError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from appliance.packs.pack import Pack
    from appliance.packs.quantising.scans import Source
    from appliance.scan import Volume

#: Kept of all scans together; at 128³ voxels each is 4 MiB, and NNCF runs the network once for each of them.
MOST_TILES = 48


class _Recorder:
    """Stands in for an engine: keeps the tiles it is given and answers background."""

    name = "recorder"
    precision = "none"
    device = "none"

    def __init__(self, patch: tuple[int, int, int]) -> None:
        self.tiles: list[NDArray[np.int16]] = []
        self.patch = patch
        self._answer = np.zeros((1, *patch), np.float32)

    def run(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        self.tiles.append(hu.copy())
        return self._answer


def tiles_of(volume: Volume, pack: Pack) -> list[NDArray[np.int16]]:
    """Cut a scan as the appliance does: its resampling, axes, tiles, mirrorings and fill.

    Returns
    -------
    list[NDArray[np.int16]]
        Hounsfield units in the pack's patch shape and axes.
    """
    recorder = _Recorder(pack.manifest.input.patch)
    network_labels(volume, pack, recorder)
    return recorder.tiles


def collect(
    pack: Pack, sources: Sequence[Source], tell: Callable[[str], None], most: int = MOST_TILES
) -> tuple[list[NDArray[np.int16]], int]:
    """Gather calibration tiles, evenly from every scan that can be read.

    Parameters
    ----------
    pack
        Whose input they are for.
    sources
        Scans.
    tell
        Told of each scan and of each that was refused.
    most
        Tiles kept at most.

    Returns
    -------
    tiles : list[NDArray[np.int16]]
        Spread evenly over each scan.
    scans : int
        Scans that gave any.

    Raises
    ------
    PackError
        No scan could be used.
    """
    share = max(1, most // max(1, len(sources)))
    tiles: list[NDArray[np.int16]] = []
    scans = 0
    for source in sources[:most]:
        volume = read_or_tell(source, tell)
        if volume is None:
            continue
        cut = tiles_of(volume, pack)
        chosen = np.unique(np.linspace(0, len(cut) - 1, min(share, len(cut))).round().astype(int))
        tiles += [cut[index] for index in chosen]
        scans += 1
        tell(f"{source.name}: {len(chosen)} of {len(cut)} tiles calibrate")
    if not tiles:
        raise PackError("None of the scans that should calibrate can be used; each one's reason is given above.")
    return tiles, scans


def read_or_tell(source: Source, tell: Callable[[str], None]) -> Volume | None:
    """Read a scan, or say why it cannot be used."""
    try:
        return source.read()
    except (InputRefusedError, PackError) as error:
        tell(f"{source.name} is left out: {error}")
        return None
