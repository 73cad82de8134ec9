"""A screening that does what the Series Number says, and carries as much text of the header as it can get hold of."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pydicom
import structlog

from appliance.errors import InputRefusedError
from appliance.reasons import Reason, ReasonCode
from tests.store.samples import report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCREENED, REFUSED, ERROR, CRASH = 1, 2, 3, 4


def screen(paths: Sequence[Path], *, out_directory: Path, revision: int, on_stage: Any, **_: Any) -> None:
    """Read the header, behave as told, and leave a report full of the header's text."""
    header = pydicom.dcmread(paths[0], stop_before_pixels=True)
    on_stage("reading")
    text = f"{header.PatientName} {header.PatientID} {header.StudyDescription}"
    structlog.get_logger().info(
        "stand_in_read", patient_name=text, study_description=text, series_instance_uid=header.SeriesInstanceUID
    )
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn(text, stacklevel=1)
    if header.SeriesNumber == REFUSED:
        raise InputRefusedError(Reason(ReasonCode.LOCALIZER, f"A localizer is not a volume: {text}."))
    if header.SeriesNumber == ERROR:
        raise ValueError(text)
    if header.SeriesNumber == CRASH:
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGSEGV)
    for stage in ("planned", "organ map", "screening", "writing"):
        on_stage(stage)
    scan = {"slices": len(paths), "revision": revision, "manufacturer": str(header.Manufacturer),
            "model": str(header.ManufacturerModelName), "kernel": str(header.ConvolutionKernel),
            "kernel_family": "soft", "kvp": 120.0, "contrast": "none", "notes": [text]}  # fmt: skip
    content = report(scan=scan)
    content["screenings"][0]["summary"] = text
    (out_directory / "report.json").write_text(json.dumps(content, ensure_ascii=False))
