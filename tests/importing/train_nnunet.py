"""Train a tiny nnU-Net with nnU-Net itself on real scans, so that the importer is proven on genuine checkpoints.

It runs as a process of its own, because nnU-Net reads its folders from the environment when it is imported:
``python train_nnunet.py KIND FOLDER DATA`` leaves nnU-Net's results folder under ``FOLDER/results``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS = {"background": 0, "body": 1, "lung_left": 2, "lung_right": 3, "bone": 4}
TRAINING = ("lidc_0009_plain", "lungdx_a0001_plain", "acrin_flt_013_plain")

#: What is told apart: the architecture, the reader (and with it the axes), the transposition, the mirroring.
KINDS = {
    "plain": {
        "network": "PlainConvUNet",
        "reader": "SimpleITKIO",
        "axes": "LPS",
        "transpose": [0, 1, 2],
        "mirroring": (0, 1),
        "spacing": [4.0, 4.0, 4.0],
        "patch": [48, 64, 64],
        "features": [16, 32, 32, 64],
        "batch": 2,
        "iterations": 160,
    },
    "residual": {
        "network": "ResidualEncoderUNet",
        "reader": "NibabelIOWithReorient",
        "axes": "RAS",
        "transpose": [2, 0, 1],
        "mirroring": None,
        "spacing": [4.0, 5.0, 4.0],
        "patch": [64, 40, 48],
        "features": [16, 32, 64],
        "batch": 2,
        "iterations": 160,
    },
}


def rule_labels(hu: np.ndarray, left_is_high: bool) -> np.ndarray:
    """Body, lungs and bone by thresholds, ``hu`` as ``(x, y, z)``; good enough to give a network something to learn."""
    solid = ndimage.binary_opening(hu > -300, iterations=2)
    parts, _ = ndimage.label(solid)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    body = parts == sizes.argmax()
    for z in range(body.shape[2]):
        body[:, :, z] = ndimage.binary_fill_holes(body[:, :, z])
    labels = body.astype(np.uint8)
    lung = body & (hu < -500)
    middle = round(float(np.flatnonzero(body.any(axis=(1, 2))).mean()))
    upper = np.zeros(hu.shape, bool)
    upper[middle:] = True
    labels[lung & (upper == left_is_high)] = LABELS["lung_left"]
    labels[lung & (upper != left_is_high)] = LABELS["lung_right"]
    labels[body & (hu > 200)] = LABELS["bone"]
    return labels


def reoriented(path: Path, axes: str) -> nibabel.Nifti1Image:
    """Read a scan and store it along the wanted axes (``"RAS"``, ``"LPS"``)."""
    image = nibabel.load(path)
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    return image.as_reoriented(change)


def by_rules(hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """See :func:`rule_labels`; the axes tell which half is the left one."""
    return rule_labels(hu, left_is_high=nibabel.aff2axcodes(affine)[0] == "L")


def write_dataset(
    raw: Path,
    data: Path,
    kind: dict,
    names: dict[str, int] = LABELS,
    paint: Callable[[np.ndarray, np.ndarray], np.ndarray] = by_rules,
) -> None:
    """Write nnU-Net's raw dataset; ``paint`` makes labels of HU ``(x, y, z)`` and their affine."""
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    for name in TRAINING:
        image = reoriented(data / "volumes-2mm" / f"{name}.nii.gz", kind["axes"])
        hu = np.asarray(image.dataobj).astype(np.int16)[::2, ::2]
        affine = image.affine.copy()
        affine[:3, :2] *= 2
        nibabel.save(nibabel.Nifti1Image(hu, affine), raw / "imagesTr" / f"{name}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(paint(hu, affine), affine), raw / "labelsTr" / f"{name}.nii.gz")
    described = {
        "channel_names": {"0": "CT"},
        "labels": names,
        "numTraining": len(TRAINING),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": kind["reader"],
    }
    (raw / "dataset.json").write_text(json.dumps(described))


def adapt_plans(path: Path, kind: dict) -> dict:
    """Put the wanted shape into the plans that nnU-Net made."""
    plans = json.loads(path.read_text())
    full = plans["configurations"]["3d_fullres"]
    stages = len(kind["features"])
    full["spacing"], full["patch_size"], full["batch_size"] = kind["spacing"], kind["patch"], kind["batch"]
    full["architecture"]["network_class_name"] = f"dynamic_network_architectures.architectures.unet.{kind['network']}"
    keywords = full["architecture"]["arch_kwargs"]
    keywords.pop("n_conv_per_stage", None)
    keywords.update(
        n_stages=stages,
        features_per_stage=kind["features"],
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * (stages - 2) + [kind.get("last_stride", [2, 2, 2])],
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
    if kind["network"] == "PlainConvUNet":
        keywords["n_conv_per_stage"] = [2] * stages
    else:
        keywords["n_blocks_per_stage"] = [1] + [2] * (stages - 1)
        keywords["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    plans["transpose_forward"] = kind["transpose"]
    plans["transpose_backward"] = [int(index) for index in np.argsort(kind["transpose"])]
    plans["configurations"] = {"3d_fullres": full}
    path.write_text(json.dumps(plans))
    return plans


def mirror_along(trainer_class: type, axes: tuple[int, ...] | None) -> None:
    """Mirror patches along some axes only, or along none as TotalSegmentator does, so that left can be told from right.

    nnU-Net has trainers for it, but finding one by name imports every other trainer with all that they need.
    """
    usual = trainer_class.configure_rotation_dummyDA_mirroring_and_inital_patch_size

    def configured(trainer: object) -> tuple:
        rotation, dummy_2d, patch, _ = usual(trainer)
        trainer.inference_allowed_mirroring_axes = axes
        return rotation, dummy_2d, patch, axes

    trainer_class.configure_rotation_dummyDA_mirroring_and_inital_patch_size = configured


def place(folder: Path) -> None:
    """Tell nnU-Net where its three folders are; it asks when it is imported."""
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    os.environ["nnUNet_n_proc_DA"] = "2"  # noqa: SIM112  # the name is nnU-Net's


def train(folder: Path, dataset: str, kind: dict, trainer_class: type | None = None) -> None:
    """Plan, preprocess and train the dataset that was written into ``folder / "raw"``."""
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(2)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # nnU-Net draws from the global generator
    extract_fingerprints([901], num_processes=1, check_dataset_integrity=False)
    plan_experiments([901])
    preprocessed = folder / "preprocessed" / dataset
    plans = adapt_plans(preprocessed / "nnUNetPlans.json", kind)
    (preprocessed / "dataset.json").write_text((folder / "raw" / dataset / "dataset.json").read_text())
    DefaultPreprocessor().run(901, "3d_fullres", "nnUNetPlans", num_processes=1)
    plans["continue_training"] = False
    mirror_along(nnUNetTrainer, kind["mirroring"])
    described = json.loads((preprocessed / "dataset.json").read_text())
    trainer = (trainer_class or nnUNetTrainer)(plans, "3d_fullres", "all", described, torch.device("cpu"))
    # The checkpoint keeps the plans as they are; patches of another size change no weight's shape.
    trainer.configuration_manager.configuration["patch_size"] = kind.get("learning_patch", kind["patch"])
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = (
        1,
        kind["iterations"],
        1,
    )
    trainer.run_training()


def quick_trainer(rate: float = 3e-3) -> type:
    """nnU-Net's trainer without augmentation and with Adam, which needs fewer steps."""
    import torch
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA

    class QuickTrainer(nnUNetTrainerNoDA):
        def configure_optimizers(self) -> tuple:
            optimizer = torch.optim.Adam(self.network.parameters(), lr=rate)
            return optimizer, PolyLRScheduler(optimizer, rate, self.num_epochs)

    # nnU-Net's predictor looks for the trainer by the name in the checkpoint; this one it finds at once.
    QuickTrainer.__name__ = "nnUNetTrainer"
    return QuickTrainer


def main() -> None:
    """Prepare and train one kind."""
    kind, folder, data = KINDS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    place(folder)
    dataset = f"Dataset901_{sys.argv[1]}"
    write_dataset(folder / "raw" / dataset, data, kind)
    train(folder, dataset, kind)


if __name__ == "__main__":
    main()
