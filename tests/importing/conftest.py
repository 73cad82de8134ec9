"""A results folder as nnU-Net writes it, with random weights: enough for everything but the proof."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from appliance.packs.importing.write import Declaration

PATCH = [16, 24, 32]
LABELS = {"background": 0, "liver": 1, "rib_left_4": 2, "rib_left_5": 3, "spleen": 4}
PLANS = {
    "dataset_name": "Dataset007_Test",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 40.5, "std": 300.0, "percentile_00_5": -900.0, "percentile_99_5": 1200.0}
    },
    "configurations": {
        "3d_fullres": {
            "spacing": [3.0, 2.0, 2.5],
            "patch_size": PATCH,
            "normalization_schemes": ["CTNormalization"],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [4, 8, 8],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[3, 3, 3]] * 3,
                    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
                    "n_conv_per_stage": [1, 1, 1],
                    "n_conv_per_stage_decoder": [1, 1],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        },
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
}
DATASET = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".nii.gz"}


@pytest.fixture
def plans() -> dict:
    return copy.deepcopy(PLANS)


@pytest.fixture
def dataset() -> dict:
    return copy.deepcopy(DATASET)


@pytest.fixture
def said() -> Declaration:
    return Declaration("test_pack", "0.1.0", "CC BY 4.0", "open", "Tests of the import.")


def write_fold(
    folder: Path, fold: str, seed: int, configuration: str = "3d_fullres", classes: int = len(LABELS)
) -> None:
    """Write one fold with random weights, in the shape that nnU-Net's trainer saves."""
    torch = pytest.importorskip("torch", reason="the extra `import` is not installed")
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet", reason="the extra `import` is not installed"
    )
    keywords = dict(PLANS["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"])
    keywords |= {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    torch.manual_seed(seed)
    network = unet.PlainConvUNet(input_channels=1, num_classes=classes, deep_supervision=True, **keywords)
    (folder / f"fold_{fold}").mkdir(parents=True)
    torch.save(
        {
            "network_weights": network.state_dict(),
            "init_args": {
                "plans": copy.deepcopy(PLANS),
                "configuration": configuration,
                "fold": fold,
                "dataset_json": DATASET,
                "device": torch.device("cpu"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
            "logging": {"ema_fg_dice": [np.float64(0.5)]},
        },
        folder / f"fold_{fold}" / "checkpoint_final.pth",
    )


@pytest.fixture(scope="session")
def made_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    write_fold(folder, "0", 1)
    write_fold(folder, "1", 2)
    return folder


@pytest.fixture
def results(made_results: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made_results, tmp_path / "results"))
