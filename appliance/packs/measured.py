"""What was measured on this box, so that "auto" means the quickest way that computes what it should.

One small file beside the choice of packs. What was measured on another machine, or with other versions of the engines,
counts for nothing.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from appliance.durable import write_durably
from appliance.errors import PackError
from appliance.inference.compiled import processor
from appliance.packs.choice import locked, owner_of

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.packs.pack import Pack

_log = structlog.get_logger()

FILE = "bench.json"
_LOCK = ".bench.lock"
_ENGINES = ("openvino", "onnxruntime")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Part):
    """One way to run a pack's network."""

    engine: str
    device: str
    precision: str = Field(title="As asked for")
    threads: int = Field(title="0 is all")
    patch: tuple[int, int, int]
    seconds_per_tile: float | None = Field(None, title="Best of the tiles after one to warm up")
    seconds_per_scan: float | None = Field(None, title="For the tiles of a trunk of 400 × 300 × 400 mm")
    agreement: float | None = Field(None, title="Least share of the test vectors' labels reproduced")
    problem: str = Field("", title="Why it cannot be used; empty when it can")


class Bench(_Part):
    """What was measured of one pack."""

    machine: dict[str, str]
    at: AwareDatetime
    tiles: int = Field(title="Tiles timed, each way")
    ways: tuple[Measured, ...]

    def fastest(
        self, pack: Pack, *, engine: str = "auto", device: str = "auto", precision: str = "auto", threads: int = 0
    ) -> Measured | None:
        """Return the quickest usable way among those that the pack and the settings leave open, or ``None``.

        A precision that failed its gate may have been measured, because the settings then asked for it; of itself it is
        never chosen.
        """
        fitting = [
            way
            for way in self.ways
            if not way.problem
            and way.seconds_per_scan is not None
            and engine in {"auto", way.engine}
            and device in {"auto", way.device}
            and (way.precision in pack.automatic(way.engine) if precision == "auto" else precision == way.precision)
            and threads in {0, way.threads}
        ]
        return min(fitting, key=lambda way: way.seconds_per_scan or 0.0, default=None)

    def seconds_by_patch(self, way: Measured) -> dict[tuple[int, int, int], float]:
        """Return what a tile takes in each usable shape, run as a way is; seconds."""
        same = way.model_dump(include={"engine", "device", "precision", "threads"})
        return {
            item.patch: item.seconds_per_tile
            for item in self.ways
            if not item.problem and item.seconds_per_tile and item.model_dump(include=set(same)) == same
        }


class _File(BaseModel):
    """The content of ``bench.json``; keys of ``packs`` are digests."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    packs: dict[str, Bench] = Field(default_factory=dict)


def machine() -> dict[str, str]:
    """Return what must not have changed for a measurement to count."""
    facts = {"processor": processor(), "cpus": str(len(os.sched_getaffinity(0)))}
    for engine in _ENGINES:
        with suppress(PackageNotFoundError):
            facts[engine] = version(engine)
    return facts


def measured(root: Path | None, digest: str) -> Bench | None:
    """Return what was measured of a pack on this machine; ``None`` when nothing was, or it counts no more.

    Parameters
    ----------
    root
        Folder of the installed packs.
    digest
        Of the pack.
    """
    found = _read(root).packs.get(digest) if root is not None else None
    if found is not None and found.machine != machine():
        _log.info("bench_stale", pack=digest, measured_at=found.at.isoformat(timespec="seconds"))
        return None
    return found


def keep(root: Path, digest: str, bench: Bench) -> None:
    """Keep a measurement, and forget those of other machines.

    Raises
    ------
    PackError
        The folder cannot be written.
    """
    with locked(root, _LOCK):
        packs = {key: item for key, item in _read(root).packs.items() if item.machine == bench.machine}
        content = _File(packs={**packs, digest: bench}).model_dump(mode="json")
        try:
            write_durably(root / FILE, (json.dumps(content, indent=1) + "\n").encode(), owner=owner_of(root))
        except OSError as error:
            raise PackError(f"{root / FILE}: what was measured cannot be written ({error.strerror}).") from error


def _read(root: Path) -> _File:
    try:
        return _File.model_validate_json((root / FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return _File()
    except (OSError, ValidationError) as error:
        # Measuring again mends it; until then "auto" is what it is without a measurement.
        _log.warning("bench_unreadable", file=str(root / FILE), error=type(error).__name__)
        return _File()
