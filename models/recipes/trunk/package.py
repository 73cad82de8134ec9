"""Write a pack's test vectors, its manifest with every digest, and its model card.

python package.py --pack ../../trunk --run RUN [--evaluation evaluation.json] [--speed speed.json]
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from card import write_card
from classes import NAMES, VALUE
from export import PATCH
from scipy import ndimage

from appliance.anatomy.structures import STRUCTURES
from appliance.inference.engines import OnnxRuntimeEngine, OpenVinoEngine
from appliance.inference.logits import labels_of
from appliance.packs.importing.write import to_toml
from appliance.packs.manifest import MANIFEST
from appliance.packs.pack import load, sha256_of
from appliance.packs.quantising.card import with_gates
from appliance.phantom import PhantomOptions, label_map

if TYPE_CHECKING:
    from appliance.packs.gates import Gate

VERSION = "0.2.0"
INTENDED_USE = (
    "Working masks of lungs, airways, bone, vertebral bodies, heart, great vessels, liver, spleen and kidneys on plain "
    "CT of the adult trunk, for screenings that check their plausibility before they measure. Not a diagnostic device."
)
EXCLUSIONS = (
    "children",
    "contrast-enhanced CT (it was not tested on any)",
    "the pelvis below the iliac crests, beyond bone",
    "head, neck and limbs alone",
    "slices thicker than 8 mm",
    "surgical planning, radiotherapy, or any use in which a label is not checked",
)
TRAINED_ON = (
    "LIDC-IDRI 0001, 0003, 0004, 0005, 0006, 0008, 0010 (CC BY 3.0)",
    "Lung-PET-CT-Dx A0001 (CC BY 4.0)",
    "ACRIN-FLT-Breast 001 (two pieces), 013 (CC BY 3.0)",
    "Lung-Fused-CT-Pathology 0001 (CC BY 3.0)",
    "TotalSegmentator example scan (Apache-2.0)",
    "SPL abdominal atlas (3D Slicer licence)",
    "the appliance's own phantom, random patients",
)
LABELS = "rules over Hounsfield units and outlines drawn by eye, every overlay looked at; experts' labels of one atlas"
TESTED_ON = ("LIDC-IDRI 0002", "LIDC-IDRI 0009", "Lung-PET-CT-Dx A0002")


def write_vector(pack: Path, precisions: dict[str, str]) -> None:
    """Store a phantom's tile with the labels that each precision gives now."""
    hu, _, _, _ = label_map(PhantomOptions(noise_hu=0.0), 3.0)
    centre = [max(0, (size - tile) // 2) for size, tile in zip(hu.shape, PATCH, strict=True)]
    centre[0] = max(0, hu.shape[0] - PATCH[0] - 10)
    tile = np.full(PATCH, -1024, np.int16)
    cut = hu[tuple(slice(start, start + size) for start, size in zip(centre, PATCH, strict=True))]
    offset = [(size - have) // 2 for size, have in zip(PATCH, cut.shape, strict=True)]
    # Smooth and coarse in HU, so that the file is small; the network does not mind.
    cut = (np.rint(ndimage.gaussian_filter(cut.astype(np.float32), 0.7) / 10) * 10).astype(np.int16)
    tile[tuple(slice(start, start + size) for start, size in zip(offset, cut.shape, strict=True))] = cut
    arrays = {"hu": tile}
    for precision, name in precisions.items():
        engine = OpenVinoEngine(pack / name, PATCH, precision, 2, None)
        arrays[f"labels_{precision}"] = labels_of(engine.run(tile))
    onnx = labels_of(OnnxRuntimeEngine(pack / "trunk.onnx", PATCH, 2).run(tile))
    print("OpenVINO and ONNX Runtime agree on", float((onnx == arrays["labels_f32"]).mean()))
    np.savez_compressed(pack / "test_vector.npz", **arrays)


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def write_manifest(
    pack: Path, precisions: dict[str, str], evaluation: dict | None, speed: list[dict], gates: tuple[Gate, ...]
) -> None:
    """Write pack.toml; every other file of the folder gets its digest."""
    lines = [
        "format = 1",
        'name = "trunk"',
        f"version = {_quoted(VERSION)}",
        'licence = "Apache-2.0"',
        'licence_class = "open"',
        f"intended_use = {_quoted(INTENDED_USE)}",
        "exclusions = [",
        *(f"  {_quoted(text)}," for text in EXCLUSIONS),
        "]",
        "",
        "[provenance]",
        'recipe = "models/recipes/trunk"',
        f"labels = {_quoted(LABELS)}",
        f"date = {_quoted(dt.datetime.now(dt.UTC).date().isoformat())}",
        "trained_on = [",
        *(f"  {_quoted(text)}," for text in TRAINED_ON),
        "]",
        "tested_on = [",
        *(f"  {_quoted(text)}," for text in TESTED_ON),
        "]",
        "",
        "[input]",
        'orientation = "head-back-left"',
        "spacing_mm = [3.0, 3.0, 3.0]",
        f"patch = {list(PATCH)}",
        "overlap = 0.25",
        "fill_hu = -1024",
        "",
    ]
    for name in NAMES:
        lines += [
            "[[structures]]",
            f"name = {_quoted(name)}",
            f"code = {_quoted(STRUCTURES[name].code)}",
            f"value = {VALUE[name]}",
        ]
        lines += [""]
    if "int8" in precisions:
        lines += ["[[networks]]", 'engine = "openvino"', 'precisions = ["int8"]', 'path = "trunk_int8.xml"', ""]
    exact = _quoted([item for item in ("bf16", "f32") if item in precisions])
    lines += ["[[networks]]", 'engine = "openvino"', f"precisions = {exact}", 'path = "trunk.onnx"', ""]
    lines += ["[[networks]]", 'engine = "onnxruntime"', 'precisions = ["f32"]', 'path = "trunk.onnx"', ""]
    lines += ["[[test_vectors]]", 'path = "test_vector.npz"', "minimum_agreement = 0.98", ""]
    if evaluation:
        for precision, means in evaluation["mean"].items():
            # One entry for each number of scans, so that no figure stands beside a denominator that is not its own.
            for scans in sorted({item["scans"] for item in means.values()}, reverse=True):
                lines += ["[[accuracy]]", f"precision = {_quoted(precision)}", f"scans = {scans}", "[accuracy.dice]"]
                lines += [f"{name} = {item['dice']}" for name, item in means.items() if item["scans"] == scans]
                lines += [""]
    for entry in speed:
        lines += ["[[speed]]", *(f"{key} = {_quoted(value)}" for key, value in entry.items()), ""]
    wanted = {"trunk.onnx", "test_vector.npz", "MODEL_CARD.md"}
    wanted |= {"trunk_int8.xml", "trunk_int8.bin"} if "int8" in precisions else set()
    lines += ["[files]", *(f"{_quoted(name)} = {_quoted(sha256_of(pack / name))}" for name in sorted(wanted))]
    judged = {"gates": [gate.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for gate in gates]}
    lines += ["", to_toml(judged)] if gates else [""]
    (pack / MANIFEST).write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    """Package one export."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--run", type=Path, action="append", required=True, help="trainings, in their order")
    parser.add_argument("--evaluation", type=Path)
    parser.add_argument("--speed", type=Path)
    options = parser.parse_args()
    evaluation = json.loads(options.evaluation.read_text()) if options.evaluation else None
    speed = json.loads(options.speed.read_text()) if options.speed else []
    # After quantise.py, the manifest knows which precisions passed their gates; after export.py there is none.
    before = load(options.pack, verify=False).manifest if (options.pack / MANIFEST).exists() else None
    gates = before.gates if before else ()
    precisions = {"f32": "trunk.onnx", "bf16": "trunk.onnx", "int8": "trunk_int8.xml"}
    offered = [item for network in before.networks for item in network.precisions] if before else ["f32", "bf16"]
    precisions = {name: path for name, path in precisions.items() if name in offered}
    write_vector(options.pack, precisions)
    write_card(
        options.pack / "MODEL_CARD.md", f"trunk {VERSION}", options.run, evaluation, speed, TRAINED_ON, EXCLUSIONS
    )
    card = options.pack / "MODEL_CARD.md"
    card.write_text(with_gates(card.read_text(), gates) if gates else card.read_text())
    write_manifest(options.pack, precisions, evaluation, speed, gates)
    print(load(options.pack).digest)


if __name__ == "__main__":
    main()
