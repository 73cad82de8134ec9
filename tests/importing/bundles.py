"""MONAI bundles with random weights: enough for everything but the proof."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

from tests.importing.train_monai import SEGMENTING, detecting_config, metadata, segmenting_config

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 5,
    "channels": [4, 8],
    "strides": [2],
    "norm": "batch",
}
PATCH = [16, 24, 32]


def small_segmenter() -> dict:
    """A configuration of a network that takes a moment."""
    config = copy.deepcopy(segmenting_config(SEGMENTING["unet"]))
    config["network_def"], config["inferer"]["roi_size"] = copy.deepcopy(NETWORK), list(PATCH)
    return config


def small_detector() -> dict:
    """The detector's configuration with the smallest tile."""
    return detecting_config() | {"infer_patch_size": [64, 32, 32]}


def write_bundle(folder: Path, config: dict, kind: str = "unet", **described: object) -> Path:
    """Write a bundle's configuration; its weights come apart."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata(kind) | described))
    return folder


def build(config: dict):
    """Build the network as the importer does, with random weights."""
    import torch

    from appliance.packs.importing.monai_config import Configuration
    from appliance.packs.importing.monai_network import build_detector, build_segmenter, is_detector

    torch.manual_seed(1)
    found = Configuration(config, "inference.json")
    network = found.get("network_def")
    return (build_detector if is_detector(network) else build_segmenter)(found, network).eval()
