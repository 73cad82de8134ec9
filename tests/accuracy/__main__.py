"""Measure how right the screenings are, and write ``docs/accuracy.md``.

``python -m tests.accuracy [--only NAME] [--minutes N]``. What was measured is kept in ``build/accuracy`` under the
digest of the code and the pack that measured it, so that a run that was stopped goes on, and one after a change starts
afresh.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.accuracy.grid import GRID
from tests.accuracy.judged import Comparison, compare
from tests.accuracy.page import page
from tests.accuracy.real import Line, lines_of
from tests.accuracy.real import names as real_names
from tests.benchmarks.bench_pipeline import cpu_name

if TYPE_CHECKING:
    from appliance.anatomy.organ_map import OrganMap
    from appliance.inference.engines import Engine
    from appliance.packs.pack import Pack
    from appliance.phantom import PhantomOptions
    from appliance.phantom.truth import Truth
    from appliance.scan import Scan

REPOSITORY = Path(__file__).parents[2]
PACK = REPOSITORY / "models" / "trunk"
KEPT = REPOSITORY / "build" / "accuracy"
PAGE = REPOSITORY / "docs" / "accuracy.md"
#: What decides a number: a change in any of it makes what was kept worthless.
_DECIDING = ("anatomy", "dicom/image", "inference", "phantom", "screenings", "scan.py", "reasons.py")


@cache
def digest() -> str:
    """Of the code that measures, of the questions, and of the pack."""
    found = hashlib.sha256((PACK / "pack.toml").read_bytes())
    roots = [REPOSITORY / "appliance" / part for part in _DECIDING]
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*.py")))]
    for file in [*files, *(Path(__file__).with_name(f"{name}.py") for name in ("grid", "judged", "real"))]:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


@cache
def pack_and_engine() -> tuple[Pack, Engine]:
    """The pack that ships, in the precision that it ships in."""
    from appliance.inference.engines import open_engine
    from appliance.packs.pack import load

    pack = load(PACK)
    return pack, open_engine(pack, threads=1)


def mapped(scan: Scan) -> OrganMap:
    """The network's own map of a scan."""
    from appliance.anatomy.mapper import map_with

    return map_with(scan.volume, *pack_and_engine())


def digital(name: str) -> dict[str, list[dict[str, Any]]]:
    """Screen one patient of the grid with the true map and with the network's."""
    from tests.screenings.panel import panel
    from tests.screenings.patients import organs_of

    scan, truth = _scanned(GRID[name])
    maps = {"true map": organs_of(GRID[name]), "network's map": mapped(scan)}
    return {kind: [asdict(item) for item in compare(truth, panel(scan, organs)[0])] for kind, organs in maps.items()}


def _scanned(options: PhantomOptions) -> tuple[Scan, Truth]:
    from appliance.dicom.image.volume import build_scan
    from appliance.phantom import render, write_series
    from tests.screenings.patients import scan_of

    if not options.gantry_tilt_degrees:
        volume, truth = render(options)
        return scan_of(options, volume), truth
    with tempfile.TemporaryDirectory() as folder:
        truth = write_series(options, Path(folder))
        return build_scan(sorted(Path(folder).glob("*.dcm"))), truth


def real(name: str) -> list[dict[str, Any]]:
    """Screen one real scan."""
    return [asdict(line) for line in lines_of(name, mapped)]


def _kept(kind: str, name: str) -> Path:
    slug = "".join(letter if letter.isalnum() else "-" for letter in f"{kind} {name}")
    return KEPT / digest() / f"{slug}.json"


def measure(kind: str, name: str) -> Any:
    """Take an answer that was kept, or measure and keep it."""
    kept = _kept(kind, name)
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    found = digital(name) if kind == "digital" else real(name)
    kept.parent.mkdir(parents=True, exist_ok=True)
    half = kept.with_suffix(f".{os.getpid()}")
    half.write_text(json.dumps(found), encoding="utf-8")
    half.replace(kept)
    return found


def main() -> None:
    """Measure on some processes for some minutes, then write the page of what is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only what has this in its name; prints, writes no page")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=25.0, help="nothing is begun after this time")
    options = parser.parse_args()
    wanted = [("digital", name) for name in GRID] + [("real", name) for name in real_names()]
    wanted = [(kind, name) for kind, name in wanted if options.only in name]
    started = time.monotonic()
    found: dict[tuple[str, str], Any] = {}
    with ProcessPoolExecutor(options.processes) as pool:
        running = {pool.submit(_in_time, *one, time.time() + 60.0 * options.minutes): one for one in wanted}
        for done in as_completed(running):
            if done.result() is None:
                continue
            found[running[done]] = done.result()
            seconds = time.monotonic() - started
            print(f"{len(found)} of {len(wanted)}, {seconds:.0f} s: {running[done][1]}", file=sys.stderr, flush=True)
    judged = {
        kind: {
            name: [Comparison(**item) for item in found["digital", name][kind]]
            for name in GRID
            if ("digital", name) in found
        }
        for kind in ("true map", "network's map")
    }
    lines = [Line(**item) for one in wanted if one[0] == "real" and one in found for item in found[one]]
    missing = [name for kind, name in wanted if (kind, name) not in found]
    if options.only:
        for scans in judged.values():
            print(*(f"{name}: {item} {item.error}" for name, items in scans.items() for item in items), sep="\n")
        print(*lines, sep="\n")
        return
    where, when = f"{cpu_name()}, {os.cpu_count()} cores", f"{datetime.now(UTC):%Y-%m-%d}"
    PAGE.write_text(page(judged, lines, missing, PACK / "MODEL_CARD.md", where, when), encoding="utf-8")
    print(f"{PAGE} written after {time.monotonic() - started:.0f} s; {len(missing)} scans not measured yet")


def _in_time(kind: str, name: str, until: float) -> Any:
    """Measure, unless the time is over and nothing was kept; a clock, for the processes share no other."""
    return measure(kind, name) if time.time() < until or _kept(kind, name).exists() else None


if __name__ == "__main__":
    main()
