"""``appliance packs bench``: how quickly this box runs its packs, and which way it will take."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from appliance.commands.packs import find_pack
from appliance.errors import PackError
from appliance.packs.bench import bench
from appliance.packs.measured import keep
from appliance.packs.registry import ALL_TASKS, available
from appliance.packs.rules import Rules
from appliance.packs.runtime import Computing

if TYPE_CHECKING:
    from appliance.config import Settings
    from appliance.packs.measured import Bench, Measured
    from appliance.packs.pack import Pack

#: Tiles timed each way right after an installation: enough to choose, quick enough to wait for.
_SHORT = 1


def bench_packs(settings: Settings, name: str | None, *, tiles: int, as_json: bool) -> None:
    """Measure one pack, or all in use; print a table of each and keep the choice.

    Parameters
    ----------
    settings
        The whole configuration; what it fixes is not varied.
    name
        A pack in use, ``NAME/VERSION`` for an installed one, or a folder; ``None`` measures all in use.
    tiles
        Tiles timed each way.
    as_json
        Print JSON.

    Raises
    ------
    ConfigurationError, PackError
        There is no such pack, or it cannot be used.
    """
    rules = Rules.from_settings(settings)
    packs = available(rules, tasks=ALL_TASKS) if name is None else (find_pack(rules, name),)
    rows = []
    for pack in packs:
        found = bench(pack, Computing.from_settings(settings), tiles=tiles)
        kept = _keep(settings, pack, found)
        if as_json:
            rows.append(_as_json(pack, found, kept=kept, settings=settings))
        else:
            _print(pack, found, settings)
    if as_json:
        print(json.dumps(rows, indent=1))  # noqa: T201


def bench_installed(pack: Pack, settings: Settings) -> None:
    """Measure a pack that was just installed, shortly, and say which way it will be run; fails no installation."""
    try:
        found = bench(pack, Computing.from_settings(settings), tiles=_SHORT)
    except PackError as error:
        print(f"{pack.name} {pack.version}: not measured: {error}", file=sys.stderr)  # noqa: T201
        return
    _keep(settings, pack, found)
    print(_choice(pack, found, settings))  # noqa: T201


def _keep(settings: Settings, pack: Pack, found: Bench) -> bool:
    try:
        keep(settings.box.packs, pack.digest, found)
    except PackError as error:
        print(f"{pack.name} {pack.version}: what was measured is not kept: {error}", file=sys.stderr)  # noqa: T201
        return False
    return True


def _fastest(pack: Pack, found: Bench, settings: Settings) -> Measured | None:
    work = settings.work
    return found.fastest(pack, engine=work.engine, device=work.device, precision=work.precision, threads=work.threads)


def _as_json(pack: Pack, found: Bench, *, kept: bool, settings: Settings) -> dict[str, Any]:
    chosen = _fastest(pack, found, settings)
    return {
        "name": pack.name,
        "version": pack.version,
        "digest": pack.digest,
        **found.model_dump(mode="json"),
        "chosen": chosen.model_dump(mode="json") if chosen is not None else None,
        "kept": kept,
    }


def _choice(pack: Pack, found: Bench, settings: Settings) -> str:
    chosen = _fastest(pack, found, settings)
    if chosen is None:
        return f"{pack.name} {pack.version}: no way to run it on this box was good"
    return (
        f"{pack.name} {pack.version}: runs here with {chosen.engine}, {chosen.precision}, {chosen.device}, "
        f"{_threads(chosen)}, tiles of {_patch(chosen)}: {chosen.seconds_per_tile:.3f} s a tile, "
        f"{chosen.seconds_per_scan:.1f} s a trunk"
    )


def _threads(way: Measured) -> str:
    return "all threads" if way.threads == 0 else f"{way.threads} threads"


def _patch(way: Measured) -> str:
    return "×".join(str(size) for size in way.patch)


def _print(pack: Pack, found: Bench, settings: Settings) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(pad_edge=False, box=None)
    for heading in (
        "Engine",
        "Device",
        "Precision",
        "Threads",
        "Tile",
        "s a tile",
        "s a trunk",
        "Agreement",
        "Verdict",
    ):
        table.add_column(heading, overflow="fold")
    chosen = _fastest(pack, found, settings)
    for way in found.ways:
        threads = "all" if way.threads == 0 else str(way.threads)
        figures = [
            "" if value is None else f"{value:.{digits}f}"
            for value, digits in ((way.seconds_per_tile, 3), (way.seconds_per_scan, 2), (way.agreement, 4))
        ]
        verdict = way.problem or ("chosen" if way == chosen else "good")
        table.add_row(way.engine, way.device, way.precision, threads, _patch(way), *figures, verdict)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{pack.name} {pack.version}")
    console.print(table)
    console.print(_choice(pack, found, settings))
