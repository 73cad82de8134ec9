"""Train a tiny nnU-Net on the built-in test patient: liver, spleen and four vertebrae, by TotalSegmentator's names.

Run as ``python train_phantom.py FOLDER``; it leaves nnU-Net's results folder under ``FOLDER/results``. Needs no scans.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np

from appliance.phantom import PhantomOptions, label_map
from tests.importing.train_nnunet import place, quick_trainer, train

SMALL = PhantomOptions(
    rows=128, columns=128, pixel_spacing_mm=3.2, slice_thickness_mm=2.5, slice_spacing_mm=2.5, noise_hu=8.0
)
SEEDS = (11, 12, 13)
DATASET = "Dataset901_phantom"
CLASSES = {"liver": "liver", "spleen": "spleen"} | {
    f"vertebrae_{level}": f"vertebra_{level}" for level in ("T12", "L1", "L2", "L3")
}
LABELS = {"background": 0} | {name: number for number, name in enumerate(CLASSES, start=1)}
KIND = {
    "network": "PlainConvUNet",
    "transpose": [0, 1, 2],
    "mirroring": None,
    "spacing": [8.0, 8.0, 8.0],
    "patch": [64, 40, 56],
    "features": [8, 16, 32, 32],
    "batch": 1,
    "iterations": 300,
}


def write_case(raw: Path, seed: int) -> None:
    """Write one test patient with its truth as labels, stored along RAS."""
    hu, found, affine, values = label_map(replace(SMALL, seed=seed), 4.0, levels=True)
    labels = np.zeros(found.shape, np.uint8)
    for name, structure in CLASSES.items():
        labels[found == values[structure]] = LABELS[name]
    ras = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)[:, [2, 1, 0, 3]]
    for folder, name, array in (("imagesTr", f"patient_{seed}_0000", hu), ("labelsTr", f"patient_{seed}", labels)):
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), ras), raw / folder / f"{name}.nii.gz")


def write_dataset(raw: Path) -> None:
    """Write nnU-Net's raw dataset."""
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for seed in SEEDS:
        write_case(raw, seed)
    described = {
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": len(SEEDS),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
    }
    (raw / "dataset.json").write_text(json.dumps(described))


def main() -> None:
    """Prepare and train."""
    folder = Path(sys.argv[1])
    place(folder)
    write_dataset(folder / "raw" / DATASET)
    train(folder, DATASET, KIND, quick_trainer(2e-3))


if __name__ == "__main__":
    main()
