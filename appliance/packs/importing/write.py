"""Writing a pack's folder: test vectors, model card and manifest, checked by loading the result."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.anatomy.structures import STRUCTURES
from appliance.errors import PackError
from appliance.inference.logits import labels_of, single
from appliance.packs.detection_part import DetectionOutput
from appliance.packs.detection_selftest import expected_anchors
from appliance.packs.manifest import MANIFEST, Manifest
from appliance.packs.pack import load, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.packs.manifest import NetworkInput
    from appliance.packs.pack import Pack

VECTOR = "test_vector.npz"
CARD = "MODEL_CARD.md"
#: What engines of other makers and processors may differ in; the proof of the import itself is stricter.
_MINIMUM_AGREEMENT = 0.98


@dataclass(frozen=True, slots=True)
class Declaration:
    """What only the person who imports a network can say of it.

    Attributes
    ----------
    name, version
        Of the pack.
    licence, licence_class
        Of the weights; the class is ``"open"``, ``"non-commercial"`` or ``"restricted"``.
    intended_use, exclusions
        What it may be used for, and what not.
    trained_on, tested_on, labels
        Scans and the origin of the labels, as far as they are known.
    """

    name: str
    version: str
    licence: str
    licence_class: str
    intended_use: str
    exclusions: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    tested_on: tuple[str, ...] = ()
    labels: str = "not stated by whoever trained the network"

    def __post_init__(self) -> None:
        for key, option in (("licence", "--licence"), ("intended_use", "--intended-use")):
            if not getattr(self, key).strip():
                raise PackError(
                    f"A pack says under which licence and for what it may be used; give {option}. Nothing in a "
                    "checkpoint says so, and it is not guessed."
                )


@dataclass(frozen=True, slots=True)
class Draft:
    """Everything that the manifest and the card need beside the files already in the folder.

    Attributes
    ----------
    declaration
        The caller's part.
    input
        Geometry.
    intensity
        What the graph does with Hounsfield units, as in the manifest.
    structures
        Structure to channels.
    networks
        Entries of ``[[networks]]``: engine, precisions, path.
    origin
        One line for the manifest: what was imported.
    facts
        Lines for the card.
    detection
        What a detection pack says of its boxes, as in the manifest; it has no structures then.
    """

    declaration: Declaration
    input: NetworkInput
    intensity: dict[str, Any]
    structures: Mapping[str, tuple[int, ...]]
    networks: Sequence[dict[str, Any]]
    origin: str
    facts: Sequence[str] = field(default=())
    detection: Mapping[str, Any] | None = None


def write_pack(folder: Path, draft: Draft) -> Pack:
    """Write test vector, card and manifest into a folder that holds the networks, and load the pack.

    Raises
    ------
    PackError
        The declaration or the draft make no valid pack, or a network cannot run.
    """
    _write_vector(folder, draft)
    (folder / CARD).write_text(_card(draft), encoding="utf-8")
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    said = draft.declaration
    content = {
        "format": 1,
        "name": said.name,
        "version": said.version,
        "licence": said.licence,
        "licence_class": said.licence_class,
        "intended_use": said.intended_use,
        "exclusions": said.exclusions,
        "provenance": {
            "recipe": draft.origin,
            "trained_on": said.trained_on,
            "tested_on": said.tested_on,
            "labels": said.labels,
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
        },
        **({} if draft.detection is None else {"task": "detection", "detection": dict(draft.detection)}),
        "input": draft.input.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "intensity": draft.intensity,
        "structures": [
            {"name": name, "code": STRUCTURES[name].code, "value": value, "channels": channels}
            for value, (name, channels) in enumerate(draft.structures.items(), start=1)
        ],
        "networks": list(draft.networks),
        "test_vectors": [{"path": VECTOR, "minimum_agreement": _MINIMUM_AGREEMENT}],
        "files": files,
    }
    try:
        Manifest.model_validate(content)
    except ValueError as error:
        raise PackError(f"What was said makes no valid pack: {error}") from error
    (folder / MANIFEST).write_text(to_toml(content), encoding="utf-8")
    return load(folder)


def to_toml(content: Mapping[str, Any]) -> str:
    """Write a manifest as TOML: plain keys, then tables, then lists of tables."""
    return "\n".join(_table(content, "")).strip() + "\n"


def _table(content: Mapping[str, Any], prefix: str) -> list[str]:
    lines, later = [], []
    for key, value in content.items():
        name = key if key.replace("_", "").isalnum() else json.dumps(key)
        if isinstance(value, dict):
            later += ["", f"[{prefix}{name}]", *_table(value, f"{prefix}{name}.")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                later += ["", f"[[{prefix}{name}]]", *_table(entry, f"{prefix}{name}.")]
        else:
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return lines + later


def phantom_tile(patch: tuple[int, int, int], wanted: NetworkInput) -> NDArray[np.int16]:
    """Cut a tile out of the built-in phantom, in a network's axes; never a patient's scan."""
    from scipy import ndimage

    from appliance.phantom import PhantomOptions, label_map

    axes, flips = wanted.axes
    hu = label_map(PhantomOptions(noise_hu=0.0), 3.0)[0]
    turned = hu.transpose(axes)[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    tile = np.full(patch, -1024, np.int16)
    inside, outside = [], []
    for have, want in zip(turned.shape, patch, strict=True):
        size = min(have, want)
        inside.append(slice((want - size) // 2, (want - size) // 2 + size))
        outside.append(slice((have - size) // 2, (have - size) // 2 + size))
    # Smooth and coarse in HU, so that the file is small; a network does not mind.
    cut = ndimage.gaussian_filter(turned[tuple(outside)].astype(np.float32), 0.7)
    tile[tuple(inside)] = (np.rint(cut / 10) * 10).astype(np.int16)
    return tile


def _write_vector(folder: Path, draft: Draft) -> None:
    from appliance.inference.engines import OnnxRuntimeEngine, OpenVinoEngine

    tile = phantom_tile(draft.input.patch, draft.input)
    arrays: dict[str, NDArray[Any]] = {"hu": tile}
    part = None if draft.detection is None else DetectionOutput.model_validate(draft.detection)
    channels = 1 + max((channel for claimed in draft.structures.values() for channel in claimed), default=0)
    for network in draft.networks:
        for precision in network["precisions"]:
            path = folder / network["path"]
            if f"labels_{precision}" in arrays or f"anchors_{precision}" in arrays:
                continue
            try:
                engine = (
                    OpenVinoEngine(path, draft.input.patch, precision, 0, None)
                    if network["engine"] == "openvino"
                    else OnnxRuntimeEngine(path, draft.input.patch, 0)
                )
                logits = single(engine.run(tile))
            except RuntimeError as error:
                said = " ".join(str(error).split())[:300]
                raise PackError(f"{path.name}: the network cannot run: {said}") from error
            if not np.isfinite(logits).all():
                raise PackError(f"{path.name}: the network answers with NaN or infinity on a test patient.")
            if part is not None:
                arrays |= expected_anchors(logits, draft.input, part, precision)
                continue
            if logits.ndim != len("czyx") or logits.shape[0] < channels or logits.shape[1:] != tile.shape:
                raise PackError(
                    f"{path.name}: the network answers with shape {logits.shape}; at least {channels} channels of "
                    f"{tile.shape} are needed."
                )
            arrays[f"labels_{precision}"] = labels_of(logits)
    np.savez_compressed(folder / VECTOR, allow_pickle=False, **arrays)


def _card(draft: Draft) -> str:
    said = draft.declaration
    unknown = "not stated"
    lines = [
        f"# {said.name} {said.version}",
        "",
        f"Imported: {draft.origin}.",
        "",
        "## What is known",
        "",
        f"- Licence: {said.licence} ({said.licence_class}), as stated by whoever imported it",
        f"- Intended use: {said.intended_use}",
        *(f"- Not for: {text}" for text in said.exclusions),
        f"- Labels: {said.labels}",
        f"- Trained on: {'; '.join(said.trained_on) or unknown}",
        f"- Tested on: {'; '.join(said.tested_on) or unknown}",
        *(f"- {fact}" for fact in draft.facts),
        "",
        "## What is not known",
        "",
        "- How accurate it is on this site's scans: nothing was measured when it was imported.",
        "- More than that a machine computes what the importing machine computed: the test vector is a phantom's.",
        "- Whether it holds for non-contrast CT, for this scanner and for these patients: see where it was trained.",
        "",
        *(_structures(draft) if draft.detection is None else _findings(draft.detection)),
    ]
    return "\n".join(lines) + "\n"


def _structures(draft: Draft) -> list[str]:
    return [
        "## Structures",
        "",
        "| value | structure | SNOMED CT | channels of the network |",
        "|---|---|---|---|",
        *(
            f"| {value} | {name} | {STRUCTURES[name].code} | {', '.join(map(str, channels))} |"
            for value, (name, channels) in enumerate(draft.structures.items(), start=1)
        ),
    ]


def _findings(detection: Mapping[str, Any]) -> list[str]:
    return [
        "## Findings",
        "",
        "| class | finding | SNOMED CT |",
        "|---|---|---|",
        *(f"| {index} | {item['name']} | {item['code']} |" for index, item in enumerate(detection["classes"])),
    ]
