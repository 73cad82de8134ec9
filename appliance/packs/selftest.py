"""Whether a pack still gives, on this machine, the labels it gave when it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.errors import InferenceError, PackError
from appliance.inference.tiling import label_tiles
from appliance.packs.detection_selftest import detection_agreement

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.packs.pack import Pack


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well one engine and precision reproduced a pack's test vectors.

    Attributes
    ----------
    engine, precision
        What was asked for.
    used
        What the engine really computed in.
    share
        Least share of equal labels over all vectors, among voxels that are not background in both.
    minimum
        What the pack demands.
    """

    engine: str
    precision: str
    used: str
    share: float
    minimum: float

    @property
    def passed(self) -> bool:
        """Whether the pack may be used so."""
        return self.share >= self.minimum


def agreement(found: np.ndarray, expected: np.ndarray) -> float:
    """Share of equal labels among voxels that are not background in both."""
    either = (found > 0) | (expected > 0)
    if not either.any():
        return 1.0
    return float(np.count_nonzero((found == expected) & either)) / float(np.count_nonzero(either))


def self_test(pack: Pack, *, threads: int = 0, cache: Path | None = None) -> tuple[Agreement, ...]:
    """Run every network of a pack on its test vectors.

    Parameters
    ----------
    pack
        A verified pack.
    threads, cache
        See :func:`appliance.inference.engines.open_engine`.

    Returns
    -------
    tuple[Agreement, ...]
        One per engine and precision.

    Raises
    ------
    PackError
        A test vector cannot be read.
    InferenceError
        An engine could not run a network.
    """
    from appliance.inference.engines import open_engine

    results = []
    for network in pack.manifest.networks:
        for precision in network.precisions:
            engine = open_engine(pack, engine=network.engine, precision=precision, threads=threads, cache=cache)
            share, minimum = vector_agreement(pack, engine, expected_in=precision)
            results.append(Agreement(network.engine, precision, engine.precision, share, minimum))
    return tuple(results)


def vector_agreement(pack: Pack, engine: Engine, *, expected_in: str) -> tuple[float, float]:
    """Run a pack's test vectors on an engine that is open.

    Parameters
    ----------
    pack, engine
        A verified pack and its compiled network.
    expected_in
        Precision whose stored labels are expected.

    Returns
    -------
    tuple[float, float]
        Least share of equal labels over all vectors, and what the pack demands. An output that is not finite agrees
        with nothing.

    Raises
    ------
    PackError
        A test vector cannot be read or has another shape than the pack's patch.
    """
    if pack.manifest.task == "detection":
        return detection_agreement(pack, engine, expected_in=expected_in)
    shares, minimum = [1.0], 0.0
    for vector in pack.manifest.test_vectors:
        hu, expected = read_vector(pack.path / vector.path, expected_in)
        if hu.shape != pack.manifest.input.patch or expected.shape != hu.shape:
            raise PackError(f"Pack {pack.name} {pack.version}: {vector.path} does not have the shape of a patch.")
        found = _labels(pack, engine, hu)
        shares.append(agreement(found, expected) if found is not None else 0.0)
        minimum = max(minimum, vector.minimum_agreement)
    return min(shares), minimum


def _labels(pack: Pack, engine: Engine, hu: NDArray[np.int16]) -> NDArray[np.uint8] | None:
    """Label a patch, in tiles where the engine's are of another shape; ``None`` where an answer is not finite."""
    wanted = pack.manifest.input
    try:
        return label_tiles(
            hu,
            engine.run,
            patch=engine.patch,
            overlap=wanted.overlap,
            fill_hu=wanted.fill_hu,
            weighting=wanted.weighting,
        )
    except InferenceError:
        return None


def read_vector(path: Path, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a test vector: int16 HU in the pack's patch shape and the uint8 labels expected in a precision.

    Raises
    ------
    PackError
        The file is unreadable or lacks that precision.
    """
    try:
        with np.load(path, allow_pickle=False) as item:
            return item["hu"], item[f"labels_{precision}"]
    except (OSError, KeyError, ValueError) as error:
        raise PackError(f"{path}: not a usable test vector: {error}.") from error
