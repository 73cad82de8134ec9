"""MONAI itself and the imported pack answer alike on the same real scan.

The networks are trained here, by MONAI, on a real scan, and kept in a cache outside the repository. They are compared
on the network's own grid, each side with its own resampling from the scan: MONAI with its transforms and inferers, the
pack with the appliance's. Labels are compared before MONAI would bring them back to the scan's grid; boxes as they come
out of its detector.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from appliance.anatomy.mapper import network_labels
from appliance.inference.corner_grid import resample_for
from appliance.inference.detection import detect, detect_on_grid
from appliance.inference.engines import open_engine
from appliance.packs.importing.monai_bundle import import_monai
from appliance.packs.importing.write import Declaration
from appliance.scan import Volume
from tests.importing.train_monai import SEGMENTING

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
VOLUMES = REPOSITORY.parent / "shared" / "data" / "volumes-2mm"
LEARNT, UNSEEN = VOLUMES / "lidc_0009_plain.nii.gz", VOLUMES / "lidc_0002_plain.nii.gz"
NEEDED = 0.999
NEAR_MM, NEAR_SCORE = 0.5, 0.01

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not UNSEEN.is_file(), reason="the real scans are not on this machine"),
]
for needed in ("torch", "monai"):
    pytest.importorskip(needed, reason=f"{needed} is not installed, so MONAI cannot be compared with")


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, "-W", "ignore", str(HERE / script), *map(str, arguments)]
    paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def trained(kind: str) -> Path:
    """The bundle of one kind, trained once; a changed training script trains anew."""
    root = Path(os.environ.get("APPLIANCE_TEST_CACHE") or Path.home() / ".cache" / "appliance-tests")
    digest = hashlib.sha256((HERE / "train_monai.py").read_bytes()).hexdigest()[:12]
    folder = root / f"monai-{kind}-{digest}"
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        run("train_monai.py", kind, unfinished, LEARNT)
        unfinished.rename(folder)
    return folder


def imported(kind: str, out: Path, **options):
    said = Declaration("proof", "0.1.0", "CC BY 3.0", "open", "Proof of the import.")
    names = {"class_0": "lung_nodule"} if kind == "retinanet" else {}
    return import_monai(trained(kind), out, said, structures=names, **options)


def asked(kind: str, folder: Path) -> dict:
    """What MONAI answers."""
    out = folder / "monai.npz"
    run("compare_monai.py", trained(kind), UNSEEN, out)
    with np.load(out) as found:
        return dict(found)


@pytest.fixture(scope="module")
def volume() -> Volume:
    image = nibabel.load(UNSEEN)
    affine = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)[:, [2, 1, 0, 3]]
    return Volume(np.ascontiguousarray(np.asarray(image.dataobj).astype(np.int16).transpose(2, 1, 0)), affine)


@pytest.fixture(scope="module", params=sorted(SEGMENTING))
def segmented(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, imported(request.param, folder / "pack"), asked(request.param, folder)


def along_axes(pack, canonical: np.ndarray) -> np.ndarray:
    axes, flips = pack.manifest.input.axes
    return canonical.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def report(kind: str, **figures: object) -> None:
    """Keep the figures where asked for."""
    if folder := os.environ.get("APPLIANCE_TEST_FIGURES"):
        with (Path(folder) / "import.jsonl").open("a") as stream:
            stream.write(json.dumps({"kind": kind, **figures}) + "\n")


def test_the_scan_is_resampled_as_monai_does(segmented, volume):
    kind, pack, theirs = segmented
    hu, grid = resample_for(volume, pack.manifest.input)
    known = pack.manifest.intensity
    low, _, bottom, top = SEGMENTING[kind]["range"]
    assert top > bottom
    expected = (theirs["image"] - bottom) * known.deviation_hu + low
    found = np.clip(along_axes(pack, hu), known.low_hu, known.high_hu)
    assert found.shape == expected.shape
    # Ours are whole Hounsfield units.
    assert np.abs(found - expected).max() < 0.51
    # MONAI's affine counts from its first voxel, in RAS.
    index = [0.0 if not flip else size - 1 for flip, size in zip(pack.manifest.input.backwards, hu.shape, strict=True)]
    first = grid.affine @ np.array([*index, 1.0])
    assert np.allclose(first[:3] * [-1, -1, 1], theirs["affine"][:3, 3], atol=1e-3)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_labels_agree_on_the_networks_grid(segmented, volume, engine):
    kind, pack, theirs = segmented
    opened = open_engine(pack, engine=engine, precision="f32", threads=2)
    found = along_axes(pack, network_labels(volume, pack, opened)[0])
    expected = theirs["labels"]
    assert found.shape == expected.shape
    assert len(np.unique(expected)) > 2, "the network learnt too little to prove anything"
    either = (found > 0) | (expected > 0)
    everywhere, foreground = float((found == expected).mean()), float((found == expected)[either].mean())
    report(
        kind,
        engine=engine,
        all_voxels=everywhere,
        foreground=foreground,
        voxels_by_class=np.bincount(expected.ravel(), minlength=5).tolist(),
    )
    assert everywhere >= NEEDED
    assert foreground >= NEEDED


@pytest.fixture(scope="module")
def boxes(tmp_path_factory) -> dict:
    """What MONAI's detector answers."""
    return asked("retinanet", tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module", params=[False, True])
def detector(request, tmp_path_factory):
    """The pack, its weights stored in single and in half precision."""
    return request.param, imported("retinanet", tmp_path_factory.mktemp("detector") / "pack", half=request.param)


def test_boxes_agree_with_monais_detector(volume, detector, boxes):
    (half, pack), theirs = detector, boxes
    engine = open_engine(pack, engine="openvino", precision="f32", threads=2)
    found, _ = detect_on_grid(volume, pack, engine)
    assert len(found.scores) == len(theirs["scores"]) > 0
    spacing = np.array(pack.manifest.input.spacing_mm * 2)
    apart = np.abs((found.corners[None] - theirs["boxes"][:, None]) * spacing).max(axis=2)
    partner = apart.argmin(axis=1)
    sides, scores = apart.min(axis=1), np.abs(found.scores[partner] - theirs["scores"])
    report(
        "retinanet",
        half=half,
        boxes=len(sides),
        largest_side_mm=float(sides.max()),
        largest_score=float(scores.max()),
        monai_with=str(theirs["helper"]),
    )
    assert len(set(partner.tolist())) == len(partner), "two of MONAI's boxes have one partner"
    assert sides.max() <= NEAR_MM
    assert scores.max() <= NEAR_SCORE


def test_boxes_come_to_the_place_where_monais_affine_puts_them(volume, detector, boxes):
    (_, pack), theirs = detector, boxes
    engine = open_engine(pack, engine="openvino", precision="f32", threads=2)
    ours = np.array([np.ravel(item.box_mm) for item in detect(volume, pack, engine)])
    corners = [
        np.c_[theirs["boxes"][:, part], np.ones(len(theirs["boxes"]))] @ theirs["affine"].T
        for part in (slice(0, 3), slice(3, 6))
    ]
    lps = [corner[:, :3] * [-1, -1, 1] for corner in corners]
    expected = np.c_[np.minimum(*lps), np.maximum(*lps)]
    assert np.abs(ours[None] - expected[:, None]).max(axis=2).min(axis=1).max() <= NEAR_MM
