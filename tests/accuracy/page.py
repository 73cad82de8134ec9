"""Turns what was measured into ``docs/accuracy.md``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from appliance.screenings.registry import screenings
from tests.accuracy.grid import GRID
from tests.accuracy.judged import AIMS, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from appliance.phantom import PhantomOptions
    from tests.accuracy.real import Line

Judged = dict[str, dict[str, list[Comparison]]]

_HEAD = """\
# Accuracy

Printed by `make accuracy` (`tests/accuracy/`) on {where}, {when}; nothing here was written by hand.
The digital patient is a phantom: simpler than a person, of our own making, and the network has seen its like. The real
scans are few, most of them copies with voxels of 2 mm, and one person who is no radiologist read them
([the readings](../tests/readings/README.md)). None of this is a clinical validation.

## How to read the tables

Every screening runs through the planner and the guards, as on the box. *n of m* is how often a number was given where
the truth is known and the scan shows it; the rest are refusals, with their coded reasons. *Typical* is the median of
the unsigned errors, *worst* the largest with its sign and the scan it occurred in. *Within the aim* counts numbers, not
refusals.
"""


def page(judged: Judged, lines: Sequence[Line], missing: Sequence[str], card: Path, where: str, when: str) -> str:
    """Put the page together.

    Parameters
    ----------
    judged
        ``"true map"`` and ``"network's map"`` to each scan of the grid to its comparisons.
    lines
        Of the real scans.
    missing
        Scans that were not measured in the time there was.
    card
        The pack's model card, whose table of Dice is repeated here.
    where, when
        Machine and date.
    """
    parts = [_HEAD.format(where=where, when=when)]
    if missing:
        parts.append(
            "**Not measured in the time that this run had, and in none of the tables:** "
            f"{'; '.join(missing)}. "
            "The same command goes on where it stopped.\n"
        )
    parts += [*_grid_section(judged), *_real_section(lines), *_dice_section(card)]
    return "\n".join(parts).rstrip() + "\n"


# --- the digital patients -------------------------------------------------------------------------------------------
def _grid_section(judged: Judged) -> Iterable[str]:
    yield "## The grid of digital patients\n"
    yield (
        f"{len(judged['true map'])} scans of whole trunks, each patient with something of everything, sizes and "
        "densities varied together with the scan (`tests/accuracy/grid.py`).\n"
    )
    header = ("scan", "slices, apart", "pixel", "noise", "kernel", "lies", "aorta asc / desc / abd", "trunk", "liver")
    yield _table(header, [_described(name, GRID[name]) for name in judged["true map"]])
    titles = {
        "true map": (
            "### With the true organ map\n",
            "What the measuring code does when the map makes no mistake; the aims are meant for this.\n",
        ),
        "network's map": (
            "### The same scans with the network's own map\n",
            "The pack that ships, in the precision that it ships in. What is worse here is the map's fault.\n",
        ),
    }
    for kind, (title, text) in titles.items():
        yield title
        yield text
        yield _aims_table(judged[kind])
    yield "### Scan by scan\n"
    yield (
        "Errors with the true map / with the network's map, in the unit of the aim, the largest of several; `–` is a "
        "refusal, an empty cell that the scan has no such thing.\n"
    )
    yield from _by_scan(judged)


def _described(name: str, options: PhantomOptions) -> list[str]:
    turned = f"oblique {options.oblique_degrees:g}°" if options.oblique_degrees else ""
    wide = (
        options.ascending_aorta_diameter_mm,
        options.descending_aorta_diameter_mm,
        options.abdominal_aorta_diameter_mm,
    )
    aorta = " / ".join(f"{diameter_mm:g}" for diameter_mm in wide)
    tilted = f"tilt {options.gantry_tilt_degrees:g}°" if options.gantry_tilt_degrees else ""
    return [
        name,
        f"{options.slice_thickness_mm:g}, {options.slice_spacing_mm:g} mm",
        f"{options.pixel_spacing_mm:g} mm",
        f"{options.noise_hu:g} HU",
        options.kernel,
        ", ".join(filter(None, (options.patient_position, turned, tilted))),
        f"{aorta} mm",
        f"{options.pulmonary_trunk_diameter_mm:g} mm",
        f"{options.liver_hu:g} HU",
    ]


def _aims_table(scans: dict[str, list[Comparison]]) -> str:
    rows = []
    for aim, wanted in AIMS.items():
        all_of = [(name, item) for name, items in scans.items() for item in items if item.aim == aim]
        given = [(name, error) for name, item in all_of if (error := item.error) is not None]
        refused = Counter(item.reason for _, item in all_of if item.measured is None)
        errors = np.array([error for _, error in given])
        within = int(np.count_nonzero(np.abs(errors) <= wanted.most + 1e-9))
        name, error = max(given, key=lambda pair: abs(pair[1])) if given else ("", 0.0)
        rows.append(
            [
                wanted.title,
                f"{wanted.most:g} {wanted.unit}".strip(),
                f"{len(given)} of {len(all_of)}",
                f"{np.median(np.abs(errors)):.1f}" if given else "",
                f"{error:+.1f} ({name})" if given else "",
                f"{within} of {len(given)}",
                ", ".join(f"{count} × {_code(reason)}" for reason, count in refused.most_common()),
            ]
        )
    return _table(("measurement", "aim", "n of m", "typical", "worst", "within the aim", "refused"), rows)


def _by_scan(judged: Judged) -> Iterable[str]:
    """One table for each region, for a table of all would be too wide to read."""
    parts = {
        "chest": ("agatston", "no_calcium", "laa950", "ascending", "descending", "trunk", "effusion", "no_effusion"),
        "spine": ("trabecular", "wedge", "sound", "sound_above"),
        "belly": ("abdominal", "liver", "spleen", "stone", "stone_mm", "muscle", "subcutaneous", "visceral"),
    }
    for part, aims in parts.items():
        rows = []
        for name in judged["true map"]:
            cells = [
                " / ".join(_largest(judged[kind][name], aim) for kind in ("true map", "network's map")) for aim in aims
            ]
            rows.append([name, *("" if cell == " / " else cell for cell in cells)])
        yield _table((part, *(AIMS[aim].title for aim in aims)), rows)


def _largest(items: list[Comparison], aim: str) -> str:
    of_it = [item for item in items if item.aim == aim]
    errors = [item.error for item in of_it if item.error is not None]
    if not of_it:
        return ""
    return f"{max(errors, key=abs):+.1f}" if errors else "–"


# --- real scans -----------------------------------------------------------------------------------------------------
def _real_section(lines: Sequence[Line]) -> Iterable[str]:
    scans = list(dict.fromkeys(line.scan for line in lines))
    yield "## Real scans\n"
    yield (
        f"The ten screenings on all {len(scans)} series of the open trunk scans, with the network's own map but where "
        "the name says otherwise. Names that end in `_plain` and `_contrast` are copies with voxels of 2 mm, whose "
        "headers are lost: they are taken to say 120 kV and, of the contrast scans, nothing of contrast. The network "
        "learnt from twelve of the fifteen copies; `lidc_0002`, `lidc_0009` and `lungdx_a0002` are of patients it "
        "never saw. "
        "A diameter was read at one level, the screening tells the widest place.\n"
    )
    yield "### How often there was a number\n"
    yield _table(
        ("screening", "numbers", "reasons of the others"),
        [[f"`{name}`", *_given(lines, name, len(scans))] for name in screenings()],
    )
    yield "### Against the readings\n"
    yield _table(("measurement", "scans with both", "mean difference", "spread", "worst"), list(_differences(lines)))
    for name, screening in screenings().items():
        yield f"### {screening.title}\n"
        rows = [
            [line.scan, f"`{line.name}`", _number(line), line.read, _difference(line)]
            for line in lines
            if line.screening == name
        ]
        yield _table(("scan", "measurement", "measured, or why not", "read by hand", "difference"), rows)


def _given(lines: Sequence[Line], name: str, scans: int) -> tuple[str, str]:
    own = [line for line in lines if line.screening == name]
    given = {line.scan for line in own if line.measured is not None}
    reasons = Counter({line.scan: line.reason for line in own if line.scan not in given}.values())
    said = ", ".join(f"{count} × {_code(reason)}" for reason, count in reasons.most_common())
    return f"{len(given)} of {scans}", said


def _differences(lines: Sequence[Line]) -> Iterable[list[str]]:
    for name in dict.fromkeys(line.name for line in lines):
        pairs = [(line.scan, line.difference) for line in lines if line.name == name]
        both = [(scan, difference) for scan, difference in pairs if difference is not None]
        if both:
            values = np.array([difference for _, difference in both])
            scan, worst = max(both, key=lambda pair: abs(pair[1]))
            spread = f"{values.std(ddof=1):.1f}" if len(both) > 1 else ""
            yield [f"`{name}`", str(len(both)), f"{values.mean():+.1f}", spread, f"{worst:+.1f} ({scan})"]


def _number(line: Line) -> str:
    return _code(line.reason) if line.measured is None else f"{line.measured:.1f}"


def _difference(line: Line) -> str:
    return "" if line.difference is None else f"{line.difference:+.1f}"


# --- the map itself -------------------------------------------------------------------------------------------------
def _dice_section(card: Path) -> Iterable[str]:
    yield "## The organ map itself\n"
    yield (
        "Dice on the three held-out scans and one digital patient, from the pack's "
        "[model card](../models/trunk/MODEL_CARD.md), which tells what the references are and why they flatter.\n"
    )
    lines = card.read_text(encoding="utf-8").splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("| structure | scans |"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append(line)
    yield "\n".join(table) + "\n"


# --- words ----------------------------------------------------------------------------------------------------------
def _code(reason: str) -> str:
    return f"`{reason}`" if " " not in reason else reason


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
