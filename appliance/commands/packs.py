"""``appliance packs``: which networks are on this box, what is known of them, and whether they are whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from appliance.errors import ConfigurationError
from appliance.packs.registry import available

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.packs.pack import Pack


def list_packs(extra: Sequence[Path], *, as_json: bool) -> None:
    """Print one line per pack."""
    packs = available(extra)
    if as_json:
        print(json.dumps([_identity(pack) for pack in packs], indent=1))  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(pad_edge=False)
    for heading in ("Pack", "Version", "Provides", "Precisions", "Licence"):
        table.add_column(heading, overflow="fold")
    for pack in packs:
        table.add_row(
            pack.name, pack.version, ", ".join(pack.structures), ", ".join(_precisions(pack)), pack.manifest.licence
        )
    Console(highlight=False).print(table)


def show_pack(extra: Sequence[Path], name: str, *, as_json: bool) -> None:
    """Print what a pack is, gives and must not be used for, with its evidence.

    Raises
    ------
    ConfigurationError
        There is no pack of this name.
    """
    packs = {pack.name: pack for pack in available(extra)}
    if name not in packs:
        raise ConfigurationError(f"there is no pack {name!r}; installed: {', '.join(packs) or 'none'}")
    pack = packs[name]
    if as_json:
        print(json.dumps(_identity(pack) | pack.manifest.model_dump(mode="json"), indent=1, ensure_ascii=False))  # noqa: T201
        return
    print("\n".join(_lines(pack)))  # noqa: T201


def verify_packs(extra: Sequence[Path]) -> bool:
    """Check digests and run the test vectors in every precision; print a line each.

    Returns
    -------
    bool
        Whether every pack passed.
    """
    from appliance.packs.selftest import self_test

    passed = True
    for pack in available(extra):  # loading has compared every digest already
        print(f"{pack.name} {pack.version}: {len(pack.manifest.files)} files whole, {pack.digest}")  # noqa: T201
        for agreement in self_test(pack):
            word = "passed" if agreement.passed else "FAILED"
            asked = f"{agreement.engine} {agreement.precision}"
            used = "" if agreement.used == agreement.precision else f" (computed in {agreement.used})"
            print(  # noqa: T201
                f"  {asked}{used}: {agreement.share:.4f} of the labels agree, {agreement.minimum:.4f} needed: {word}"
            )
            passed = passed and agreement.passed
    return passed


def _identity(pack: Pack) -> dict[str, object]:
    return {
        "name": pack.name,
        "version": pack.version,
        "digest": pack.digest,
        "provides": list(pack.structures),
        "precisions": _precisions(pack),
        "licence": pack.manifest.licence,
    }


def _precisions(pack: Pack) -> list[str]:
    return [f"{precision} ({network.engine})" for network in pack.manifest.networks for precision in network.precisions]


def _lines(pack: Pack) -> list[str]:
    manifest = pack.manifest
    spacing = " × ".join(f"{value:g}" for value in manifest.input.spacing_mm)
    patch = " × ".join(str(value) for value in manifest.input.patch)
    lines = [
        f"{pack.name} {pack.version}",
        f"digest:       {pack.digest}",
        f"licence:      {manifest.licence} ({manifest.licence_class})",
        f"intended use: {manifest.intended_use}",
        *(f"not for:      {exclusion}" for exclusion in manifest.exclusions),
        f"labels:       {manifest.provenance.labels}",
        *(f"trained on:   {source}" for source in manifest.provenance.trained_on),
        *(f"tested on:    {source}" for source in manifest.provenance.tested_on),
        f"input:        {spacing} mm, tiles of {patch}",
        "structures:   " + ", ".join(f"{item.name} (SCT {item.code})" for item in manifest.structures),
    ]
    for accuracy in manifest.accuracy:
        values = ", ".join(f"{name} {dice:.3f}" for name, dice in accuracy.dice.items())
        lines.append(f"Dice, {accuracy.precision}, {accuracy.scans} held-out scans: {values}")
    lines += [
        f"speed: {speed.seconds_per_tile:.3f} s a tile, {speed.engine} {speed.precision}, {speed.machine}, {speed.date}"
        for speed in manifest.speed
    ]
    return lines
