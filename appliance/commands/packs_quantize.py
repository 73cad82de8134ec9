"""``appliance packs quantize``: a quicker successor of a pack, with the report of its gate; on a workstation."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from appliance.config import Settings


def quantize(
    name: str,
    calibrate: Sequence[Path],
    gate: Sequence[Path],
    out: Path,
    *,
    settings: Settings,
    version: str | None,
    threads: int,
    margins: Mapping[str, float],
    patches: Sequence[tuple[int, int, int]] = (),
) -> None:
    """Quantise a pack and print what came of it.

    Parameters
    ----------
    name
        See :func:`appliance.commands.packs.find_pack`.
    calibrate, gate
        Paths of scans; without the second, every second study of the first judges.
    out
        Folder of the new pack.
    settings
        The whole configuration.
    version, threads, margins, patches
        See :func:`appliance.packs.quantising.pack.quantise_pack`.

    Raises
    ------
    ConfigurationError
        The command line is wrong.
    PackError, InferenceError, InputRefusedError
        It cannot be done; the sentence says why.
    """
    from appliance.commands.packs import find_pack
    from appliance.packs.gates import Margins, gate_lines, tile_gate_line
    from appliance.packs.quantising.pack import quantise_pack
    from appliance.packs.quantising.scans import find_scans, split
    from appliance.packs.rules import Rules

    if version is not None and not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ConfigurationError(f"--version {version}: write three numbers, such as 1.2.0")
    pack = find_pack(Rules.from_settings(settings), name)
    with tempfile.TemporaryDirectory(prefix="appliance-quantize-") as work:
        unfolded = [Path(work) / "calibrate", Path(work) / "gate"]
        for folder in unfolded:
            folder.mkdir()
        calibrating = find_scans(calibrate, unfolded[0])
        if gate:
            judging = find_scans(gate, unfolded[1])
        else:
            calibrating, judging = split(calibrating)
        made = quantise_pack(
            pack,
            calibrating,
            judging,
            out,
            margins=Margins(**margins),
            version=version,
            threads=threads,
            patches=patches,
            tell=_tell_on_a_terminal,
        )
    print(f"{out}: {made.name} {made.version}, {made.digest}")  # noqa: T201
    for item in made.manifest.gates:
        for line in gate_lines(item):
            print(line)  # noqa: T201
    for shape in made.manifest.tile_gates:
        print(tile_gate_line(shape))  # noqa: T201
    print(f"It is unsigned. Read it (appliance packs show {out}), then sign it.")  # noqa: T201


def _tell_on_a_terminal(text: str) -> None:
    # In a pipe too it matters when a scan was left out.
    if sys.stderr.isatty() or " is left out: " in text:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
