"""A screening with an urgent finding, whose report repeats whatever the header said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydicom import dcmread

from appliance.dicom.image.headers import read_header
from tests.store.samples import report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def screen(
    paths: Sequence[Path], *, out_directory: Path, revision: int, on_stage: Callable[[str], None], **_: Any
) -> None:
    """Find something urgent, and write the patient's whole header into the report."""
    headers = [read_header(path) for path in paths]
    for stage in ("reading", "planned", "organ map", "screening", "writing"):
        on_stage(stage)
    words = str(dcmread(paths[0], stop_before_pixels=True, force=True))
    content = report(scan={"slices": len(headers), "revision": revision})
    found = {
        **content["screenings"][0],
        "name": "aorta",
        "urgency": "urgent",
        "summary": words,
        "findings": [{"code": words, "meaning": words, "site": words, "box_mm": [[0, 0, 0], [1, 1, 1]]}],
    }
    content["screenings"] = [found]
    (out_directory / "report.json").write_text(json.dumps(content))
