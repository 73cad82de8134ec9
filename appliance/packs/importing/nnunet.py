"""Import of networks trained by nnU-Net version 2: plans, dataset and checkpoints become a pack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.errors import PackError
from appliance.packs.importing.checkpoint import read_checkpoint, require_extra
from appliance.packs.importing.plans import compare, interpret, read_json
from appliance.packs.importing.terms import structure_channels
from appliance.packs.importing.write import Declaration, Draft, write_pack
from appliance.packs.manifest import NetworkInput
from appliance.packs.new_folder import new_folder, refuse_existing
from appliance.packs.pack import load, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from appliance.packs.importing.plans import NnunetPlans
    from appliance.packs.pack import Pack

_FOLD = "fold_"
_ALL = "all"


def import_nnunet(
    folder: Path,
    out: Path,
    declaration: Declaration,
    *,
    folds: Sequence[str] = (),
    checkpoint: str = "checkpoint_final.pth",
    orientation: str = "auto",
    structures: Mapping[str, str] | None = None,
    drop_unknown: bool = False,
    resampling: str = "nnunet",
    step_size: float = 0.5,
    mirror: bool = False,
    skip_air: bool = False,
    half: bool = True,
    precisions: Sequence[str] = ("f32",),
) -> Pack:
    """Make a pack of a network that nnU-Net trained.

    Parameters
    ----------
    folder
        nnU-Net's results of one configuration: ``plans.json``, ``dataset.json`` and ``fold_*``.
    out
        Folder of the pack; it must not exist yet.
    declaration
        Licence, intended use and all else that the files do not say.
    folds
        Such as ``("0", "3")``. Several become one graph that gives the mean of their logits, as nnU-Net's predictor
        does, at the cost of each. Without any, all that were trained are taken (``fold_all`` only when it is alone).
    checkpoint
        Name of the file in each fold.
    orientation
        See :meth:`appliance.packs.importing.plans.NnunetPlans.orientation`.
    structures, drop_unknown
        See :func:`appliance.packs.importing.terms.structure_channels`.
    resampling
        ``"nnunet"`` for nnU-Net's own cubic spline and grid, ``"area"`` for the appliance's anti-aliased way.
    step_size
        Distance of tiles as a share of a tile; nnU-Net's own is 0.5.
    mirror
        Average over the mirrorings that the network was trained with; up to eight times the work.
    skip_air
        Spend no tile on the room around the patient; nnU-Net does.
    half
        Store weights in half precision.
    precisions
        What the network may compute in beside nothing else: ``"f32"``, ``"bf16"``.

    Returns
    -------
    Pack
        The written pack, loaded and verified; unsigned.

    Raises
    ------
    PackError
        With a sentence for whatever does not fit.
    """
    require_extra()
    refuse_existing(out)
    folder = _results(folder)
    chosen = _folds(folder, folds)
    plans_file, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    plans, networks, facts, mirrorings = _read(folder, chosen, checkpoint, plans_file, dataset)
    channels = structure_channels(plans.labels, structures or {}, drop_unknown=drop_unknown)
    axes, reason = plans.orientation(orientation)
    if resampling == "nnunet" and not plans.usual_resampling:
        raise PackError(
            "The network was trained behind another resampling than nnU-Net's usual one, so that cannot be repeated "
            "exactly; choose --resampling area, and check the result on scans of your own."
        )
    if mirror and not mirrorings:
        raise PackError("The network was trained without mirroring, so averaging over mirrorings would harm it.")
    geometry = NetworkInput(
        orientation=axes,
        spacing_mm=plans.spacing_mm,
        patch=plans.patch,
        overlap=1.0 - step_size,
        # nnU-Net pads with zero after normalisation, which is the mean in Hounsfield units.
        fill_hu=round(min(max(plans.mean_hu, -1024), 3071)),
        weighting="gaussian",
        mirror_axes=mirrorings if mirror else (),
        resampling=resampling,
        clip_hu=plans.clip_hu if resampling == "nnunet" else None,
        skip_air=skip_air,
    )
    dropped = sorted(set(plans.labels.values()) - {channel for claimed in channels.values() for channel in claimed})
    names = {channel: name for name, channel in plans.labels.items()}
    facts = [
        *facts,
        f"Axes: {axes}. {reason}",
        f"Test-time mirroring: {'axes ' + ', '.join(map(str, mirrorings)) if mirror else 'off'}",
        f"Weights stored in {'half' if half else 'single'} precision",
        *(
            [f"Left out, with no coded structure: {', '.join(names[channel] for channel in dropped)}"]
            if dropped
            else []
        ),
    ]
    origin = f"nnU-Net v2, {plans.dataset}, {plans.configuration}, {plans.architecture}, folds {', '.join(chosen)}"
    draft = Draft(
        declaration,
        geometry,
        _intensity(plans),
        channels,
        (
            {"engine": "openvino", "precisions": list(precisions), "path": "network.xml"},
            {"engine": "onnxruntime", "precisions": ["f32"], "path": "network.onnx"},
        ),
        origin,
        facts,
    )
    return _assemble(out, networks, plans, draft, half=half)


def _assemble(out: Path, networks: Sequence[nn.Module], plans: NnunetPlans, draft: Draft, *, half: bool) -> Pack:
    from appliance.packs.importing.graph import in_hounsfield, write_ir, write_onnx

    with new_folder(out) as work:
        whole = in_hounsfield(networks, plans.clip_hu, plans.mean_hu, plans.deviation_hu)
        write_onnx(whole, plans.patch, work / "network.onnx", half=half)
        write_ir(work / "network.onnx", work / "network.xml", half=half)
        write_pack(work, draft)
    return load(out)


def _read(
    folder: Path, folds: Sequence[str], name: str, plans_file: Mapping[str, Any], dataset: Mapping[str, Any]
) -> tuple[NnunetPlans, list[nn.Module], list[str], tuple[int, ...]]:
    from appliance.packs.importing.graph import build

    plans: NnunetPlans | None = None
    networks, facts = [], []
    mirrorings: tuple[int, ...] = ()
    for fold in folds:
        path = folder / f"{_FOLD}{fold}" / name
        content = read_checkpoint(path)
        configuration = str(content["init_args"].get("configuration", ""))
        embedded = content["init_args"].get("plans")
        if isinstance(embedded, dict):
            compare(plans_file, embedded, configuration)
        found = interpret(plans_file, dataset, configuration)
        if plans is not None and found != plans:
            raise PackError(f"{path}: trained with another configuration than the other folds; import it by itself.")
        plans = found
        networks.append(build(plans.architecture, plans.arguments, len(plans.labels) + 1, content["network_weights"]))
        mirrorings = tuple(int(axis) for axis in content.get("inference_allowed_mirroring_axes") or ())
        facts.append(f"Fold {fold}: {content['trainer_name']}, {name}, SHA-256 {sha256_of(path)}")
    if plans is None:
        raise PackError(f"{folder}: there is no fold to import.")
    return plans, networks, facts, mirrorings


def _intensity(plans: NnunetPlans) -> dict[str, Any]:
    if plans.clip_hu is None:
        return {"kind": "network"}
    return {
        "kind": "nnunet-ct",
        "low_hu": plans.clip_hu[0],
        "high_hu": plans.clip_hu[1],
        "mean_hu": plans.mean_hu,
        "deviation_hu": plans.deviation_hu,
    }


def _results(folder: Path) -> Path:
    if (folder / "plans.json").is_file():
        return folder
    inner = sorted(path.parent for path in folder.glob("*/plans.json"))
    if len(inner) == 1:
        return inner[0]
    if inner:
        names = ", ".join(path.name for path in inner)
        raise PackError(f"{folder}: holds several trainings ({names}); give the folder of one.")
    raise PackError(f"{folder}: not a results folder of nnU-Net version 2: it has no plans.json.")


def _folds(folder: Path, wanted: Sequence[str]) -> list[str]:
    there = sorted(path.name.removeprefix(_FOLD) for path in folder.glob(f"{_FOLD}*") if path.is_dir())
    missing = [fold for fold in wanted if fold not in there]
    if missing or not there:
        raise PackError(f"{folder}: has no fold {', '.join(missing) or 'at all'}; it has {', '.join(there) or 'none'}.")
    return list(wanted) or [fold for fold in there if fold != _ALL] or there
