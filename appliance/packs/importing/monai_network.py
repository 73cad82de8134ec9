"""Rebuilding MONAI's networks from a short list of classes and plain arguments, and putting weights in."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from appliance.packs.importing.monai_config import Configuration, Described

#: Every class that a configuration may name, and the module of MONAI that holds it; nothing else is ever imported.
_SEGMENTING = {
    "UNet": "monai.networks.nets.unet",
    "BasicUNet": "monai.networks.nets.basic_unet",
    "SegResNet": "monai.networks.nets.segresnet",
    "SegResNetDS": "monai.networks.nets.segresnet_ds",
    "DynUNet": "monai.networks.nets.dynunet",
    "VNet": "monai.networks.nets.vnet",
    "AttentionUnet": "monai.networks.nets.attentionunet",
}
_RETINANET = "RetinaNet"
_BACKBONES = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200")
_EXTRACTOR = "resnet_fpn_feature_extractor"
_EXTRACTOR_ORDER = (
    "backbone",
    "spatial_dims",
    "pretrained_backbone",
    "returned_layers",
    "trainable_backbone_layers",
)
#: Of every level, fixed in MONAI.
_PYRAMID_CHANNELS = 256
#: Optional arguments of networks that would be functions.
_CALLABLE = {"preprocess"}


@dataclass(frozen=True, slots=True)
class Anchors:
    """Sizes of a detector's anchors and the multiple to which it pads, in voxels along the network's axes."""

    sizes: tuple[tuple[tuple[float, float, float], ...], ...]
    divisible_by: tuple[int, int, int]
    classes: int


def is_detector(network: Described) -> bool:
    """Whether a description is of the detection network."""
    return network.last == _RETINANET


def build_segmenter(configuration: Configuration, network: Described) -> nn.Module:
    """Build a segmentation network with weights yet to come.

    Raises
    ------
    PackError
        Its class is not on the list, its arguments are not plain, or they make no network for one CT.
    """
    if network.last not in _SEGMENTING or not _is_monais(network.name):
        known = ", ".join([*_SEGMENTING, _RETINANET])
        raise PackError(
            f"{configuration.name}: the network is a {network.name}, which is not on the list ({known}); nothing else "
            "is built because a file says so. Export it to ONNX yourself and import that with --from onnx."
        )
    keywords = {key: configuration.plain(value, f"{network.last}.{key}") for key, value in network.keywords.items()}
    dimensions = keywords.get("spatial_dims", keywords.get("dimensions", 3))
    if dimensions != 3 or int(keywords.get("in_channels", 1)) != 1:
        raise PackError(f"{configuration.name}: the network does not take one three-dimensional image.")
    if any(keywords.get(key) is not None for key in _CALLABLE):
        raise PackError(f"{configuration.name}: the network calls a function of its own first, which packs cannot.")
    built: nn.Module = _made(_SEGMENTING[network.last], network.last, keywords, configuration.name)
    return built


def build_detector(configuration: Configuration, network: Described) -> nn.Module:
    """Build the RetinaNet of a detection bundle, ResNet and feature pyramid included, with weights yet to come.

    Raises
    ------
    PackError
        As :func:`build_segmenter`.
    """
    said = dict(network.keywords)
    extractor = configuration.component(said.pop("feature_extractor", None), "network_def.feature_extractor")
    parts = _named(extractor, _EXTRACTOR_ORDER)
    backbone = configuration.component(parts.pop("backbone", None), "feature_extractor.backbone")
    if extractor.last != _EXTRACTOR or backbone.last not in _BACKBONES or backbone.arguments:
        raise PackError(
            f"{configuration.name}: the detector stands on {extractor.last}({backbone.last}); "
            f"{_EXTRACTOR} with one of {', '.join(_BACKBONES)} is what is known."
        )
    if not all(_is_monais(item.name) for item in (network, extractor, backbone)):
        raise PackError(f"{configuration.name}: the detector is built of classes that are not MONAI's.")
    options = {key: configuration.plain(value, f"{backbone.last}.{key}") for key, value in backbone.keywords.items()}
    if options.pop("pretrained", False):
        raise PackError(f"{configuration.name}: the backbone would be downloaded; the bundle's own weights are needed.")
    base = _made("monai.networks.nets.resnet", backbone.last, options, configuration.name)
    plain = {key: configuration.plain(value, f"{_EXTRACTOR}.{key}") for key, value in parts.items()}
    module = "monai.apps.detection.networks.retinanet_network"
    features = _pyramid(base, plain.get("returned_layers", (1, 2, 3)), configuration.name)
    rest = {key: configuration.plain(value, f"{_RETINANET}.{key}") for key, value in said.items()}
    rest |= {"feature_extractor": features, "use_list_output": True}
    if rest.get("spatial_dims") != 3 or options.get("n_input_channels") != 1:
        raise PackError(f"{configuration.name}: the detector does not take one three-dimensional image.")
    built: nn.Module = _made(module, _RETINANET, rest, configuration.name)
    return built


def read_anchors(configuration: Configuration, network: nn.Module) -> Anchors:
    """Read the detector's anchors.

    Raises
    ------
    PackError
        They are made by another class than ``AnchorGeneratorWithAnchorShape``, or do not fit the network.
    """
    import torch

    generator = configuration.component(configuration.get("anchor_generator"), "anchor_generator")
    if generator.last != "AnchorGeneratorWithAnchorShape" or generator.arguments:
        raise PackError(
            f"{configuration.name}: anchors come from {generator.last}; AnchorGeneratorWithAnchorShape is known."
        )
    said = {key: configuration.plain(value, f"anchor_generator.{key}") for key, value in generator.keywords.items()}
    if said.pop("indexing", "ij") != "ij":
        raise PackError(f"{configuration.name}: anchors with their first two axes exchanged are not known.")
    made: Any = _made("monai.apps.detection.utils.anchor_utils", generator.last, said, configuration.name)
    sizes = [(cell[:, 3:] - cell[:, :3]).tolist() for cell in made.cell_anchors]
    bare: Any = network
    if {len(level) for level in sizes} != {int(bare.num_anchors)} or not all(
        bool(torch.all(cell[:, 3:] == -cell[:, :3])) and bool(torch.all(cell[:, 3:] > 0)) for cell in made.cell_anchors
    ):
        raise PackError(
            f"{configuration.name}: the anchors do not fit the network's {bare.num_anchors} at every place."
        )
    divisible = tuple(int(value) for value in bare.size_divisible)
    return Anchors(
        tuple(tuple((a, b, c) for a, b, c in level) for level in sizes),
        (divisible[0], divisible[1], divisible[2]),
        int(bare.num_classes),
    )


def load_weights(network: nn.Module, weights: Mapping[str, Any], name: str) -> nn.Module:
    """Put weights in.

    Raises
    ------
    PackError
        They are not this network's.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        said = lines[1].strip()[:300] if len(lines) > 1 else str(error)[:300]
        raise PackError(f"{name}: its weights do not fit the network that the bundle describes: {said}") from error
    return network.eval()


def one_tensor(network: nn.Module, classes: int) -> nn.Module:
    """Wrap a RetinaNet so that it gives one tensor ``(1, anchors, classes + 6)``, which an engine can return.

    See :class:`appliance.packs.detection_part.DetectionOutput` for the order.
    """
    import torch

    anchors = int(network.num_anchors)  # type: ignore[arg-type]

    class OneTensor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Any) -> Any:
            maps = self.network(image)
            levels = len(maps) // 2
            rows = []
            for logits, boxes in zip(maps[:levels], maps[levels:], strict=True):
                parts = [
                    item.reshape(1, anchors, count, *item.shape[2:]).permute(0, 3, 4, 5, 1, 2).reshape(1, -1, count)
                    for item, count in ((logits, classes), (boxes, 6))
                ]
                rows.append(torch.cat(parts, dim=2))
            return torch.cat(rows, dim=1)

    return OneTensor().eval()


def level_strides(network: nn.Module, patch: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    """Measure, for each level, how many voxels lie between neighbouring places.

    Raises
    ------
    PackError
        A tile is no multiple of what the network needs.
    """
    import torch

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            maps: Any = network(torch.zeros(1, 1, *patch))
    except RuntimeError as error:
        raise PackError(f"The network cannot take tiles of {patch} voxels: {str(error)[:200]}") from error
    strides = []
    for item in maps[: len(maps) // 2]:
        shape = tuple(int(value) for value in item.shape[2:])
        if any(whole % part for whole, part in zip(patch, shape, strict=True)):
            raise PackError(f"Tiles of {patch} voxels are no multiple of the network's steps; choose others (--patch).")
        strides.append((patch[0] // shape[0], patch[1] // shape[1], patch[2] // shape[2]))
    return tuple(strides)


def _made(module: str, name: str, keywords: Mapping[str, Any], where: str) -> Any:
    import importlib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's remarks on what it deprecates
        made = getattr(importlib.import_module(module), name)
        try:
            return made(**keywords)
        except Exception as error:  # MONAI's checks raise errors of many classes
            said = " ".join(str(error).split())[:200]
            raise PackError(f"{where}: what it says of {name} makes no network ({said}).") from error


def _pyramid(backbone: Any, returned: Any, where: str) -> nn.Module:
    """Put a feature pyramid on a ResNet, its weights named as MONAI names them.

    MONAI takes one class for that from torchvision, which no import needs otherwise: it runs a network's parts in turn
    and hands out the answers of some.
    """
    import torch
    from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

    if not isinstance(returned, (list, tuple)) or not returned or not set(returned) <= {1, 2, 3, 4}:
        raise PackError(f"{where}: the feature pyramid stands on the layers {returned!r}; 1 to 4 are there.")
    wanted = {f"layer{number}": str(index) for index, number in enumerate(returned)}

    class Body(torch.nn.ModuleDict):
        def __init__(self) -> None:
            parts = list(backbone.named_children())
            names = [name for name, _ in parts]
            last = max(names.index(name) for name in wanted)
            super().__init__(dict(parts[: last + 1]))

        def forward(self, image: Any) -> dict[str, Any]:
            answers = {}
            for name, part in self.items():
                image = part(image)
                if name in wanted:
                    answers[wanted[name]] = image
            return answers

    class Pyramid(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Body()
            first = backbone.in_planes // 8
            self.out_channels = _PYRAMID_CHANNELS
            self.fpn = FeaturePyramidNetwork(
                spatial_dims=3,
                in_channels_list=[first * 2 ** (number - 1) for number in returned],
                out_channels=self.out_channels,
                extra_blocks=LastLevelMaxPool(3),
            )

        def forward(self, image: Any) -> Any:
            return self.fpn(self.body(image))

    return Pyramid()


def _named(component: Described, order: tuple[str, ...]) -> dict[str, Any]:
    return dict(zip(order, component.arguments, strict=False)) | dict(component.keywords)


def _is_monais(name: str) -> bool:
    return "." not in name or name.startswith("monai.")
