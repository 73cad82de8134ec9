"""The part of a model card that says how the reduced precisions were judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.packs.gates import gate_lines, tile_gate_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.packs.gates import Gate, TileGate

CARD = "MODEL_CARD.md"
_HEADING = "## Reduced precision"


def with_gates(card: str, gates: Sequence[Gate], tile_gates: Sequence[TileGate] = ()) -> str:
    """Return a model card with the report of the gates at its end, in the place of an earlier one.

    Parameters
    ----------
    card
        Markdown.
    gates, tile_gates
        To report.
    """
    kept = card.partition(f"\n{_HEADING}\n")[0].rstrip()
    return "\n".join([kept, "", _HEADING, "", *_lines(gates, tile_gates)]) + "\n"


def _lines(gates: Sequence[Gate], tile_gates: Sequence[TileGate]) -> list[str]:
    lines = [
        (
            "Made by `appliance packs quantize`. Every figure here is agreement with the same network in single "
            "precision, not accuracy."
        ),
        "",
    ]
    for gate in gates:
        lines += [f"- {text}" for text in gate_lines(gate)]
    lines += [f"- {tile_gate_line(gate)}" for gate in tile_gates]
    head = ("structure", "precision", "verdict", "scans", "Dice", "worst scan", "volume")
    lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for gate in gates:
        for item in gate.structures:
            figures = (item.dice, item.worst_dice, item.volume_difference)
            cells = " | ".join("–" if figure is None else f"{figure:.4f}" for figure in figures)
            lines.append(f"| {item.name} | {gate.precision} | {item.verdict} | {item.scans} | {cells} |")
    return lines
