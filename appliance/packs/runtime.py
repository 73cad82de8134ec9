"""The packs of a process that screens: opened, self-tested, and exchanged between two scans, never within one.

A pack that does not compute here what it should is replaced by the last good one; the replacement is kept in the
choice, so that every process of the box takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog

from appliance.errors import InferenceError, NotEnoughMemoryError, PackError
from appliance.inference.memory import room
from appliance.packs.choice import NOT_INSTALLED, Failure, changing, fingerprint, read_choice
from appliance.packs.measured import measured
from appliance.packs.pack import verify_files
from appliance.packs.registry import available, load_installed, providers
from appliance.packs.selftest import vector_agreement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from appliance.config import Settings
    from appliance.inference.engines import Engine
    from appliance.packs.pack import Pack
    from appliance.packs.rules import Rules

_log = structlog.get_logger()

#: Left free beside the networks of several packs that stay in memory: a scan of 1,000 slices and its screenings.
_FOR_A_SCAN_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Computing:
    """How networks are run; see :func:`appliance.inference.engines.open_engine`.

    Attributes
    ----------
    engine, precision, threads, device, patch, cache, memory_mib
        As there. Where ``"auto"`` (0 threads) leaves a choice, the quickest way that was measured on this box is taken.
    tiles
        Shapes of a tile to choose from for each scan, and what a tile of each was measured to take, seconds.
    measured
        Folder with what was measured (:mod:`appliance.packs.measured`), or ``None``.
    """

    engine: str = "auto"
    precision: str = "auto"
    threads: int = 0
    device: str = "auto"
    patch: tuple[int, int, int] | None = None
    cache: Path | None = None
    memory_mib: int = 0
    tiles: tuple[tuple[tuple[int, int, int], float], ...] = ()
    measured: Path | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Computing:
        """Make it from the whole configuration."""
        work, box = settings.work, settings.box
        # A command without a configuration leaves nothing behind where no service keeps its state.
        kept = work.compiled.is_absolute() or box.state_directory.is_dir()
        return cls(
            engine=work.engine,
            precision=work.precision,
            threads=work.threads,
            device=work.device,
            cache=box.state_directory / work.compiled if kept else None,
            memory_mib=work.memory_limit_mib,
            measured=box.packs,
        )


@dataclass(frozen=True, slots=True, eq=False)
class OpenPack:
    """A verified pack whose network was compiled and self-tested on this machine.

    Attributes
    ----------
    pack
        What it is.
    self_test
        Share of the test vectors' labels reproduced.
    precision, computing
        How it was opened when it passed.
    kept
        The compiled network; ``None`` where it is compiled anew each time, because memory is short for all of several.
    """

    pack: Pack
    self_test: float
    precision: str
    computing: Computing
    kept: Engine | None

    def engine(self) -> Engine:
        """Return the network, its files verified once more when they have to be read again.

        Raises
        ------
        PackError
            A file was altered since, or there is not enough memory now.
        InferenceError
            No engine could run it.
        """
        if self.kept is not None:
            return self.kept
        verify_files(self.pack.path, self.pack.manifest)
        try:
            return _compile(self.pack, self.precision, self.computing)
        except NotEnoughMemoryError as error:
            raise PackError(str(error)) from error  # the box's lack, and no scan's lost attempt


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What one scan is screened with, from its first tile to its report.

    Attributes
    ----------
    packs
        Ordered by name.
    providers
        Structure to the name of the pack that gives it.
    shadows
        Installed packs that run beside the active ones, name and version; opened by who needs them.
    """

    packs: tuple[OpenPack, ...]
    providers: dict[str, str]
    shadows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Fallback:
    """A version that was taken out of use.

    Attributes
    ----------
    name, version
        Which.
    instead
        The version used from now on; empty for the shipped one.
    text
        Why, as a sentence.
    """

    name: str
    version: str
    instead: str
    text: str


class Runtime:
    """The packs of one process.

    Parameters
    ----------
    rules
        Where packs lie and which are trusted.
    computing
        How networks are run.
    """

    def __init__(self, rules: Rules, computing: Computing) -> None:
        self._rules = rules
        self._computing = computing
        self._opened: dict[str, OpenPack] = {}
        self._current: Snapshot | None = None
        self._seen = (-1, -1, -1)
        self._fallbacks: list[Fallback] = []

    def snapshot(self) -> Snapshot:
        """Return what the next scan is screened with.

        Files are read and verified, and networks compiled and tested, only when the choice has changed since.

        Raises
        ------
        PackError
            A pack cannot be used and there is none to fall back to.
        """
        seen = fingerprint(self._rules.installed)
        if self._current is None or seen != self._seen:
            self._current = self._load()
            # Taken before loading: a change in between, a fallback's included, is looked at once more next time.
            self._seen = seen
        return self._current

    def take_fallbacks(self) -> list[Fallback]:
        """Return what was taken out of use since the last call."""
        taken, self._fallbacks = self._fallbacks, []
        return taken

    def open(self, pack: Pack, *, keep: bool | None) -> OpenPack:
        """Compile a pack's network and run its test vectors, or return it from before.

        Parameters
        ----------
        pack
            A verified pack.
        keep
            Keep the compiled network in memory; ``None`` keeps it as long as enough memory for a scan is left.

        Raises
        ------
        PackError
            It does not compute here what it should.
        InferenceError
            No engine could run it.
        """
        found = self._opened.get(pack.digest) or open_tested(pack, self._computing)
        if keep is None:
            keep = room(self._computing.memory_mib).free_bytes >= _FOR_A_SCAN_BYTES
        self._opened[pack.digest] = found if keep else replace(found, kept=None)
        return self._opened[pack.digest]

    def shadow(self, name: str, version: str) -> OpenPack:
        """Load and open an installed pack that runs as a shadow."""
        return self.open(load_installed(self._rules, name, version), keep=False)

    def _load(self) -> Snapshot:
        while True:
            packs = available(self._rules, on_failure=self._fall_back)
            try:
                opened = tuple(self._open_or_fall_back(pack, keep=True if len(packs) == 1 else None) for pack in packs)
            except _FellBack:
                continue
            break
        shadows = tuple(sorted(read_choice(self._rules.installed).shadow.items()))
        in_use = {item.pack.digest for item in opened}
        self._opened = {digest: item for digest, item in self._opened.items() if digest in in_use}
        return Snapshot(opened, providers(packs, self._rules.prefer), shadows)

    def _open_or_fall_back(self, pack: Pack, *, keep: bool | None) -> OpenPack:
        try:
            return self.open(pack, keep=keep)
        except NotEnoughMemoryError as error:
            raise PackError(str(error)) from error  # memory may be there again; no version is to blame
        except (PackError, InferenceError) as error:
            root = self._rules.installed
            if root is None or not pack.path.is_relative_to(root):
                raise PackError(str(error)) from error  # the box's fault, and no scan's
            self._fall_back(pack.name, pack.version, str(error))
            raise _FellBack from error

    def _fall_back(self, name: str, version: str, text: str) -> str:
        if self._rules.installed is None:
            raise PackError(text)
        with changing(self._rules.installed) as choice:
            if choice.active.get(name) == version:
                choice.failed[f"{name}/{version}"] = Failure(text=text, at=datetime.now(UTC))
                choice.step_back(name)
            instead = choice.active.get(name, NOT_INSTALLED)
        _log.error("pack_fell_back", pack=name, version=version, instead=instead or "shipped", why=text)
        self._fallbacks.append(Fallback(name, version, instead, text))
        return instead


class _FellBack(Exception):  # noqa: N818  # a signal to begin again, not an error
    """The choice has changed; load again."""


def open_tested(pack: Pack, computing: Computing) -> OpenPack:
    """Compile a pack's network as it will be used and run its test vectors.

    With precision ``"auto"``, one that this machine computes wrongly is passed over for the next.

    Raises
    ------
    PackError
        It reproduces too few of its test vectors' labels.
    InferenceError
        No engine could run it.
    """
    failures = []
    for attempt, precision in _attempts(pack, computing):
        try:
            engine = _compile(pack, precision, attempt)
        except NotEnoughMemoryError:
            raise
        except InferenceError as error:
            if attempt == computing:
                raise
            _log.warning("measured_way_not_usable", pack=pack.name, why=str(error))
            continue
        share, minimum = vector_agreement(pack, engine, expected_in=_asked(pack, engine, precision))
        if share >= minimum:
            return OpenPack(pack, share, precision, attempt, engine)
        failures.append(f"{engine.name} {engine.precision}: {share:.4f}")
        _log.error("pack_self_test_failed", pack=pack.name, engine=engine.name, precision=engine.precision, share=share)
    raise PackError(
        f"Pack {pack.name} {pack.version} does not compute on this machine what it should: too few labels of its test "
        f"vectors agree ({'; '.join(failures)})."
    )


def _compile(pack: Pack, precision: str, computing: Computing) -> Engine:
    from appliance.inference.engines import open_engine
    from appliance.inference.fitting import FittingEngine
    from appliance.inference.tiling import count_tiles

    def opened(patch: tuple[int, int, int] | None) -> Engine:
        return open_engine(
            pack,
            engine=computing.engine,
            precision=precision,
            threads=computing.threads,
            cache=computing.cache,
            device=computing.device,
            patch=patch,
            memory_mib=computing.memory_mib,
        )

    engine = opened(computing.patch)
    if len(computing.tiles) <= 1 or pack.manifest.task != "segmentation":
        return engine
    wanted = pack.manifest.input
    count = partial(count_tiles, overlap=wanted.overlap, tiling=wanted.tiling)
    return FittingEngine(engine, opened, dict(computing.tiles), count)


def _attempts(pack: Pack, computing: Computing) -> Iterator[tuple[Computing, str]]:
    """Ways to open a pack: what was measured to be the quickest here, then what is preferred everywhere."""
    bench = measured(computing.measured, pack.digest)
    way = bench and bench.fastest(
        pack,
        engine=computing.engine,
        device=computing.device,
        precision=computing.precision,
        threads=computing.threads,
    )
    if bench and way:
        chosen = replace(
            computing,
            engine=way.engine,
            threads=way.threads,
            device=way.device,
            patch=way.patch,
            tiles=tuple(bench.seconds_by_patch(way).items()),
        )
        yield chosen, way.precision
    for precision in _candidates(pack, computing):
        yield computing, precision


def _candidates(pack: Pack, computing: Computing) -> Sequence[str]:
    if computing.precision != "auto":
        return (computing.precision,)
    # The first is open_engine's own choice with its fallback from engine to engine; then what is computed more exactly.
    return ("auto", *pack.automatic("openvino")[1:])


def _asked(pack: Pack, engine: Engine, precision: str) -> str:
    """Precision whose stored labels are expected."""
    if precision != "auto":
        return precision
    return pack.automatic(engine.name)[0]
