"""INT8 in as many layers as the gate lets pass: all, without the first and last, then without the worst of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.packs.gates import Attempt
from appliance.packs.quantising.gate import open_network

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.packs.gates import Margins
    from appliance.packs.quantising.gate import GateScans, Judged
    from appliance.packs.quantising.network import FloatNetwork

#: Shares of the layers between the first and the last that are kept in single precision, the worst first.
_SHARES = (0.25, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """How the search ended.

    Attributes
    ----------
    judged
        Of the last attempt.
    kept
        Labels of the layers kept in single precision in the last attempt.
    attempts
        All of them, in order.
    engine
        The last attempt's network, compiled; INT8 where :attr:`passed`.
    problem
        Why the last attempt must not be used; empty where it may.
    """

    judged: Judged
    kept: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    engine: Engine
    problem: str

    @property
    def passed(self) -> bool:
        """Whether the last attempt may be used."""
        return not self.problem


def search(
    network: FloatNetwork,
    tiles: Sequence[NDArray[np.int16]],
    scans: GateScans,
    margins: Margins,
    path: Path,
    *,
    patch: tuple[int, int, int],
    threads: int,
    tell: Callable[[str], None],
) -> Found:
    """Quantise, judge, and try again with more layers in single precision until the gate is passed.

    Parameters
    ----------
    network
        In single precision.
    tiles
        For the calibration.
    scans, margins
        The gate.
    path
        ``.xml`` file that receives each attempt in turn; the last one stays.
    patch, threads
        For the engine.
    tell
        Told of each attempt.
    """
    attempts: list[Attempt] = []
    plan = _Plan(network, tiles)
    found: Found | None = None
    for kept, widest in plan:
        quantised = network.quantise(tiles, kept, widest=widest)
        network.save(quantised, path)
        engine = open_network(path, patch, "int8", threads)
        judged = scans.judge(engine, margins)
        attempts.append(Attempt(kept=len(kept), widest_ranges=widest, fell=judged.fell, lowest_dice=judged.lowest_dice))
        tell(_sentence(attempts[-1], len(network.layers)))
        labels = tuple(layer.label for layer in network.layers if layer.name in kept)
        found = Found(judged, labels, tuple(attempts), engine, _problem(judged, engine))
        # Keeping more layers cannot show a structure that no scan holds, nor make INT8 of what is mostly float already.
        if not judged.fell or engine.precision != "int8":
            break
        plan.learn(quantised, scans.channels(judged.fell), attempts[-1])
    if found is None:  # pragma: no cover  # the plan always holds a first attempt
        raise AssertionError
    return found


class _Plan:
    """Which layers each attempt keeps in single precision, and how wide the ranges of activations are."""

    def __init__(self, network: FloatNetwork, tiles: Sequence[NDArray[np.int16]]) -> None:
        self._network = network
        self._tiles = tiles
        self._whole: list[tuple[Attempt, Any, Collection[int]]] = []

    def __iter__(self) -> Iterator[tuple[frozenset[str], bool]]:
        names = [layer.name for layer in self._network.layers]
        ends = frozenset({names[0], names[-1]})
        yield frozenset(), False
        yield frozenset(), True
        better, quantised, channels = min(self._whole, key=lambda item: _lost(item[0]))
        if len(names) <= len(ends):
            return
        yield ends, better.widest_ranges
        ranked = self._network.harmed_most(quantised, self._tiles, channels)
        between = [name for name in ranked if name not in ends]
        counts = {max(1, round(share * len(between))) for share in _SHARES}
        for count in sorted(counts - {len(between)}):
            yield ends | frozenset(between[:count]), better.widest_ranges

    def learn(self, quantised: Any, channels: Collection[int], attempt: Attempt) -> None:
        """Remember the attempts in which every layer is quantised; the better one goes on."""
        if not attempt.kept:
            self._whole.append((attempt, quantised, channels))


def _lost(attempt: Attempt) -> tuple[int, float]:
    return len(attempt.fell), -(attempt.lowest_dice or 0.0)


def _problem(judged: Judged, engine: Engine) -> str:
    verdict, reason = judged.verdict
    if verdict != "passed":
        return reason
    if engine.precision != "int8":
        return f"most of it is computed in {engine.precision} on this machine"
    return ""


def _sentence(attempt: Attempt, layers: int) -> str:
    what = f"{attempt.kept} of {layers} layers in single precision" if attempt.kept else f"all {layers} layers"
    ranges = ", widest ranges" if attempt.widest_ranges else ""
    lowest = "" if attempt.lowest_dice is None else f", lowest Dice {attempt.lowest_dice:.4f}"
    fell = f"fell: {', '.join(attempt.fell)}" if attempt.fell else "nothing fell"
    return f"INT8, {what}{ranges}: {fell}{lowest}"
