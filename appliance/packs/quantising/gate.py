"""The gate: label the same scans in single precision and in another, through the appliance's own path, and compare."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.mapper import map_with
from appliance.errors import InferenceError, PackError
from appliance.inference.engines import OpenVinoEngine
from appliance.packs.gates import GatedStructure
from appliance.packs.quantising.calibration import read_or_tell

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.packs.gates import Margins
    from appliance.packs.pack import Pack
    from appliance.packs.quantising.scans import Source

    Labels = NDArray[np.uint8]

#: Fewer voxels of a structure say nothing of a network: the cut end of something that lies outside the scan.
LEAST_VOXELS = 50
#: No single scan may lose more than this many times the margin.
_WORST_SCAN = 3.0
#: Tiles run in each precision to measure its time, in turns.
_TIMED_RUNS = 7


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What the gate found in one network and precision.

    Attributes
    ----------
    structures
        One for each that the pack provides.
    """

    structures: tuple[GatedStructure, ...]

    @property
    def fell(self) -> tuple[str, ...]:
        """Structures that lost more than the margin."""
        return tuple(item.name for item in self.structures if item.verdict == "fell")

    @property
    def seen(self) -> bool:
        """Whether any structure could be judged."""
        return any(item.verdict != "not judged" for item in self.structures)

    @property
    def verdict(self) -> tuple[str, str]:
        """``"passed"``, ``"failed"`` or ``"not judged"``, and the reason as words."""
        if self.fell:
            return "failed", f"{', '.join(self.fell)} fell more than the margin"
        if not self.seen:
            return "not judged", "no structure of the pack was in the gate scans"
        return "passed", "nothing fell more than the margin"

    @property
    def lowest_dice(self) -> float | None:
        """Least mean Dice."""
        return min((item.dice for item in self.structures if item.dice is not None), default=None)


class GateScans:
    """The gate's scans with their labels in single precision.

    Parameters
    ----------
    pack
        Gives the input's geometry and the structures.
    engine
        Runs the network in single precision.
    sources
        Scans; they are read anew for each network, because several full volumes do not fit into memory.
    tell
        Told of each scan and of each that was refused.

    Raises
    ------
    PackError
        No scan can be used.
    """

    def __init__(self, pack: Pack, engine: Engine, sources: Sequence[Source], tell: Callable[[str], None]) -> None:
        self._pack = pack
        self._labelled: list[tuple[Source, Labels]] = []
        for source in sources:
            volume = read_or_tell(source, tell)
            if volume is not None:
                self._labelled.append((source, map_with(volume, pack, engine).labels))
                tell(f"{source.name}: labelled in single precision")
        if not self._labelled:
            raise PackError("None of the scans that should judge can be used; each one's reason is given above.")

    @property
    def count(self) -> int:
        """Scans that judge."""
        return len(self._labelled)

    def channels(self, names: Collection[str]) -> frozenset[int]:
        """Channels of the network that mean some structures."""
        return frozenset(
            channel
            for structure in self._pack.manifest.structures
            if structure.name in names
            for channel in structure.channels or (structure.value,)
        )

    def judge(self, engine: Engine, margins: Margins) -> Judged:
        """Label every scan with another network or precision and compare."""
        pairs = []
        for source, reference in self._labelled:
            pairs.append((reference, map_with(source.read(), self._pack, engine).labels))
            gc.collect()  # two full volumes at once would be the largest thing in memory
        return compare(pairs, self._pack.structures, margins)


def compare(pairs: Sequence[tuple[Labels, Labels]], structures: Mapping[str, int], margins: Margins) -> Judged:
    """Compare labels of the same scans, structure by structure.

    Parameters
    ----------
    pairs
        For each scan its labels in single precision and in the precision that is judged, of equal shape.
    structures
        Name to label value.
    margins
        What may be lost.

    Returns
    -------
    Judged
        A structure that fewer than :data:`LEAST_VOXELS` voxels show, in both precisions, is not judged in that scan;
        one that only the judged precision shows has a Dice of zero there.
    """
    return Judged(tuple(_structure(name, value, pairs, margins) for name, value in structures.items()))


def _structure(name: str, value: int, pairs: Sequence[tuple[Labels, Labels]], margins: Margins) -> GatedStructure:
    dice, volume = [], []
    for reference, found in pairs:
        a, b = reference == value, found == value
        size_a, size_b = int(np.count_nonzero(a)), int(np.count_nonzero(b))
        if max(size_a, size_b) < LEAST_VOXELS:
            continue
        dice.append(2 * int(np.count_nonzero(a & b)) / (size_a + size_b))
        volume.append(abs(size_b - size_a) / max(size_a, 1))
    if not dice:
        return GatedStructure(name=name, verdict="not judged", scans=0)
    mean, worst = float(np.mean(dice)), min(dice)
    fell = (
        1 - mean > margins.maximum_dice_drop
        or 1 - worst > _WORST_SCAN * margins.maximum_dice_drop
        or float(np.mean(volume)) > margins.maximum_volume_difference
    )
    return GatedStructure(
        name=name,
        verdict="fell" if fell else "passed",
        scans=len(dice),
        dice=round(mean, 5),
        worst_dice=round(worst, 5),
        volume_difference=round(float(np.mean(volume)), 5),
    )


def open_network(path: Path, patch: tuple[int, int, int], precision: str, threads: int) -> OpenVinoEngine:
    """Compile a network that is not a pack's yet.

    Raises
    ------
    InferenceError
        OpenVINO cannot run it.
    """
    try:
        return OpenVinoEngine(path, patch, precision, threads, None)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:300]
        raise InferenceError(f"{path.name}: OpenVINO cannot run the network in {precision}: {said}") from error


def seconds_per_tile(engines: Mapping[str, Engine], tile: NDArray[np.int16]) -> dict[str, float]:
    """Least time for a tile of several engines, run in turns so that a busy moment of the machine meets them all."""
    best: dict[str, float] = {}
    for engine in engines.values():
        engine.run(tile)
    for _ in range(_TIMED_RUNS):
        for name, engine in engines.items():
            begun = time.perf_counter()
            engine.run(tile)
            best[name] = min(best.get(name, np.inf), time.perf_counter() - begun)
    return best
