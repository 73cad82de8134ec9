"""Measuring, on this box, each way to run a pack's network that computes what it should."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from appliance.errors import InferenceError, PackError
from appliance.inference.engines import devices_of, open_engine
from appliance.inference.tiling import count_tiles
from appliance.packs.measured import Bench, Measured, machine
from appliance.packs.selftest import vector_agreement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.packs.pack import Pack
    from appliance.packs.runtime import Computing

    Shape = tuple[int, int, int]

#: Of the trunk whose time is compared: towards the head, the back, the left, mm.
_TRUNK_MM = (400.0, 300.0, 400.0)
#: No way is timed for longer, once its first tile is through.
_LONGEST_S = 20.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a network, not measured yet."""

    engine: str
    device: str
    precision: str
    threads: int
    patch: Shape


def ways(pack: Pack, computing: Computing) -> Iterator[Way]:
    """List the ways that the pack, its gates, the settings and this machine leave open."""
    wanted = pack.manifest.input
    for engine in ("openvino", "onnxruntime") if computing.engine == "auto" else (computing.engine,):
        precisions = pack.automatic(engine) if computing.precision == "auto" else (computing.precision,)
        for device in devices_of(engine):
            if computing.device not in {"auto", device}:
                continue
            for precision in precisions:
                if pack.network(engine, precision) is None:
                    continue
                for threads in _thread_counts(computing.threads) if device == "CPU" else (computing.threads,):
                    for patch in (wanted.patch, *wanted.patches):
                        yield Way(engine, device, precision, threads, patch)


def _thread_counts(wanted: int) -> tuple[int, ...]:
    """All threads, and with many also half of them: two threads of one core may hinder each other."""
    count = len(os.sched_getaffinity(0))
    if wanted:
        return (wanted,)
    return (0, count // 2) if count >= 4 else (0,)


def bench(
    pack: Pack,
    computing: Computing,
    *,
    tiles: int = 3,
    on_way: Callable[[Measured], None] | None = None,
) -> Bench:
    """Measure a pack's network.

    Parameters
    ----------
    pack
        A verified pack.
    computing
        The settings; what they fix is not varied.
    tiles
        Tiles timed each way, after one that warms up.
    on_way
        Called with each way when it is measured.

    Raises
    ------
    PackError
        A test vector cannot be read.
    """
    found = []
    for way in ways(pack, computing):
        item = _measure(pack, way, computing, tiles)
        found.append(item)
        if on_way is not None:
            on_way(item)
    return Bench(machine=machine(), at=datetime.now(UTC), tiles=tiles, ways=tuple(found))


def _measure(pack: Pack, way: Way, computing: Computing, tiles: int) -> Measured:
    facts = {
        "engine": way.engine,
        "device": way.device,
        "precision": way.precision,
        "threads": way.threads,
        "patch": way.patch,
    }
    try:
        engine = open_engine(
            pack,
            engine=way.engine,
            precision=way.precision,
            threads=way.threads,
            device=way.device,
            patch=way.patch,
            memory_mib=computing.memory_mib,
        )
        if engine.device != way.device:
            return Measured(**facts, problem=f"the {way.device} cannot run it")
        share, minimum = vector_agreement(pack, engine, expected_in=way.precision)
        seconds = _seconds_per_tile(engine, _tile(pack, way), tiles)
    except (InferenceError, PackError, RuntimeError) as error:
        return Measured(**facts, problem=str(error))
    if engine.device != way.device:
        return Measured(**facts, problem=f"the {way.device} stopped computing")
    return Measured(
        **facts,
        seconds_per_tile=round(seconds, 4),
        seconds_per_scan=round(seconds * tiles_of_a_trunk(pack, way.patch), 3),
        agreement=round(share, 5),
        problem="" if share >= minimum else f"{share:.4f} of the labels agree, {minimum:.4f} needed",
    )


def _seconds_per_tile(engine: Engine, tile: NDArray[np.int16], tiles: int) -> float:
    engine.run(tile)
    taken: list[float] = []
    while len(taken) < tiles and sum(taken) < _LONGEST_S:
        begun = time.perf_counter()
        engine.run(tile)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _tile(pack: Pack, way: Way) -> NDArray[np.int16]:
    vectors = pack.manifest.test_vectors
    if vectors and way.patch == pack.manifest.input.patch:
        path: Path = pack.path / vectors[0].path
        with np.load(path, allow_pickle=False) as item:
            hu: NDArray[np.int16] = item["hu"]
            return hu
    return np.random.default_rng(0).integers(-1000, 400, way.patch).astype(np.int16)


def tiles_of_a_trunk(pack: Pack, patch: Shape) -> int:
    """Return how many times the network runs for a trunk of 400 × 300 × 400 mm."""
    wanted = pack.manifest.input
    axes, _ = wanted.axes
    trunk = [max(1, round(_TRUNK_MM[axis] / spacing)) for axis, spacing in zip(axes, wanted.spacing_mm, strict=True)]
    return count_tiles(trunk, patch, overlap=wanted.overlap, tiling=wanted.tiling) << len(wanted.mirror_axes)
