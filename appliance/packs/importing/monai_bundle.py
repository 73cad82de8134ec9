"""Import of MONAI bundles: metadata, configuration and weights of a segmentation or detection network become a pack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.anatomy.detectables import DETECTABLES
from appliance.errors import PackError
from appliance.packs.importing.checkpoint import read_weights, require_extra
from appliance.packs.importing.monai_config import Configuration, Described, read_table
from appliance.packs.importing.monai_plan import read_postprocessing, read_preprocessing, read_window
from appliance.packs.importing.terms import finding_classes, structure_channels
from appliance.packs.importing.write import Declaration, Draft, write_pack
from appliance.packs.manifest import NetworkInput
from appliance.packs.new_folder import new_folder, refuse_existing
from appliance.packs.pack import load, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from appliance.packs.importing.monai_plan import Preprocessing, Scaling, Window
    from appliance.packs.pack import Pack

_EXTRA = ("torch", "monai", "onnx", "openvino", "yaml")
_BACKGROUND = "background"
_SELECTOR = {
    "score_thresh": ("score_threshold", 0.05),
    "topk_candidates_per_level": ("candidates_per_level", 1000),
    "nms_thresh": ("nms_threshold", 0.5),
    "detections_per_img": ("most_detections", 300),
}


def import_monai(
    folder: Path,
    out: Path,
    declaration: Declaration,
    *,
    checkpoint: str = "model.pt",
    config: str = "inference",
    orientation: str = "auto",
    structures: Mapping[str, str] | None = None,
    drop_unknown: bool = False,
    resampling: str = "monai",
    patch: Sequence[int] = (),
    skip_air: bool = False,
    half: bool = True,
    precisions: Sequence[str] = ("f32",),
) -> Pack:
    """Make a pack of a MONAI bundle.

    Parameters
    ----------
    folder
        The bundle: ``configs/metadata.json``, ``configs/inference.json`` and ``models/model.pt``.
    out
        Folder of the pack; it must not exist yet.
    declaration
        Licence, intended use and all else that is never guessed.
    checkpoint
        Name of the weights in ``models/``.
    config
        Name of the configuration without its ending.
    orientation
        See :func:`appliance.packs.importing.monai_plan.read_preprocessing`.
    structures, drop_unknown
        See :func:`appliance.packs.importing.terms.structure_channels`; for a detector, class name to finding.
    resampling
        ``"monai"`` for MONAI's own grid and interpolation, ``"area"`` for the appliance's anti-aliased way.
    patch
        Another shape of a tile along the network's axes than the bundle's; smaller ones need less memory.
    skip_air
        Spend no tile on the room around the patient; MONAI does.
    half, precisions
        See :func:`appliance.packs.importing.nnunet.import_nnunet`.

    Returns
    -------
    Pack
        The written pack, loaded and verified; unsigned.

    Raises
    ------
    PackError
        With a sentence for whatever does not fit.
    """
    require_extra(_EXTRA)
    refuse_existing(out)
    metadata = read_table(_file(folder, "metadata"))
    source = _file(folder, config)
    configuration = Configuration(read_table(source), source.name)
    network = _network(configuration)
    weights_path = _weights(folder, checkpoint)
    preprocessing = read_preprocessing(configuration, orientation)
    known = _Import(
        folder,
        out,
        declaration,
        metadata,
        configuration,
        network,
        preprocessing,
        (f"{checkpoint}: SHA-256 {sha256_of(weights_path)}", *preprocessing.facts),
        _networks(precisions),
        half,
    )
    from appliance.packs.importing.monai_network import is_detector

    weights = read_weights(weights_path)
    chosen = structures or {}
    if is_detector(network):
        return known.detector(weights, checkpoint, chosen, patch, resampling)
    return known.segmenter(weights, checkpoint, chosen, patch, resampling, drop_unknown=drop_unknown, skip_air=skip_air)


class _Import:
    """What both kinds of import know once the bundle has been read."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        declaration: Declaration,
        metadata: Mapping[str, Any],
        configuration: Configuration,
        network: Described,
        preprocessing: Preprocessing,
        facts: tuple[str, ...],
        networks: tuple[dict[str, Any], ...],
        half: bool,
    ) -> None:
        self._out = out
        self._declaration = declaration
        self._configuration = configuration
        self._network = network
        self._before = preprocessing
        self._facts = facts
        self._networks = networks
        self._half = half
        self._outputs = _outputs(metadata)
        version = str(metadata.get("version", "")) or "without version"
        self._origin = f"MONAI bundle {_line(metadata.get('name') or folder.resolve().name)} {version}, {network.last}"

    def segmenter(
        self,
        weights: Mapping[str, Any],
        weights_name: str,
        chosen: Mapping[str, str],
        patch: Sequence[int],
        resampling: str,
        *,
        drop_unknown: bool,
        skip_air: bool,
    ) -> Pack:
        """Make a segmentation pack."""
        from appliance.packs.importing.monai_network import build_segmenter, load_weights

        inferer = self._configuration.component(self._configuration.get("inferer"), "inferer")
        if inferer.last not in {"SlidingWindowInferer", "SlidingWindowInfererAdapt"}:
            raise PackError(f"{self._configuration.name}: the inferer is {inferer.name}; packs repeat sliding windows.")
        window = read_window(self._configuration, inferer, patch)
        single, after = read_postprocessing(self._configuration)
        network = load_weights(build_segmenter(self._configuration, self._network), weights, weights_name)
        classes = _classes(self._outputs, _channels(network, window.patch), single=single)
        structures = structure_channels(classes, chosen, drop_unknown=drop_unknown)
        claimed = {channel for channels in structures.values() for channel in channels}
        dropped = [name for name, channel in classes.items() if channel not in claimed]
        left_out = [f"Left out, with no coded structure: {', '.join(dropped)}"] if dropped else []
        draft = Draft(
            self._declaration,
            self._geometry(window, resampling, skip_air=skip_air),
            _intensity(self._before.scaling),
            structures,
            self._networks,
            self._origin,
            (*self._facts, *window.facts, *after, *left_out),
        )
        return self._assemble(_whole(network, self._before.scaling, single=single), draft)

    def detector(
        self,
        weights: Mapping[str, Any],
        weights_name: str,
        chosen: Mapping[str, str],
        patch: Sequence[int],
        resampling: str,
    ) -> Pack:
        """Make a detection pack."""
        from appliance.packs.importing.monai_network import (
            build_detector,
            level_strides,
            load_weights,
            one_tensor,
            read_anchors,
        )

        calls = _calls(self._configuration)
        if "set_sliding_window_inferer" not in calls:
            raise PackError(
                f"{self._configuration.name}: the detector has no sliding window, so nothing says its tile."
            )
        window = read_window(self._configuration, calls["set_sliding_window_inferer"], patch)
        if window.gaussian:
            raise PackError(
                f"{self._configuration.name}: a detector's tiles are blended alike in packs, not by a Gaussian."
            )
        network = load_weights(build_detector(self._configuration, self._network), weights, weights_name)
        anchors = read_anchors(self._configuration, network)
        names = _finding_names(self._outputs, anchors.classes)
        findings = finding_classes(names, chosen)
        detection = {
            "classes": [{"name": name, "code": DETECTABLES[name].code} for name in findings],
            "strides": level_strides(network, window.patch),
            "anchor_sizes": anchors.sizes,
            "divisible_by": anchors.divisible_by,
            **_selection(self._configuration, calls),
        }
        draft = Draft(
            self._declaration,
            self._geometry(window, resampling, skip_air=False),
            _intensity(self._before.scaling),
            {},
            self._networks,
            self._origin,
            (*self._facts, *window.facts),
            detection=detection,
        )
        return self._assemble(_whole(one_tensor(network, anchors.classes), self._before.scaling, single=False), draft)

    def _geometry(self, window: Window, resampling: str, *, skip_air: bool) -> NetworkInput:
        scaling = self._before.scaling
        return NetworkInput(
            orientation=self._before.axes,
            spacing_mm=self._before.spacing_mm,
            patch=window.patch,
            overlap=window.overlap,
            # MONAI pads what it has scaled already.
            fill_hu=round(min(max(scaling.hu_of(window.pad_value), -32768), 32767)),
            weighting="gaussian-centred" if window.gaussian else "constant",
            tiling="stepped",
            resampling=resampling,
            clip_hu=scaling.clip_hu if scaling.clip_first else None,
            skip_air=skip_air,
        )

    def _assemble(self, whole: nn.Module, draft: Draft) -> Pack:
        from appliance.packs.importing.graph import write_ir, write_onnx

        with new_folder(self._out) as work:
            try:
                write_onnx(whole, draft.input.patch, work / "network.onnx", half=self._half)
            except (RuntimeError, ValueError) as error:
                said = " ".join(str(error).split())[:300]
                raise PackError(f"The network cannot be written for tiles of {draft.input.patch}: {said}") from error
            write_ir(work / "network.onnx", work / "network.xml", half=self._half)
            write_pack(work, draft)
        return load(self._out)


def _file(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise PackError(f"{folder}: not a folder; unpack the bundle and give its folder.")
    for ending in (".json", ".yaml", ".yml"):
        path = folder / "configs" / f"{name}{ending}"
        if path.is_file():
            return path
    raise PackError(f"{folder}: not a MONAI bundle: it has no configs/{name}.json (or .yaml).")


def _weights(folder: Path, name: str) -> Path:
    path = folder / "models" / name
    if path.is_file():
        return path
    there = sorted(item.name for item in (folder / "models").glob("*") if item.is_file())
    if any(item.endswith(".ts") for item in there):
        raise PackError(
            f"{folder}: holds its network as TorchScript ({', '.join(there)}), which is a program and not weights; ask "
            "for models/model.pt, or export it to ONNX and import that with --from onnx."
        )
    raise PackError(f"{folder}: has no models/{name}; it has {', '.join(there) or 'nothing there'}. See --checkpoint.")


def _network(configuration: Configuration) -> Described:
    found = configuration.get("network_def")
    key = "network_def" if found is not None else "network"
    return configuration.component(found if found is not None else configuration.get(key), key)


def _networks(precisions: Sequence[str]) -> tuple[dict[str, Any], ...]:
    return (
        {"engine": "openvino", "precisions": list(precisions), "path": "network.xml"},
        {"engine": "onnxruntime", "precisions": ["f32"], "path": "network.onnx"},
    )


def _outputs(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Read the channel names of the network's answer; empty where the metadata has none."""
    try:
        found = metadata["network_data_format"]["outputs"]
        first = found.get("pred") or next(iter(found.values()))
        return {str(key): str(value) for key, value in first.get("channel_def", {}).items()}
    except (KeyError, TypeError, AttributeError, StopIteration):
        return {}


def _channels(network: nn.Module, patch: tuple[int, int, int]) -> int:
    import torch

    try:
        with torch.no_grad():
            answer: Any = network(torch.zeros(1, 1, *patch))
    except (RuntimeError, ValueError) as error:
        raise PackError(f"The network cannot take tiles of {patch} voxels: {str(error)[:200]}") from error
    if not isinstance(answer, torch.Tensor) or tuple(answer.shape[2:]) != tuple(patch):
        raise PackError("The network does not answer with one map of the tile's shape.")
    return int(answer.shape[1])


def _classes(outputs: Mapping[str, str], channels: int, *, single: bool) -> dict[str, int]:
    """Class name to channel, background apart; channels without a name are ``channel_1``, ``channel_2`` and so on."""
    if single:
        if channels != 1:
            raise PackError(
                f"The network gives {channels} channels behind a sigmoid, which may overlap; packs hold networks with "
                "one label a voxel."
            )
        return {outputs.get("0", "channel_1"): 1}
    if not 1 < channels <= 255:
        raise PackError(f"The network gives {channels} channels; with the largest taken, a pack can hold 2 to 255.")
    if outputs and outputs.get("0", _BACKGROUND).lower() != _BACKGROUND:
        raise PackError(f"Channel 0 of the network is {outputs['0']!r}, not background.")
    named = {outputs.get(str(channel), f"channel_{channel}"): channel for channel in range(1, channels)}
    if len(named) != channels - 1:
        raise PackError("Two channels of the network have the same name.")
    return named


def _finding_names(outputs: Mapping[str, str], classes: int) -> list[str]:
    return [outputs.get(str(index), f"class_{index}") for index in range(classes)]


def _calls(configuration: Configuration) -> dict[str, Described]:
    """Read what the bundle says to its detector, by the name of the method."""
    found = configuration.get("detector_ops") or []
    calls = [item for item in found if isinstance(item, Described)] if isinstance(found, list) else []
    return {item.last: item for item in calls}


def _selection(configuration: Configuration, calls: Mapping[str, Described]) -> dict[str, Any]:
    selector, coder = calls.get("set_box_selector_parameters"), calls.get("set_box_coder_weights")
    said = selector.keywords if selector is not None else {}
    if configuration.plain(said.get("apply_sigmoid", True), "apply_sigmoid") is not True:
        raise PackError(f"{configuration.name}: scores are taken without a sigmoid, which packs cannot repeat.")
    chosen = {
        name: configuration.plain(said.get(key, usual), f"set_box_selector_parameters.{key}")
        for key, (name, usual) in _SELECTOR.items()
    }
    if coder is not None:
        given = coder.arguments[0] if coder.arguments else coder.keywords.get("weights")
        chosen["box_weights"] = configuration.plain(given, "set_box_coder_weights")
    return chosen


def _whole(network: nn.Module, scaling: Scaling, *, single: bool) -> nn.Module:
    """Put the scaling before the network, and background beside a lonely channel."""
    import torch

    from appliance.packs.importing.graph import in_hounsfield

    class BesideBackground(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Any) -> Any:
            logits = self.network(image)
            return torch.cat([torch.zeros_like(logits), logits], dim=1)

    inner = BesideBackground().eval() if single else network
    return in_hounsfield([inner], scaling.clip_hu, scaling.subtract_hu, scaling.divide_hu)


def _intensity(scaling: Scaling) -> dict[str, Any]:
    limits = {} if scaling.clip_hu is None else {"low_hu": scaling.clip_hu[0], "high_hu": scaling.clip_hu[1]}
    return {"kind": "window", **limits, "mean_hu": scaling.subtract_hu, "deviation_hu": scaling.divide_hu}


def _line(text: Any) -> str:
    return " ".join(str(text).split())[:80]
