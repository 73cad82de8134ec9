"""INT8 and bf16 on trial: both are made or compiled, judged on the gate's scans, and timed beside each other."""

from __future__ import annotations

import datetime as dt
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.errors import InferenceError
from appliance.packs.gates import Gate, Margins, TileGate
from appliance.packs.quantising.calibration import collect
from appliance.packs.quantising.gate import GateScans, open_network, seconds_per_tile
from appliance.packs.quantising.network import FloatNetwork
from appliance.packs.quantising.search import search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.packs.gates import GatedStructure
    from appliance.packs.pack import Pack
    from appliance.packs.quantising.scans import Source
    from appliance.packs.quantising.search import Found


@dataclass(frozen=True, slots=True)
class Trial:
    """INT8 and bf16 of one pack, held against single precision on one machine.

    Attributes
    ----------
    pack
        Gives geometry and structures.
    source
        Its network in single precision.
    int8
        ``.xml`` file that receives the INT8 network.
    margins, threads, tell
        See :func:`appliance.packs.quantising.pack.quantise_pack`.
    """

    pack: Pack
    source: Path
    int8: Path
    margins: Margins
    threads: int
    tell: Callable[[str], None]

    def run(
        self,
        calibrating: Sequence[Source],
        judging: Sequence[Source],
        patches: Sequence[tuple[int, int, int]] = (),
    ) -> tuple[list[Gate], list[TileGate], dict[str, Engine]]:
        """Quantise and judge.

        Returns
        -------
        gates : list[Gate]
            Of INT8 and bf16.
        tile_gates : list[TileGate]
            Of each of the patches.
        engines : dict[str, Engine]
            Single precision, and each precision that passed, compiled.
        """
        patch = self.pack.manifest.input.patch
        network = FloatNetwork(self.source, patch)
        tiles, scans = collect(self.pack, calibrating, self.tell)
        engines: dict[str, Engine] = {"f32": open_network(self.source, patch, "f32", self.threads)}
        gate_scans = GateScans(self.pack, engines["f32"], judging, self.tell)
        gates = [self._bf16(gate_scans, engines, tiles[0], network.tools)]
        found = search(
            network,
            tiles,
            gate_scans,
            self.margins,
            self.int8,
            patch=patch,
            threads=self.threads,
            tell=self.tell,
        )
        facts = {
            "calibration_scans": scans,
            "calibration_tiles": len(tiles),
            "layers": len(network.layers),
            "kept_layers": found.kept,
            "attempts": found.attempts,
        }
        bf16_passed = gates[0].verdict == "passed"
        rival = "bf16" if bf16_passed else "f32"
        gates.insert(0, self._int8(found, gate_scans.count, engines, rival, tiles[0], facts, network.tools))
        for gate in gates:
            self.tell(f"{gate.precision}: {gate.verdict}; {gate.reason}")
        return gates, [self._tile(gate_scans, shape) for shape in dict.fromkeys(patches) if shape != patch], engines

    def _tile(self, scans: GateScans, patch: tuple[int, int, int]) -> TileGate:
        """Hold another shape of a tile against the pack's own, both in single precision."""
        structures: tuple[GatedStructure, ...] = ()
        try:
            judged = scans.judge(open_network(self.source, patch, "f32", self.threads), self.margins)
        except InferenceError as error:
            verdict, reason = "failed", str(error)
        else:
            structures = judged.structures
            verdict, reason = judged.verdict
        self.tell(f"tiles of {' × '.join(map(str, patch))}: {verdict}; {reason}")
        return TileGate.model_validate(
            {
                "patch": patch,
                "verdict": verdict,
                "reason": reason,
                "margins": self.margins,
                "scans": scans.count,
                "structures": structures,
                "machine": machine(),
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
            }
        )

    def _bf16(self, scans: GateScans, engines: dict[str, Engine], tile: NDArray[np.int16], tools: str) -> Gate:
        engine = open_network(self.source, self.pack.manifest.input.patch, "bf16", self.threads)
        if engine.precision != "bf16":
            return self._gate(
                "bf16", "not judged", f"this machine computes in {engine.precision} when asked for bf16", (), 0, tools
            )
        judged = scans.judge(engine, self.margins)
        verdict, reason = judged.verdict
        gate = self._gate("bf16", verdict, reason, judged.structures, scans.count, tools)
        if verdict != "passed":
            return gate
        times = seconds_per_tile({"bf16": engine, "f32": engines["f32"]}, tile)
        engines["bf16"] = engine
        # Slower or not, it is harmless, and quicker on other machines; INT8 has to earn its place.
        return gate.model_copy(update=_times(times, "bf16", "f32"))

    def _int8(
        self,
        found: Found,
        scans: int,
        engines: dict[str, Engine],
        rival: str,
        tile: NDArray[np.int16],
        facts: dict[str, Any],
        tools: str,
    ) -> Gate:
        judged = found.judged
        if not found.passed:
            verdict = "failed" if judged.fell or judged.seen else "not judged"
            return self._gate("int8", verdict, found.problem, judged.structures, scans, tools, **facts)
        times = seconds_per_tile({"int8": found.engine, rival: engines[rival]}, tile)
        saved = 1 - times["int8"] / times[rival]
        reason = f"a tile takes {abs(saved):.0%} {'less' if saved >= 0 else 'more'} time than in {rival}"
        quick = saved >= self.margins.minimum_gain
        if quick:
            engines["int8"] = found.engine
        gate = self._gate(
            "int8",
            "passed" if quick else "not faster",
            ("nothing fell more than the margin, and " if quick else "") + reason,
            judged.structures,
            scans,
            tools,
            **facts,
        )
        return gate.model_copy(update=_times(times, "int8", rival))

    def _gate(
        self,
        precision: str,
        verdict: str,
        reason: str,
        structures: Sequence[GatedStructure],
        scans: int,
        tools: str,
        **facts: Any,
    ) -> Gate:
        return Gate.model_validate(
            {
                "precision": precision,
                "verdict": verdict,
                "reason": reason,
                "margins": self.margins,
                "scans": scans,
                "structures": tuple(structures),
                "machine": machine(),
                "tools": tools,
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
                **facts,
            }
        )


def _times(times: dict[str, float], precision: str, rival: str) -> dict[str, Any]:
    return {
        "seconds_per_tile": float(f"{times[precision]:.3g}"),
        "compared_with": rival,
        "compared_seconds_per_tile": float(f"{times[rival]:.3g}"),
    }


def machine() -> str:
    """Name this machine's processor and how many cores may be used."""
    name = platform.machine()
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
