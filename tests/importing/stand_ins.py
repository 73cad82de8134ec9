"""Structures that stand for the made-up classes of the full-sized network, one each, so that every one is compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STRUCTURES = (
    *("liver", "spleen", "pancreas", "stomach", "duodenum", "colon", "small_bowel", "gallbladder", "heart", "aorta"),
    *("trachea", "esophagus", "sternum", "sacrum", "skull", "brain", "prostate", "urinary_bladder", "spinal_cord"),
    *(f"vertebra_T{number}" for number in range(1, 13)),
    "vertebra_L1",
)


def stand_ins(results: Path) -> dict[str, str]:
    """Class name to structure, for those classes of a training that mean nothing."""
    labels = json.loads((results / "dataset.json").read_text())["labels"]
    made_up = [name for name in labels if name.startswith("class_")]
    return dict(zip(made_up, _STRUCTURES, strict=False))
