"""What a pack's manifest says of its accuracy gate: which precision was held against which, and what came of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["int8", "bf16", "f32"]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatedStructure(_Part):
    """One structure, labelled in a precision and in single precision on the same scans."""

    name: str
    verdict: Literal["passed", "fell", "not judged"] = Field(
        title="Not judged: in no gate scan did either precision find enough of it"
    )
    scans: int = Field(ge=0, title="Gate scans in which either precision found it")
    dice: _Share | None = Field(None, title="Dice against single precision, mean over those scans")
    worst_dice: _Share | None = Field(None, title="The same in the worst of them")
    volume_difference: float | None = Field(
        None, ge=0, title="Difference of volume as a share of single precision's, mean over those scans"
    )


class Attempt(_Part):
    """One quantised network that was made and held against single precision."""

    kept: int = Field(ge=0, title="Layers with weights that were kept in single precision")
    widest_ranges: bool = Field(
        default=False, title="Whether ranges of activations hold every calibration tile's extremes, or their mean"
    )
    fell: tuple[str, ...] = Field(title="Structures that fell more than the margin")
    lowest_dice: _Share | None = Field(None, title="Least mean Dice of any structure that could be judged")


class Margins(_Part):
    """How much a precision may lose."""

    maximum_dice_drop: float = Field(ge=0, lt=1, title="Most that a structure's mean Dice may lie below 1")
    maximum_volume_difference: float = Field(ge=0, title="Most that its volume may differ, as a share, in the mean")
    minimum_gain: float = Field(lt=1, title="Least share of a tile's time that the precision must save")


class Gate(_Part):
    """The gate of one precision; a precision whose gate was not passed is never chosen by itself."""

    precision: Precision
    verdict: Literal["passed", "failed", "not faster", "not judged"]
    reason: str = Field(title="The verdict as a sentence")
    margins: Margins
    scans: int = Field(ge=0, title="Scans it was judged on; none of them calibrated it")
    calibration_scans: int = Field(default=0, ge=0)
    calibration_tiles: int = Field(default=0, ge=0)
    layers: int = Field(default=0, ge=0, title="Layers with weights")
    kept_layers: tuple[str, ...] = Field(default=(), title="Those kept in single precision, in the order of the graph")
    attempts: tuple[Attempt, ...] = ()
    structures: tuple[GatedStructure, ...] = ()
    seconds_per_tile: float | None = Field(None, gt=0)
    compared_with: Precision | None = Field(None, title="Precision that the time was held against")
    compared_seconds_per_tile: float | None = Field(None, gt=0)
    machine: str
    tools: str = Field(default="", title="Versions of what quantised and ran it")
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")

    @property
    def not_judged(self) -> tuple[str, ...]:
        """Structures of which nothing is known in this precision."""
        return tuple(item.name for item in self.structures if item.verdict == "not judged")


class TileGate(_Part):
    """The gate of another shape of a tile; a shape whose gate was not passed may not stand in ``[input] patches``."""

    patch: tuple[int, int, int]
    verdict: Literal["passed", "failed", "not judged"]
    reason: str = Field(title="The verdict as a sentence")
    margins: Margins
    scans: int = Field(ge=0, title="Scans labelled with both shapes, in single precision")
    structures: tuple[GatedStructure, ...] = Field(default=(), title="Held against the pack's own shape")
    machine: str
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")


def tile_gate_line(gate: TileGate) -> str:
    """Say the gate of a tile's shape for people."""
    judged = [item.dice for item in gate.structures if item.dice is not None]
    lowest = f", lowest Dice {min(judged):.4f} of {len(judged)} structures" if judged else ""
    shape = " × ".join(map(str, gate.patch))
    return f"tiles of {shape}: {gate.verdict} ({gate.reason}); {gate.scans} gate scans{lowest}, {gate.date}"


def gate_lines(gate: Gate) -> list[str]:
    """Say a gate for people, one fact a line, without the figures of each structure."""
    margins = gate.margins
    facts = [
        f"{gate.verdict} ({gate.reason}); {gate.scans} gate scans, {gate.machine}, {gate.date}",
        (
            f"may lose {margins.maximum_dice_drop:g} of Dice and {margins.maximum_volume_difference:.0%} of volume "
            f"against f32 in the mean of the scans"
            + (_time_wanted(margins.minimum_gain) if gate.precision == "int8" else "")
        ),
    ]
    for number, attempt in enumerate(gate.attempts, start=1):
        lowest = "" if attempt.lowest_dice is None else f", lowest Dice {attempt.lowest_dice:.4f}"
        fell = f"fell: {', '.join(attempt.fell)}" if attempt.fell else "nothing fell"
        ranges = ", widest ranges" if attempt.widest_ranges else ""
        kept = f"{attempt.kept} of {gate.layers} layers in single precision{ranges}"
        facts.append(f"attempt {number}, {kept}: {fell}{lowest}")
    if gate.calibration_tiles:
        facts.append(
            f"calibrated with {gate.calibration_tiles} tiles of {gate.calibration_scans} other scans; {gate.tools}"
        )
    if gate.kept_layers:
        facts.append(f"layers in single precision: {'; '.join(gate.kept_layers)}")
    if gate.seconds_per_tile is not None and gate.compared_seconds_per_tile is not None:
        rival = f"{gate.compared_with} {gate.compared_seconds_per_tile:g} s"
        facts.append(f"{gate.seconds_per_tile:g} s a tile, {rival}")
    if gate.not_judged:
        facts.append(f"NOT JUDGED, for no gate scan shows enough of it: {', '.join(gate.not_judged)}")
    return [f"{gate.precision}: {fact}" for fact in facts]


def _time_wanted(gain: float) -> str:
    if gain < 0:
        return f", and may take {-gain:.0%} more time"
    return f", and must save {gain:.0%} of the time"


def structure_lines(gate: Gate) -> list[str]:
    """Say for people how each structure that could be judged came off."""
    return [
        f"{item.name} {item.verdict} on {item.scans} scans: Dice against f32 {item.dice:.4f}, "
        f"worst {item.worst_dice:.4f}, volume differs by {item.volume_difference:.2%}"
        for item in gate.structures
        if item.dice is not None and item.worst_dice is not None and item.volume_difference is not None
    ]
