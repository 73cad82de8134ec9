"""What nnU-Net's plans and dataset files say about a network, checked before anything is built from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_WORDS = {"L": "left", "R": "right", "A": "front", "P": "back", "S": "head", "I": "feet"}
_AXES = ("LR", "AP", "SI")
_REORIENTS_TO_RAS = "NibabelIOWithReorient"
_USUAL_RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
#: Compared between plans.json and the plans inside the checkpoint.
_MUST_AGREE = ("spacing", "patch_size", "normalization_schemes", "architecture", "resampling_fn_data_kwargs")


@dataclass(frozen=True, slots=True)
class NnunetPlans:
    """One configuration of nnU-Net's plans. Axes are the network's, after ``transpose_forward``.

    Attributes
    ----------
    dataset, configuration, reader
        Names as nnU-Net has them; the reader tells how images' axes were treated.
    architecture
        ``"PlainConvUNet"`` or ``"ResidualEncoderUNet"``.
    arguments
        Its keyword arguments; classes still by name.
    spacing_mm, patch
        Of the network's grid.
    transpose
        ``transpose_forward``: axis of the image as read (slices, rows, columns) for each axis of the network.
    clip_hu, mean_hu, deviation_hu
        nnU-Net's CT normalisation, or ``None``, 0 and 1 for a network that takes Hounsfield units.
    usual_resampling
        Whether images were resampled as nnU-Net does by default (cubic spline, nearest along thick slices).
    labels
        Class name to channel, without background.
    """

    dataset: str
    configuration: str
    reader: str
    architecture: str
    arguments: dict[str, Any]
    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    transpose: tuple[int, int, int]
    clip_hu: tuple[float, float] | None
    mean_hu: float
    deviation_hu: float
    usual_resampling: bool
    labels: dict[str, int]

    def orientation(self, code: str) -> tuple[str, str]:
        """Say where the network's axes grow to.

        Parameters
        ----------
        code
            Where columns, rows and slices of the training images grew to, such as ``"RAS"`` or ``"LPS"``; or
            ``"auto"``: RAS for nnU-Net's reorienting reader and for TotalSegmentator, else LPS, which is what DICOM
            series of supine patients become.

        Returns
        -------
        orientation : str
            As in a pack's manifest.
        reason : str
            Where it comes from, a sentence for the model card.

        Raises
        ------
        PackError
            The code names no three axes.
        """
        reason = "The caller said so."
        if code == "auto":
            if self.reader == _REORIENTS_TO_RAS:
                code, reason = "RAS", "nnU-Net's reader turned every training image to RAS."
            elif "totalsegmentator" in self.dataset.lower():
                code, reason = "RAS", "TotalSegmentator turns every image to RAS before nnU-Net sees it."
            else:
                code = "LPS"
                reason = (
                    f"Assumed: {self.reader or 'the reader'} takes images as they are stored, and nothing in the plans "
                    "says how that was; LPS is how DICOM series of supine patients are stored."
                )
        letters = code.upper()
        if len(letters) != len(_AXES) or any(sum(letter in axis for letter in letters) != 1 for axis in _AXES):
            raise PackError(f"{code!r} is not an orientation; three letters are needed, such as RAS or LPS.")
        words = [_WORDS[letter] for letter in reversed(letters)]
        return "-".join(words[axis] for axis in self.transpose), reason


def read_json(path: Path) -> dict[str, Any]:
    """Read one of nnU-Net's JSON files.

    Raises
    ------
    PackError
        It is missing, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PackError(f"{path}: cannot be read ({error.strerror}); give the folder that holds it.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PackError(f"{path}: not a JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise PackError(f"{path}: not a JSON object.")
    return content


def interpret(plans: Mapping[str, Any], dataset: Mapping[str, Any], configuration: str) -> NnunetPlans:
    """Read one configuration.

    Parameters
    ----------
    plans, dataset
        Contents of ``plans.json`` and ``dataset.json``.
    configuration
        Such as ``"3d_fullres"``.

    Raises
    ------
    PackError
        The network is not one that a pack can hold: a cascade's second stage, two-dimensional, several input channels,
        regions, another normalisation or architecture; or the files lack something.
    """
    chosen = resolve(plans, configuration)
    if chosen.get("previous_stage"):
        raise PackError(
            f"{configuration} is the second stage of a cascade and needs the labels of {chosen['previous_stage']} as "
            "input, which packs cannot give; import 3d_fullres, or the first stage alone."
        )
    try:
        return _interpret(plans, dataset, configuration, chosen)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PackError(f"The plans lack something or hold something odd ({type(error).__name__}: {error}).") from error


def _interpret(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], configuration: str, chosen: dict[str, Any]
) -> NnunetPlans:
    spacing, patch = [float(v) for v in chosen["spacing"]], [int(v) for v in chosen["patch_size"]]
    if len(patch) != len("zyx") or len(spacing) != len("zyx"):
        raise PackError(f"{configuration} is a two-dimensional network; packs hold three-dimensional ones.")
    architecture, arguments = _architecture(chosen)
    clip, mean, deviation = _normalisation(plans, dataset, chosen)
    transpose = [int(axis) for axis in plans["transpose_forward"]]
    if sorted(transpose) != [0, 1, 2]:
        raise ValueError(f"transpose_forward {transpose}")
    usual = chosen.get("resampling_fn_data") == "resample_data_or_seg_to_shape" and (
        chosen.get("resampling_fn_data_kwargs") == _USUAL_RESAMPLING
    )
    return NnunetPlans(
        str(plans.get("dataset_name", "unnamed")),
        configuration,
        str(plans.get("image_reader_writer", "")),
        architecture,
        arguments,
        (spacing[0], spacing[1], spacing[2]),
        (patch[0], patch[1], patch[2]),
        (transpose[0], transpose[1], transpose[2]),
        clip,
        mean,
        deviation,
        usual,
        _labels(dataset),
    )


def resolve(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Read one configuration with all that it inherits.

    Raises
    ------
    PackError
        There is no such configuration, or configurations inherit from each other in a circle.
    """
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict) or configuration not in configurations:
        known = ", ".join(configurations) if isinstance(configurations, dict) else "none"
        raise PackError(f"The plans have no configuration {configuration!r}; they have {known}.")
    chain, name = [], configuration
    while name:
        if name in chain or name not in configurations:
            raise PackError(f"The plans' configuration {configuration!r} inherits from {name!r}, which leads nowhere.")
        chain.append(name)
        name = configurations[name].get("inherits_from")
    merged: dict[str, Any] = {}
    for parent in reversed(chain):
        merged |= configurations[parent]
    return merged


def compare(plans: Mapping[str, Any], embedded: Mapping[str, Any], configuration: str) -> None:
    """Compare plans.json with the plans that the checkpoint was trained with.

    Raises
    ------
    PackError
        They differ in something that changes what the network sees or is.
    """
    ours, theirs = resolve(plans, configuration), resolve(embedded, configuration)
    different = [key for key in _MUST_AGREE if ours.get(key) != theirs.get(key)]
    if plans.get("transpose_forward") != embedded.get("transpose_forward"):
        different.append("transpose_forward")
    key = "foreground_intensity_properties_per_channel"
    if plans.get(key) != embedded.get(key):
        different.append(key)
    if different:
        raise PackError(
            f"plans.json does not belong to this checkpoint: they differ in {', '.join(different)}. Copy both from one "
            "training."
        )


def _architecture(chosen: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if "architecture" in chosen:
        described = chosen["architecture"]
        return str(described["network_class_name"]).rsplit(".", 1)[-1], dict(described["arch_kwargs"])
    # Plans of nnU-Net before 2.5 keep the same facts under older names, and leave the rest to the version.
    if "UNet_class_name" not in chosen:
        raise PackError("The plans describe no architecture; they are not plans of nnU-Net version 2.")
    stages = len(chosen["n_conv_per_stage_encoder"])
    name = str(chosen["UNet_class_name"])
    widest = int(chosen["unet_max_num_features"])
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(int(chosen["UNet_base_num_features"]) * 2**i, widest) for i in range(stages)],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": chosen["conv_kernel_sizes"],
        "strides": chosen["pool_op_kernel_sizes"],
        "n_blocks_per_stage" if name == "ResidualEncoderUNet" else "n_conv_per_stage": chosen[
            "n_conv_per_stage_encoder"
        ],
        "n_conv_per_stage_decoder": chosen["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return name, arguments


def _normalisation(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[tuple[float, float] | None, float, float]:
    inputs = dataset.get("channel_names") or dataset.get("modality") or {}
    schemes = list(chosen["normalization_schemes"])
    if len(inputs) != 1 or len(schemes) != 1:
        raise PackError(f"The network takes {len(inputs)} images at once; packs hold networks that take one CT.")
    if schemes[0] == "NoNormalization":
        return None, 0.0, 1.0
    if schemes[0] != "CTNormalization":
        raise PackError(
            f"The network was trained behind {schemes[0]}, whose figures come from the whole image (as for MR); "
            "packs hold networks behind CTNormalization or NoNormalization."
        )
    known = (
        plans.get("foreground_intensity_properties_per_channel") or plans["foreground_intensity_properties_by_modality"]
    )
    figures = known["0"] if "0" in known else known[0]
    clip = (float(figures["percentile_00_5"]), float(figures["percentile_99_5"]))
    return clip, float(figures["mean"]), max(float(figures["std"]), 1e-8)


def _labels(dataset: Mapping[str, Any]) -> dict[str, int]:
    labels = {}
    for name, value in dataset["labels"].items():
        if isinstance(value, (list, tuple)) or dataset.get("regions_class_order"):
            raise PackError(
                "The network was trained on overlapping regions; packs hold networks with one label a voxel."
            )
        if name not in {"background", "ignore"}:
            labels[str(name)] = int(value)
    if sorted(labels.values()) != list(range(1, len(labels) + 1)):
        raise PackError("The dataset's labels are not numbered 1, 2, 3, …, so channels cannot be told.")
    if not labels or len(labels) > 254:
        raise PackError(f"The network has {len(labels)} classes; a pack can hold 1 to 254.")
    return labels
