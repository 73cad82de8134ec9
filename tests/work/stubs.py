"""Screenings that do what the accession number says, so that one spool can hold good and poisoned scans."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from appliance.dicom.image.headers import read_header
from appliance.errors import InputRefusedError, PackError
from appliance.reasons import Reason, ReasonCode
from appliance.results.missing import MissingKind, note_missing
from tests.store.samples import report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def screen(
    paths: Sequence[Path],
    *,
    settings: Any,
    out_directory: Path,
    revision: int,
    predecessor: Path | None,
    on_stage: Callable[[str], None],
    others: Sequence[Sequence[Path]],
) -> None:
    """Read the headers, behave as told, and leave a report that names the instances."""
    headers = [read_header(path) for path in paths]
    on_stage("reading")
    behaviour = headers[0].accession_number
    _misbehave(behaviour)
    if behaviour == "FAMILY":
        _grow_outside(out_directory)
    for stage in ("planned", "organ map", "screening", "writing"):
        on_stage(stage)
        if behaviour == "SLOW":
            time.sleep(random.uniform(0.0, 0.03))
    (out_directory / "key_images").mkdir()
    (out_directory / "key_images" / "emphysema.png").write_bytes(b"png")
    content = report(scan={"slices": len(headers), "revision": revision})
    content["instances"] = sorted(header.sop_instance_uid for header in headers)
    content["predecessor"] = predecessor.name if predecessor is not None else None
    content["others"] = sorted(read_header(series[0]).series_instance_uid for series in others)
    (out_directory / "report.json").write_text(json.dumps(content))


def _misbehave(behaviour: str) -> None:
    if behaviour == "CRASH":
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour == "HANG":
        time.sleep(600)
    if behaviour == "GROW":
        held = bytearray(1 << 20) * 700
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(600)
    if behaviour == "ERROR":
        raise ValueError("Zhang^San")
    if behaviour == "PACK":
        raise PackError("The pack trunk does not match its digest; install it again.")
    if behaviour == "REFUSE":
        raise InputRefusedError(Reason(ReasonCode.LOCALIZER, "A localizer is not a volume."))
    if behaviour == "PRINT":
        os.write(1, b'{"event": "result", "job": 1}\nnot json\n')
        print("and more")


def _grow_outside(folder: Path) -> None:
    code = "import time; held = bytearray(300 << 20); held[::4096] = b'x' * len(held[::4096]); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        (folder / "pid").write_text(str(process.pid))


def silent(paths: Sequence[Path], **_: Any) -> None:
    """Succeed without a report."""


def broken_report(paths: Sequence[Path], *, out_directory: Path, **_: Any) -> None:
    """Leave a report that lacks what must be stored."""
    (out_directory / "report.json").write_text('{"scan": {}}')


def large_objects(paths: Sequence[Path], *, out_directory: Path, **named: Any) -> None:
    """Leave a whole report, and then objects of 3 MiB."""
    screen(paths, out_directory=out_directory, **named)
    (out_directory / "objects").mkdir()
    (out_directory / "objects" / "segmentation-1.dcm").write_bytes(bytes(3 << 20))


def defective_objects(paths: Sequence[Path], *, out_directory: Path, **named: Any) -> None:
    """Leave a whole report, and note that a kind of object could not be made."""
    screen(paths, out_directory=out_directory, **named)
    note_missing(out_directory, [MissingKind("seg", "ValueError", "segmentation.py:7")])
