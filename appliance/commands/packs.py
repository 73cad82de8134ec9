"""``appliance packs``: which networks are on this box, what is known of them, and whether they are whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from appliance.anatomy.detectables import DETECTABLES
from appliance.errors import ConfigurationError, PackError
from appliance.packs.choice import NOT_INSTALLED, read_choice
from appliance.packs.gates import gate_lines, structure_lines, tile_gate_line
from appliance.packs.manifest import MANIFEST
from appliance.packs.pack import UNSIGNED, load
from appliance.packs.registry import ALL_TASKS, available, load_installed, load_shipped, load_trusted, shipped_folders
from appliance.packs.rules import Rules

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config import Settings
    from appliance.packs.manifest import Manifest
    from appliance.packs.pack import Pack


def list_packs(settings: Settings, *, as_json: bool) -> None:
    """Print one line per pack: those in use, then those that are installed and not in use."""
    rows = _rows(Rules.from_settings(settings))
    if as_json:
        print(json.dumps(rows, indent=1))  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(pad_edge=False, box=None)
    for heading in ("Pack", "Version", "State", "Trust", "Provides", "Precisions", "Licence"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        # What exactly it gives, and on which engine, is said by `show`.
        things = "findings" if set(row["provides"]) <= set(DETECTABLES) else "structures"
        provides = f"{len(row['provides'])} {things}"
        precisions = dict.fromkeys(item.partition(" ")[0] for item in row["precisions"])
        states = ", ".join(row["states"])
        table.add_row(
            row["name"], row["version"], states, row["trust"], provides, ", ".join(precisions), row["licence"]
        )
    Console(highlight=False).print(table)


def _rows(rules: Rules) -> list[dict[str, Any]]:
    choice = read_choice(rules.installed)
    used = available(rules, tasks=ALL_TASKS)
    rows = []
    for pack in used:
        installed = choice.active.get(pack.name) == pack.version
        rows.append(_identity(pack) | {"states": ["active"] if installed else ["active", _origin(pack)]})
    in_use = {pack.path for pack in used}
    for folder in shipped_folders():
        if folder not in in_use:
            pack = load_shipped(folder, rules)
            before = NOT_INSTALLED in choice.history.get(pack.name, [])
            rows.append(_identity(pack) | {"states": ["shipped", "previous"] if before else ["shipped"]})
    for key, accepted in sorted(choice.installed.items()):
        name, _, version = key.partition("/")
        if choice.active.get(name) == version:
            continue
        states = ["previous"] if version in choice.history.get(name, []) else ["installed"]
        states += ["shadow"] if choice.shadow.get(name) == version else []
        states = ["failed"] if key in choice.failed else states
        try:
            row = _identity(load_installed(rules, name, version))
        except PackError:
            row = {"name": name, "version": version, "digest": accepted.digest, "trust": accepted.trust}
            row |= {"provides": [], "precisions": [], "licence": ""}
            states = ["failed"]
        rows.append(row | {"states": states})
    return rows


def _origin(pack: Pack) -> str:
    return "shipped" if pack.path in shipped_folders() else "folder"


def show_pack(settings: Settings, name: str, *, as_json: bool) -> None:
    """Print what a pack is, gives and must not be used for, with its evidence.

    Parameters
    ----------
    settings
        The whole configuration.
    name
        A pack in use, ``NAME/VERSION`` for an installed one, or a folder.
    as_json
        Print JSON.

    Raises
    ------
    ConfigurationError
        There is no such pack.
    PackError
        It may not be used.
    """
    pack = find_pack(Rules.from_settings(settings), name)
    if as_json:
        print(json.dumps(_identity(pack) | pack.manifest.model_dump(mode="json"), indent=1, ensure_ascii=False))  # noqa: T201
        return
    print("\n".join(_lines(pack)))  # noqa: T201


def find_pack(rules: Rules, name: str) -> Pack:
    """Find a pack in use, an installed one as ``NAME/VERSION``, or a folder, which need not be trusted to be read.

    Raises
    ------
    ConfigurationError
        There is no such pack.
    PackError
        It may not be used.
    """
    from pathlib import Path

    folder = Path(name)
    if (folder / MANIFEST).is_file():
        return _load_for_reading(folder, rules)
    first, _, version = name.partition("/")
    if version:
        return load_installed(rules, first, version)
    packs = {pack.name: pack for pack in available(rules, tasks=ALL_TASKS)}
    if name not in packs:
        raise ConfigurationError(f"there is no pack {name!r}; in use: {', '.join(packs) or 'none'}")
    return packs[name]


def _load_for_reading(folder: Path, rules: Rules) -> Pack:
    """Reading a pack needs no trust; what it is worth is printed with it."""
    try:
        return load_trusted(folder, rules)
    except PackError:
        return load(folder)


def verify_packs(settings: Settings) -> bool:
    """Check signatures and digests and run the test vectors in every precision; print a line each.

    Returns
    -------
    bool
        Whether every pack passed.
    """
    from appliance.packs.selftest import self_test

    passed = True
    for pack in available(Rules.from_settings(settings), tasks=ALL_TASKS):  # loading has compared every digest already
        print(  # noqa: T201
            f"{pack.name} {pack.version}: {pack.trust}, {len(pack.manifest.files)} files whole, {pack.digest}"
        )
        for agreement in self_test(pack):
            word = "passed" if agreement.passed else "FAILED"
            asked = f"{agreement.engine} {agreement.precision}"
            used = "" if agreement.used == agreement.precision else f" (computed in {agreement.used})"
            print(  # noqa: T201
                f"  {asked}{used}: {agreement.share:.4f} of the labels agree, {agreement.minimum:.4f} needed: {word}"
            )
            passed = passed and agreement.passed
    return passed


def _identity(pack: Pack) -> dict[str, Any]:
    return {
        "name": pack.name,
        "version": pack.version,
        "digest": pack.digest,
        "trust": pack.trust,
        "provides": list(pack.provides),
        "precisions": _precisions(pack),
        "licence": pack.manifest.licence,
    }


def _precisions(pack: Pack) -> list[str]:
    return [f"{precision} ({network.engine})" for network in pack.manifest.networks for precision in network.precisions]


_LICENCE_WORDS = {
    "open": "any use",
    "non-commercial": "no commercial use",
    "restricted": "read the licence before any use",
}


def _lines(pack: Pack) -> list[str]:
    manifest = pack.manifest
    spacing = " × ".join(f"{value:g}" for value in manifest.input.spacing_mm)
    patch = " × ".join(str(value) for value in manifest.input.patch)
    trust = "no signature that this box trusts" if pack.trust == UNSIGNED else pack.trust
    lines = [
        f"{pack.name} {pack.version}",
        f"digest:       {pack.digest}",
        f"trust:        {trust}",
        f"licence:      {manifest.licence} ({manifest.licence_class}: {_LICENCE_WORDS[manifest.licence_class]})",
        f"intended use: {manifest.intended_use}",
        *(f"not for:      {exclusion}" for exclusion in manifest.exclusions),
        f"labels:       {manifest.provenance.labels}",
        *(f"trained on:   {source}" for source in manifest.provenance.trained_on),
        *(f"tested on:    {source}" for source in manifest.provenance.tested_on),
        f"input:        {spacing} mm, tiles of {patch}, overlap {manifest.input.overlap:g}",
        *_region(manifest),
        *_intensity(manifest),
        *_provided(manifest),
        "precisions:   " + ", ".join(_precisions(pack)),
    ]
    for accuracy in manifest.accuracy:
        values = ", ".join(f"{name} {dice:.3f}" for name, dice in accuracy.dice.items())
        lines.append(f"Dice, {accuracy.precision}, {accuracy.scans} held-out scans: {values}")
    lines += [
        f"speed: {speed.seconds_per_tile:.3f} s a tile, {speed.engine} {speed.precision}, {speed.machine}, {speed.date}"
        for speed in manifest.speed
    ]
    for gate in manifest.gates:
        lines += [f"gate, {line}" for line in gate_lines(gate)]
        lines += [f"gate, {gate.precision}: {line}" for line in structure_lines(gate)]
    lines += [f"gate, {tile_gate_line(gate)}" for gate in manifest.tile_gates]
    return lines


def _provided(manifest: Manifest) -> list[str]:
    found = manifest.detection
    if found is None:
        return ["structures:   " + ", ".join(f"{item.name} (SCT {item.code})" for item in manifest.structures)]
    return [
        "findings:     " + ", ".join(f"{item.name} (SCT {item.code})" for item in found.classes),
        (
            f"boxes:        scores above {found.score_threshold:g}, at most {found.most_detections}, "
            f"overlap up to {found.nms_threshold:g}"
        ),
    ]


def _region(manifest: Manifest) -> list[str]:
    wanted = manifest.input
    if not wanted.region:
        return []
    around = ", ".join(wanted.region)
    return [f"region:       the box around {around}, and {wanted.region_margin_mm:g} mm on every side"]


def _intensity(manifest: Manifest) -> list[str]:
    found = manifest.intensity
    if found is None:
        return []
    facts = [
        f"{word} {value:g}"
        for word, value in (
            ("from", found.low_hu),
            ("to", found.high_hu),
            ("mean", found.mean_hu),
            ("deviation", found.deviation_hu),
        )
        if value is not None
    ]
    return [f"intensity:    {found.kind}" + (f" {', '.join(facts)} HU" if facts else "")]
