# ruff: noqa: E501  # the card's paragraphs are easier to read and mend unbroken
"""The model card: what the pack is, what it learned from, how it was tested, and what it must not be used for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.packs.gates import Gate

#: What the figures of each structure were held against.
REFERENCES = {
    "lung_left": "rules",
    "lung_right": "rules",
    "airways": "rules, to the main bronchi",
    "skeleton": "rules; `bone` and `vertebral_bodies` together",
    "whole_body": "rules; everything that is patient",
    "vertebral_bodies": "drawn by eye, border by density",
    "heart": "drawn by eye, border by density where there is one",
    "aorta": "drawn by eye, border by density where there is one",
    "pulmonary_trunk": "drawn by eye, border by density where there is one",
    "liver": "outlines drawn by eye on every third to fifth slice",
    "spleen": "outlines drawn by eye on every third to fifth slice",
    "kidney_left": "outlines drawn by eye; upper poles only",
    "kidney_right": "outlines drawn by eye; upper poles only",
}


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join("–" if cell is None else str(cell) for cell in row) + " |" for row in rows),
        "",
    ]


def _cell(found: dict[str, float] | None) -> str | None:
    if found is None:
        return None
    return f"{found['dice']} ({found['volume_error_percent']:+} %, {found['truth_ml']:.0f})"


def write_card(
    path: Path,
    title: str,
    runs: Sequence[Path],
    evaluation: dict | None,
    speed: list[dict],
    trained_on: Sequence[str],
    exclusions: Sequence[str],
    gates: Sequence[Gate] = (),
) -> None:
    """Write MODEL_CARD.md from the figures of this very build."""
    import torch

    steps = " and then ".join(str(torch.load(run / "last.pt", weights_only=True)["step"]) for run in runs)
    eight = any(gate.precision == "int8" and gate.verdict == "passed" for gate in gates)
    lines = [
        f"# {title}",
        "",
        (
            "A small 3D U-Net (1.9 million weights, BatchNorm and ReLU) that labels the organs of the trunk on plain CT at 3 mm: "
            "body, left and right lung, airways (trachea and main bronchi), vertebral bodies (all levels as one), the other bone, "
            "heart with what the pericardium holds, aorta, pulmonary trunk with its left and right main arteries, liver, spleen "
            "and both kidneys. It runs "
            + ("as INT8 on OpenVINO, " if eight else "")
            + "in bf16 or single precision on OpenVINO, or in single precision on ONNX Runtime. It is made by "
            "`models/recipes/trunk` and by nothing else."
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
        (
            f"{steps} steps of two patches, on a CPU, started from the weights of trunk 0.1.0 (2900 steps), from fourteen scans "
            "of thirteen patients and, for two patches in five to every second one, 40 random phantoms:"
        ),
        "",
        *(f"- {text}" for text in trained_on),
        "",
        (
            "**The labels are not experts', but for one atlas.** Body, lungs, airways and bone come from thresholds and shapes "
            "(`labels.py`). Heart, aorta, pulmonary trunk and vertebral bodies (`chest.py`, `spine.py`), liver, spleen, kidneys "
            "(`belly.py`) come from outlines drawn by eye on a few slices, by nobody with medical training, with borders "
            "sharpened by density. Only the SPL atlas (arterial phase, one patient) has experts' labels of the belly, and the "
            "TotalSegmentator example those of another model. Every overlay was looked at. Where neither eye nor density could "
            'tell, the voxel was marked "do not know", and where a scan has no label of a structure, its voxels may be either: '
            "the loss asks only for one of the classes that are possible there."
        ),
        "",
        (
            "Seven enhanced scans and the atlas were also shown with their contrast taken away by arithmetic (`lowered.py`): "
            "better outlines than a plain scan allows, but densities that no scanner made."
        ),
        "",
        (
            "Scans are adults from a few North American and Chinese collections, most of them with lung nodules or cancer. "
            "Kidneys and the whole liver were seen in a handful of patients, plain ones in three. No child, no normal population, "
            "no emphysema set, no severe scoliosis, no aneurysm of the chest, no enlarged heart or effusion outside the phantom."
        ),
        "",
        "## How it was tested",
        "",
    ]
    if evaluation:
        lines += [
            (
                f"On {len(evaluation['scans'])} scans of patients that no training step saw, through the appliance's own "
                "resampling, tiles and tidying. The references are of the same make as the labels: agreement with them is not "
                "agreement with a radiologist, and one to three scans are an anecdote. The heart's, the vessels' and the "
                "vertebral bodies' references leave open what the eye could not decide; those voxels count neither way, which "
                "flatters. The three scans taught no weight, but they were watched during training, and choices were made on them: the "
                "weights in the loss, what is closed to an organ, the window on soft tissue, when to stop. The figures are kinder for "
                f"that. {evaluation['machine']}, {evaluation['date']}."
            ),
            "",
        ]
        precisions = list(evaluation["mean"])
        names = list(dict.fromkeys(name for means in evaluation["mean"].values() for name in means))
        lines += _table(
            [
                "structure",
                "scans",
                *(f"Dice {p}" for p in precisions),
                "mean error of volume",
                "phantom's Dice",
                "reference",
            ],
            [
                [
                    name,
                    evaluation["mean"][precisions[0]][name]["scans"],
                    *(evaluation["mean"][p][name]["dice"] for p in precisions),
                    f"{evaluation['mean'][precisions[0]][name]['volume_error_percent']} %",
                    evaluation["phantom"][precisions[0]].get(name),
                    REFERENCES.get(name),
                ]
                for name in names
            ],
        )
        lines += [
            (
                "The phantom is one digital patient of a seed that the training never drew, in single precision; its anatomy is the "
                "training phantoms', so it is kinder than a patient. Whole kidneys were tested on it alone."
            ),
            "",
        ]
        lines += ["Scan by scan, in single precision: Dice (error of volume, millilitres in the reference):", ""]
        lines += _table(
            ["structure", *evaluation["scans"]],
            [[name, *(_cell(scan["f32"].get(name)) for scan in evaluation["scans"].values())] for name in names],
        )
        lines += [
            "`bone` and `body` have no figure of their own: no held-out scan has labels of all that they are not.",
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
        "- Contrast-enhanced scans: bright vessels may be called bone; enhanced organs were in the training, but nothing was tested.",
        "- Heart and aorta, heart and liver, spleen and stomach: on plain CT the border is guessed, here as by eye.",
        "- The aorta near the heart and the pulmonary arteries near the hila end where the eye that drew them thought so.",
        "- Kidneys: on the upper poles at the lower end of two chest scans the network is poor, and finds one of four hardly at all. Whole kidneys were seen in training on plain scans of two patients and tested on the phantom alone. A kidney that the scan cuts must not be measured.",
        "- A large spleen (LIDC-IDRI 0002, 380 mL) is found in part only. Livers are found too large on two of three scans, the aorta of one thin patient by a quarter.",
        *([] if eight or not gates else ["- INT8 is not shipped: it fell below its gate, see below."]),
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
