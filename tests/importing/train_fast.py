"""Train a network with the plan of TotalSegmentator's 3 mm model: patch, spacing, widths, stages, dozens of classes.

Run as ``python train_fast.py FOLDER DATA``; it leaves nnU-Net's results folder under ``FOLDER/results``. It learns on
smaller patches than it is used on, as any nnU-Net may, and for minutes; its classes are made up.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from tests.importing.train_nnunet import place, quick_trainer, rule_labels, train, write_dataset

KIND = {
    "network": "PlainConvUNet",
    "reader": "NibabelIOWithReorient",
    "axes": "RAS",
    "transpose": [0, 1, 2],
    "mirroring": None,
    "spacing": [3.0, 3.0, 3.0],
    "patch": [112, 112, 128],
    "learning_patch": [32, 32, 64],
    "features": [32, 64, 128, 256, 320, 320],
    "last_stride": [1, 1, 2],
    "batch": 1,
    "iterations": 80,
}
DATASET = "Dataset901_fast"

#: Made-up classes, so that there are many: bands of smoothed HU, each in bands of depth below the skin (mm).
BANDS_HU = (-900, -820, -600, -110, -60, 20, 70)
BANDS_MM = (12, 30, 60)
CLASSES = (len(BANDS_HU) + 1) * (len(BANDS_MM) + 1)
NAMES = {"background": 0} | {f"class_{number}": number for number in range(1, CLASSES + 1)}


def many_labels(hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Thirty-two classes inside the body, ``hu`` as ``(x, y, z)``; they mean nothing, and can be learnt in minutes."""
    step_mm = np.linalg.norm(affine[:3, :3], axis=0)
    body = rule_labels(hu, left_is_high=True) > 0
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 1.0)
    depth_mm = ndimage.distance_transform_edt(body, sampling=step_mm)
    bands = np.digitize(smooth, BANDS_HU) * (len(BANDS_MM) + 1) + np.digitize(depth_mm, BANDS_MM)
    return np.where(body, bands + 1, 0).astype(np.uint8)


def main() -> None:
    """Prepare and train."""
    folder, data = Path(sys.argv[1]), Path(sys.argv[2])
    place(folder)
    write_dataset(folder / "raw" / DATASET, data, KIND, NAMES, many_labels)
    train(folder, DATASET, KIND, quick_trainer(1e-3))


if __name__ == "__main__":
    main()
