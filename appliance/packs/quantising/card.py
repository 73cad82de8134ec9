"""The part of a model card that says how the reduced precisions were judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.packs.gates import gate_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.packs.gates import Gate
    from appliance.packs.pack import Pack

CARD = "MODEL_CARD.md"
_HEADING = "## Reduced precision"


def card_with_gates(path: Path, pack: Pack, version: str, gates: Sequence[Gate]) -> str:
    """Return a pack's card with the report of its gates at the end, in the place of an earlier one.

    Parameters
    ----------
    path
        The card; it need not exist.
    pack, version
        The pack it was quantised from, and the version it becomes.
    gates
        To report.
    """
    before = path.read_text(encoding="utf-8") if path.is_file() else f"# {pack.name} {version}\n"
    before = before.replace(f"# {pack.name} {pack.version}\n", f"# {pack.name} {version}\n", 1)
    kept = before.partition(f"\n{_HEADING}\n")[0].rstrip()
    return "\n".join([kept, "", _HEADING, "", *_lines(pack, gates)]) + "\n"


def _lines(pack: Pack, gates: Sequence[Gate]) -> list[str]:
    lines = [
        (
            f"Made by `appliance packs quantize` from {pack.name} {pack.version}, `{pack.digest}`. Every figure is "
            "agreement with the same network in single precision, not accuracy."
        ),
        "",
    ]
    for gate in gates:
        lines += [f"- {text}" for text in gate_lines(gate)]
    lines += [
        "",
        "| structure | precision | verdict | scans | Dice | worst scan | volume |",
        "|---|---|---|---|---|---|---|",
    ]
    for gate in gates:
        for item in gate.structures:
            figures = (item.dice, item.worst_dice, item.volume_difference)
            cells = " | ".join("–" if figure is None else f"{figure:.4f}" for figure in figures)
            lines.append(f"| {item.name} | {gate.precision} | {item.verdict} | {item.scans} | {cells} |")
    return lines
