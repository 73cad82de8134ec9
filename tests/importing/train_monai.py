"""Train tiny networks with MONAI itself on a real scan and store them as MONAI bundles.

It runs as a process of its own: ``python train_monai.py KIND FOLDER SCAN [STEPS]`` leaves a bundle in ``FOLDER``. What
the networks learn is of no use to anybody; they must only have learnt something, so that answers are no near ties.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tests.importing.compare_monai import provide_torchvision
from tests.importing.train_nnunet import LABELS, rule_labels

SEGMENTING = {
    # A Gaussian window, and normalisation groups, as MONAI's whole-body bundle has them.
    "segresnet": {
        "axes": "RAS",
        "network": {
            "_target_": "SegResNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 5,
            "init_filters": 8,
            "blocks_down": [1, 2, 2],
            "blocks_up": [1, 1],
            "dropout_prob": 0.2,
        },
        "inferer": {"roi_size": [64, 64, 48], "overlap": "@window#overlap", "mode": "gaussian", "sw_batch_size": 1},
        "pixdim": [3.5, 3.5, 4.0],
        "range": (-1000.0, 400.0, -1.0, 1.0),
    },
    # Everything left to MONAI's defaults, as in its spleen bundle; other axes.
    "unet": {
        "axes": "LPS",
        "network": {
            "_target_": "monai.networks.nets.UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 5,
            "channels": [8, 16, 32, 32],
            "strides": [2, 2, 2],
            "num_res_units": 2,
            "norm": "batch",
        },
        "inferer": {"roi_size": [56, 64, 40], "sw_batch_size": 4, "overlap": 0.5},
        "pixdim": [4.0, 4.0, 5.0],
        "range": (-900, 600, 0, 1),
    },
}
#: In the shape of MONAI's lung nodule bundle, with a shallower backbone and steps twice as wide.
DETECTING = {
    "axes": "RAS",
    "pixdim": [3.0, 3.0, 4.0],
    "roi_size": [96, 96, 32],
    "anchors": {"feature_map_scales": [1, 2, 4], "base_anchor_shapes": [[6, 8, 4], [8, 6, 5], [10, 10, 6]]},
}
SELECTION = "score_thresh=0.02,topk_candidates_per_level=1000,nms_thresh=0.22,detections_per_img=300"
KINDS = (*SEGMENTING, "retinanet")


def preprocessing(axes: str, pixdim: list[float], limits: tuple, **spacing: object) -> dict:
    low, high, bottom, top = limits
    return {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": axes},
            {"_target_": "Spacingd", "keys": "image", "pixdim": pixdim, "mode": "bilinear", **spacing},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": low,
                "a_max": high,
                "b_min": bottom,
                "b_max": top,
                "clip": True,
            },
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    }


def segmenting_config(kind: dict) -> dict:
    """A configuration as MONAI's own bundles have it, with all that a pack needs none of."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "window": {"overlap": 0.25},
        "datalist": "$list(sorted(glob.glob('imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": kind["network"],
        "network": "$@network_def.to(@device)",
        "preprocessing": preprocessing(kind["axes"], kind["pixdim"], kind["range"]),
        "inferer": {"_target_": "SlidingWindowInferer", **kind["inferer"]},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'"},
            ],
        },
    }


def detecting_config() -> dict:
    """In the shape of MONAI's lung nodule bundle, expressions and switches included."""
    return {
        "imports": ["$import glob", "$import os"],
        "raw": True,
        "resampled": "$(not @raw)",
        "infer_patch_size": DETECTING["roi_size"],
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "anchor_generator": {
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            **DETECTING["anchors"],
        },
        "backbone": "$monai.networks.nets.resnet.resnet10(spatial_dims=3,n_input_channels=1,conv1_t_stride=[4,4,2],"
        "conv1_t_size=[7,7,7])",
        "feature_extractor": "$monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor("
        "@backbone,3,False,[1,2],None)",
        "network_def": {
            "_target_": "RetinaNet",
            "spatial_dims": 3,
            "num_classes": 1,
            "num_anchors": 3,
            "feature_extractor": "@feature_extractor",
            "size_divisible": [32, 32, 16],
        },
        "network": "$@network_def.to(@device)",
        "detector": {
            "_target_": "RetinaNetDetector",
            "network": "@network",
            "anchor_generator": "@anchor_generator",
            "debug": False,
        },
        "detector_ops": [
            "$@detector.set_target_keys(box_key='box', label_key='label')",
            f"$@detector.set_box_selector_parameters({SELECTION})",
            "$@detector.set_sliding_window_inferer(roi_size=@infer_patch_size,overlap=0.25,mode='constant',device='cpu')",
        ],
        "preprocessing": preprocessing(
            DETECTING["axes"], DETECTING["pixdim"], (-1024.0, 300.0, 0.0, 1.0), _disabled_="@resampled"
        ),
        "inferer": {"_target_": "scripts.detection_inferer.RetinaNetInferer", "detector": "@detector"},
    }


def metadata(kind: str) -> dict:
    channels = {str(value): name for name, value in LABELS.items()} if kind != "retinanet" else {}
    return {
        "version": "0.1.0",
        "name": f"Proof {kind}",
        "task": "proof of the import",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "num_channels": 1, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {"type": "image", **({"channel_def": channels} if channels else {})}},
        },
    }


def train_segmenter(config: dict, kind: dict, scan: str, steps: int) -> dict:
    """Learn body, lungs and bone from thresholds on patches of one scan."""
    import torch
    from monai.losses import DiceCELoss
    from monai.networks import nets

    from tests.importing.compare_monai import prepared

    image = prepared(config, scan)
    low, high, bottom, top = kind["range"]
    hu = (image[0].numpy() - bottom) / (top - bottom) * (high - low) + low
    labels = torch.from_numpy(rule_labels(hu, left_is_high=kind["axes"][0] == "L").astype(np.int64))[None]
    network = getattr(nets, config["network_def"]["_target_"].rsplit(".", 1)[-1])(
        **{key: value for key, value in config["network_def"].items() if key != "_target_"}
    )
    chosen = np.random.default_rng(1)
    loss, optimiser = DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.Adam(network.parameters(), 2e-3)
    patch = [min(48, size // 8 * 8) for size in image.shape[1:]]
    network.train()
    for _ in range(steps):
        starts = [int(chosen.integers(0, size - part + 1)) for size, part in zip(image.shape[1:], patch, strict=True)]
        cut = (slice(None), *(slice(first, first + part) for first, part in zip(starts, patch, strict=True)))
        optimiser.zero_grad()
        value = loss(network(image[cut][None]), labels[cut][None])
        value.backward()
        optimiser.step()
    return network.state_dict()


def train_detector(config: dict, scan: str, steps: int) -> dict:
    """Learn the boxes of bright small parts (bone) of one scan."""
    import torch
    from scipy import ndimage

    from tests.importing.compare_monai import detector_of, prepared

    image = prepared(config, scan)
    parts, _ = ndimage.label(image[0].numpy() > 0.95)
    sizes = ndimage.find_objects(parts)
    boxes = [
        [*(part.start for part in item), *(part.stop for part in item)]
        for item in sizes
        if all(2 <= part.stop - part.start <= 14 for part in item)
    ]
    detector = detector_of(config)
    detector.set_atss_matcher(num_candidates=4, center_in_gt=False)
    detector.set_hard_negative_sampler(batch_size_per_image=64, positive_fraction=0.3, pool_size=20, min_neg=16)
    optimiser = torch.optim.Adam(detector.network.parameters(), 3e-4)
    chosen = np.random.default_rng(1)
    patch = DETECTING["roi_size"]
    detector.train()
    whole = torch.tensor(boxes, dtype=torch.float32)
    for _ in range(steps):
        starts = [
            int(chosen.integers(0, max(size - part, 0) + 1)) for size, part in zip(image.shape[1:], patch, strict=True)
        ]
        cut = image[(slice(None), *(slice(a, a + b) for a, b in zip(starts, patch, strict=True)))]
        shift = torch.tensor(starts * 2, dtype=torch.float32)
        ends = torch.tensor(cut.shape[1:], dtype=torch.float32)
        here = whole - shift
        inside = (here[:, :3] >= 0).all(1) & (here[:, 3:] <= ends).all(1)
        if not inside.any():
            continue
        optimiser.zero_grad()
        losses = detector([cut], [{"box": here[inside], "label": torch.zeros(int(inside.sum()), dtype=torch.long)}])
        sum(losses.values()).backward()
        optimiser.step()
    detector.network.eval()
    return detector.network.state_dict()


def main() -> None:
    """Train one kind and write its bundle."""
    import torch

    kind, folder, scan = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else (25 if kind == "retinanet" else 60)
    torch.set_num_threads(2)
    torch.manual_seed(1)
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    if kind == "retinanet":
        provide_torchvision()  # before MONAI looks for it
        config = detecting_config()
        weights = train_detector(config, scan, steps)
    else:
        config = segmenting_config(SEGMENTING[kind])
        weights = train_segmenter(config, SEGMENTING[kind], scan, steps)
    torch.save(weights, folder / "models" / "model.pt")
    (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=1))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata(kind), indent=1))


if __name__ == "__main__":
    main()
