"""From PyTorch modules to the two files of a pack: ONNX, and OpenVINO's IR, with Hounsfield units as input."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

#: Every class that plans may name; nothing else is ever imported because a file says so.
_CLASSES = {
    "torch.nn.modules.conv.Conv3d": "Conv3d",
    "torch.nn.Conv3d": "Conv3d",
    "torch.nn.modules.instancenorm.InstanceNorm3d": "InstanceNorm3d",
    "torch.nn.InstanceNorm3d": "InstanceNorm3d",
    "torch.nn.modules.batchnorm.BatchNorm3d": "BatchNorm3d",
    "torch.nn.BatchNorm3d": "BatchNorm3d",
    "torch.nn.LeakyReLU": "LeakyReLU",
    "torch.nn.modules.activation.LeakyReLU": "LeakyReLU",
    "torch.nn.ReLU": "ReLU",
    "torch.nn.modules.activation.ReLU": "ReLU",
    "torch.nn.modules.dropout.Dropout3d": "Dropout3d",
    "torch.nn.Dropout3d": "Dropout3d",
}
_NAMED = ("conv_op", "norm_op", "dropout_op", "nonlin")
_ARCHITECTURES = ("PlainConvUNet", "ResidualEncoderUNet")
_OPSET = 17
#: Smaller tensors are kept whole: biases and scales weigh nothing and matter most.
_LEAST_HALVED = 256


def build(architecture: str, arguments: Mapping[str, Any], classes: int, weights: Mapping[str, Any]) -> nn.Module:
    """Rebuild a network and put its weights in.

    Parameters
    ----------
    architecture, arguments
        As in :class:`appliance.packs.importing.plans.NnunetPlans`.
    classes
        Output channels, background among them.
    weights
        Name to tensor.

    Raises
    ------
    PackError
        The architecture is not known, or the weights do not fit what the plans describe.
    """
    import torch
    from dynamic_network_architectures.architectures import unet

    if architecture not in _ARCHITECTURES:
        raise PackError(
            f"The architecture {architecture} is not known; {' and '.join(_ARCHITECTURES)} are. Export it to ONNX "
            "yourself and import that with --from onnx."
        )
    keywords: dict[str, Any] = dict(arguments)
    for key in _NAMED:
        name = keywords.get(key)
        if name is not None:
            if name not in _CLASSES:
                raise PackError(f"The plans name {name!r} as {key}, which is not among the layers that are known.")
            keywords[key] = getattr(torch.nn, _CLASSES[name])
    try:
        network: nn.Module = getattr(unet, architecture)(
            input_channels=1, num_classes=classes, deep_supervision=False, **keywords
        )
    except (TypeError, ValueError, AssertionError, RuntimeError, IndexError, KeyError) as error:
        raise PackError(f"The plans describe no buildable {architecture} ({error}).") from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        said = lines[1].strip()[:300] if len(lines) > 1 else str(error)[:300]
        raise PackError(f"The checkpoint's weights do not fit the network in plans.json: {said}") from error
    return network.eval()


def in_hounsfield(
    networks: Sequence[nn.Module], clip_hu: tuple[float, float] | None, mean_hu: float, deviation_hu: float
) -> nn.Module:
    """Wrap networks so that they take Hounsfield units and give the mean of their logits, as nnU-Net's folds do."""
    import torch

    class InHounsfield(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.networks = torch.nn.ModuleList(networks)

        def forward(self, hu: Any) -> Any:
            if clip_hu is not None:
                hu = torch.clamp(hu, *clip_hu)
            scaled = (hu - mean_hu) / deviation_hu
            total = self.networks[0](scaled)
            for network in self.networks[1:]:
                total = total + network(scaled)
            return total / len(self.networks) if len(self.networks) > 1 else total

    return InHounsfield().eval()


def write_onnx(network: nn.Module, patch: tuple[int, int, int], path: Path, *, half: bool) -> None:
    """Write ONNX with a static shape.

    Parameters
    ----------
    network
        Takes ``(1, 1, slices, rows, columns)`` HU and gives logits.
    patch
        Shape of a tile.
    path
        File to write.
    half
        Store weights in half precision, cast to single when the file is loaded.
    """
    import onnx
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter is the one whose graphs both engines were measured with; that it is old is known.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 1, *patch),),
            str(path),
            input_names=["hu"],
            output_names=["logits"],
            opset_version=_OPSET,
            dynamo=False,
        )
    model = onnx.load(str(path))
    if half:
        _halve(model)
    model.producer_name, model.doc_string = "appliance", ""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _halve(model: Any) -> None:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < _LEAST_HALVED:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, stored = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def write_ir(onnx_path: Path, path: Path, *, half: bool) -> None:
    """Turn ONNX into OpenVINO's IR: an ``.xml`` and a ``.bin`` beside it.

    Raises
    ------
    PackError
        OpenVINO cannot read the network, for example because of an operator that it does not know, or cannot write it.
    """
    from appliance.inference.engines import import_openvino

    openvino = import_openvino()
    try:
        model = openvino.Core().read_model(onnx_path)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:300]
        raise PackError(f"{onnx_path.name}: OpenVINO cannot read the network: {said}") from error
    try:
        openvino.save_model(model, path, compress_to_fp16=half)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:300]
        raise PackError(f"{path}: the network cannot be written ({said}); is the disk full?") from error
