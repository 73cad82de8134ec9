"""From a pack to its quantised successor: networks, test vectors, gates, card and digests; unsigned."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.errors import PackError
from appliance.inference.logits import labels_of
from appliance.packs.gates import Margins
from appliance.packs.importing.write import to_toml
from appliance.packs.manifest import MANIFEST, SIGNATURE, Manifest
from appliance.packs.new_folder import new_folder, refuse_existing
from appliance.packs.pack import load, sha256_of
from appliance.packs.quantising.card import CARD, with_gates
from appliance.packs.quantising.scans import refuse_overlap
from appliance.packs.quantising.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.packs.gates import Gate, TileGate
    from appliance.packs.pack import Pack
    from appliance.packs.quantising.scans import Source

#: Where they come from is said in docs/packs.md, "Quantise".
MARGINS = Margins(maximum_dice_drop=0.01, maximum_volume_difference=0.02, minimum_gain=0.1)


def quantise_pack(
    pack: Pack,
    calibrating: Sequence[Source],
    judging: Sequence[Source],
    out: Path,
    *,
    margins: Margins = MARGINS,
    version: str | None = None,
    threads: int = 0,
    patches: Sequence[tuple[int, int, int]] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Pack:
    """Quantise a pack's network, hold INT8 and bf16 against single precision, and write what passed as a new pack.

    Parameters
    ----------
    pack
        A verified pack that holds its network in single precision.
    calibrating, judging
        Scans; none may be on both sides.
    out
        Folder of the new pack; must not exist yet.
    margins
        What a precision may lose and must gain.
    version
        Of the new pack; by default the last number is raised by one.
    threads
        CPU threads; 0 takes all.
    patches
        Other shapes of a tile, held against the pack's own; those that lose no more than the margins join its patches.
    tell
        Told of each step.

    Returns
    -------
    Pack
        Loaded and verified; unsigned. It holds INT8 and bf16 only where their gates were passed.

    Raises
    ------
    PackError
        With a sentence for whatever does not fit.
    InferenceError
        An engine cannot run the network.
    """
    refuse_existing(out)
    pack.require("segmentation")
    refuse_overlap(calibrating, judging)
    wanted = version or next_version(pack.version)
    source = _single_precision(pack)
    with tempfile.TemporaryDirectory() as made:
        trial = Trial(pack, source, Path(made) / f"{_stem(source)}_int8.xml", margins, threads, tell)
        gates, tile_gates, engines = trial.run(calibrating, judging, patches)
        with new_folder(out) as work:
            _copy(pack, work)
            passed = {gate.precision for gate in gates if gate.verdict == "passed"}
            if "int8" in passed:
                for suffix in (".xml", ".bin"):
                    shutil.copyfile(trial.int8.with_suffix(suffix), work / trial.int8.with_suffix(suffix).name)
            manifest = _manifest(pack, wanted, gates, trial.int8.name)
            _add_tile_gates(manifest, tile_gates)
            _add_vectors(work, manifest, engines)
            _write_card(work / CARD, pack, wanted, gates, tile_gates)
            _write_manifest(work, manifest)
    return load(out)


def next_version(version: str) -> str:
    """Raise the last of the three numbers."""
    first, second, last = version.split(".")
    return f"{first}.{second}.{int(last) + 1}"


def _single_precision(pack: Pack) -> Path:
    for engine in ("openvino", "onnxruntime"):
        path = pack.network(engine, "f32")
        if path is not None:
            return path
    raise PackError(
        f"Pack {pack.name} {pack.version} does not hold its network in single precision; without it nothing can be "
        "quantised, nor held against it."
    )


def _stem(path: Path) -> str:
    return path.stem.removesuffix("_int8")


def _copy(pack: Pack, folder: Path) -> None:
    """Copy the files of a pack but its manifest, its signature, and an INT8 network that is made anew."""
    old = {
        network.path
        for network in pack.manifest.networks
        if set(network.precisions) == {"int8"} and network.engine == "openvino"
    }
    old |= {str(Path(path).with_suffix(".bin")) for path in old if path.endswith(".xml")}
    for name in pack.manifest.files:
        if name not in old:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pack.path / name, folder / name)


def _manifest(pack: Pack, version: str, gates: Sequence[Gate], int8: str) -> dict[str, Any]:
    content = pack.manifest.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    passed = {gate.precision for gate in gates if gate.verdict == "passed"}
    judged = {gate.precision for gate in gates if gate.verdict != "not judged"}
    networks: list[dict[str, Any]] = []
    for network in content["networks"]:
        precisions = list(network["precisions"])
        if network["engine"] == "openvino":
            precisions = [item for item in precisions if item != "int8" and (item not in judged or item in passed)]
            if "f32" in precisions and "bf16" in passed and "bf16" not in precisions:
                precisions.insert(0, "bf16")
        if precisions:
            networks.append({**network, "precisions": precisions})
    if "int8" in passed:
        networks.insert(0, {"engine": "openvino", "precisions": ["int8"], "path": int8})
    content |= {
        "version": version,
        "networks": networks,
        "gates": [gate.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for gate in gates],
        # What was measured of the INT8 network before holds for that one, not for the new one.
        "accuracy": [item for item in content.get("accuracy", []) if item["precision"] != "int8"],
        "speed": [item for item in content.get("speed", []) if (item["engine"], item["precision"]) != _INT8],
    }
    return content


_INT8 = ("openvino", "int8")


def _add_tile_gates(content: dict[str, Any], gates: Sequence[TileGate]) -> None:
    """Let the pack offer the shapes that passed, and those that its maker gave and nobody judged now."""
    if not gates:
        return
    judged = {gate.patch for gate in gates}
    before = [tuple(patch) for patch in content["input"].get("patches", ())]
    passed = [gate.patch for gate in gates if gate.verdict == "passed"]
    content["input"]["patches"] = [list(patch) for patch in [*(p for p in before if p not in judged), *passed]]
    kept = [item for item in content.get("tile_gates", ()) if tuple(item["patch"]) not in judged]
    content["tile_gates"] = [
        *kept,
        *(gate.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for gate in gates),
    ]


def _add_vectors(folder: Path, manifest: dict[str, Any], engines: dict[str, Engine]) -> None:
    """Store what each precision that the pack offers gives on the test vectors; what is stored already stays."""
    offered = {precision for network in manifest["networks"] for precision in network["precisions"]}
    for vector in manifest["test_vectors"]:
        path = folder / vector["path"]
        with np.load(path, allow_pickle=False) as item:
            arrays: dict[str, NDArray[Any]] = {"hu": item["hu"]}
            arrays |= {
                key: item[key] for key in item.files if key.removeprefix("labels_") in offered and key != "labels_int8"
            }
        for precision in sorted(offered):
            if f"labels_{precision}" not in arrays and precision in engines:
                arrays[f"labels_{precision}"] = labels_of(engines[precision].run(arrays["hu"]))
        np.savez_compressed(path, allow_pickle=False, **arrays)


def _write_card(path: Path, pack: Pack, version: str, gates: Sequence[Gate], tile_gates: Sequence[TileGate]) -> None:
    card = path.read_text(encoding="utf-8") if path.is_file() else f"# {pack.name} {version}\n"
    card = card.replace(f"# {pack.name} {pack.version}\n", f"# {pack.name} {version}\n", 1)
    path.write_text(with_gates(card, gates, tile_gates), encoding="utf-8")


def _write_manifest(folder: Path, content: dict[str, Any]) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    content["files"] = {name: sha256_of(folder / name) for name in names if name not in {MANIFEST, SIGNATURE}}
    try:
        Manifest.model_validate(content)
    except ValueError as error:
        raise PackError(f"The quantised network makes no valid pack: {error}") from error
    (folder / MANIFEST).write_text(to_toml(content), encoding="utf-8")
