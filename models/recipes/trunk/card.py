# ruff: noqa: E501  # the card's paragraphs are easier to read and mend unbroken
"""The model card: what the pack is, what it learned from, how it was tested, and what it must not be used for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAMES = ("body", "lung_left", "lung_right", "airways", "bone", "whole_body")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join("–" if cell is None else str(cell) for cell in row) + " |" for row in rows),
        "",
    ]


def write_card(
    path: Path,
    runs: Sequence[Path],
    evaluation: dict | None,
    speed: list[dict],
    trained_on: Sequence[str],
    exclusions: Sequence[str],
) -> None:
    """Write MODEL_CARD.md from the figures of this very build."""
    logs = [(run / "log.jsonl").read_text().splitlines() for run in runs]
    steps = " and then ".join(str(json.loads(log[-1])["step"]) for log in logs)
    lines = [
        "# trunk 0.1.0",
        "",
        (
            "A small 3D U-Net (1.9 million weights, BatchNorm and ReLU) that labels body, left lung, right lung, airways "
            "(trachea and main bronchi) and bone on CT of the trunk at 3 mm. It runs as INT8 on OpenVINO, or in bf16 or single "
            "precision, or in single precision on ONNX Runtime. It is made by `models/recipes/trunk` and by nothing else."
        ),
        "",
        "## What it is for",
        "",
        (
            "Working masks for screenings that check their plausibility before they measure. The appliance refuses to measure "
            "on a map that fails those checks. It is not a medical device, it was not tested on a clinical population, and it "
            "must not be used for:"
        ),
        "",
        *(f"- {text}" for text in exclusions),
        "",
        "## What it learned from",
        "",
        f"{steps} steps of two patches, on a CPU, from fourteen scans of thirteen patients and random phantoms:",
        "",
        *(f"- {text}" for text in trained_on),
        "",
        (
            "**The labels are rules, not experts.** They come from thresholds and shapes (`labels.py`); an overlay of every scan was looked at while they were written, by nobody with medical training. "
            "Where a rule could not be trusted (enhanced blood, oral contrast, metal, bronchi past "
            'the main ones) the voxel was marked "do not know" and taught nothing. On the TotalSegmentator example and the SPL '
            "atlas the sources' own labels were used for bone, on the former also for the lungs. In scans with intravenous "
            "contrast only the chest wall and the shoulder blades taught bone."
        ),
        "",
        (
            "Scans are adults from a few North American and Chinese collections, most of them with lung nodules or cancer. "
            "There are few abdomens (three), no child, no normal population, no emphysema set, no severe scoliosis, no effusion "
            "outside the phantom."
        ),
        "",
        "## How it was tested",
        "",
    ]
    if evaluation:
        lines += [
            (
                f"Dice against the same kind of rule labels on {len(evaluation['scans'])} scans of patients that no training step "
                "saw, through the appliance's own resampling, tiles and tidying. These scans taught no weight, but they were watched during training, and one choice (the weight of the airways in the loss) was made on one of them. Agreement with rules is not agreement with a "
                f"radiologist. {evaluation['machine']}, {evaluation['date']}."
            ),
            "",
        ]
        precisions = list(evaluation["mean"])
        rows = [["**mean**", p, *(evaluation["mean"][p].get(n) for n in NAMES)] for p in precisions]
        for scan, by_precision in evaluation["scans"].items():
            rows += [[scan, p, *(by_precision[p].get(n) for n in NAMES)] for p in precisions]
        lines += _table(["scan", "precision", *NAMES], rows)
        lines += [
            "`body` is what of the patient is none of the other structures; `whole_body` is all of them together.",
            "",
            "INT8 ships only while no structure loses more than the limit in `package.py` against single precision.",
            "",
        ]
    if speed:
        lines += ["Seconds for one tile of 128 × 112 × 160 voxels (384 × 336 × 480 mm):", ""]
        lines += _table(
            ["engine", "precision", "seconds", "machine", "date"],
            [[s["engine"], s["precision"], s["seconds_per_tile"], s["machine"], s["date"]] for s in speed],
        )
    lines += [
        "## Known weaknesses",
        "",
        "- Contrast-enhanced scans: bright vessels may be called bone.",
        "- Dense consolidation, large effusions and collapsed lobes are not lung for the rules, and so not for the network.",
        "- Bowel gas just under the diaphragm can be taken for lung; the plausibility checks look for it.",
        "- Airways end somewhere after the main bronchi; where exactly is not defined to better than a centimetre or two.",
        "- With the heart on the right, or after a lung was removed, left and right have not been tested.",
        "",
        "## Licence",
        "",
        "Weights and card: Apache-2.0. The training scans keep their own licences and are not part of this pack.",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
