"""A screening that is loaded in a moment, so that many kills find it at work."""

from __future__ import annotations

import json
import random
import re
import time
from typing import TYPE_CHECKING, Any

from tests.store.samples import report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_SOP_INSTANCE_UID = re.compile(rb"\x08\x00\x18\x00UI..([0-9.]+)", re.DOTALL)


def screen(
    paths: Sequence[Path], *, out_directory: Path, revision: int, on_stage: Callable[[str], None], **_: Any
) -> None:
    """Take a random moment for each stage and report which instances were there."""
    uids = [_SOP_INSTANCE_UID.search(path.read_bytes())[1].decode() for path in paths]  # type: ignore[index]
    for stage in ("reading", "planned", "organ map", "screening", "writing"):
        on_stage(stage)
        time.sleep(random.uniform(0.0, 0.06))
    content = report(scan={"slices": len(uids), "revision": revision}) | {"instances": sorted(uids)}
    (out_directory / "report.json").write_text(json.dumps(content))
