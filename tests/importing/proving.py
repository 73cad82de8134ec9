"""What the proofs share: nnU-Net trains and answers in processes of its own, and what was trained is kept.

Kept outside the repository, in ``APPLIANCE_TEST_CACHE`` or the home directory's cache; a changed script trains anew.
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

from appliance.anatomy.mapper import network_labels
from appliance.inference.engines import open_engine
from appliance.packs.importing.nnunet import import_nnunet
from appliance.packs.importing.write import Declaration
from appliance.scan import Volume

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data"
SCAN = DATA / "volumes-2mm" / "lidc_0002_plain.nii.gz"
#: Least share of equal labels.
NEEDED = 0.999


def run(script: str, *arguments: object) -> None:
    """Run one of the scripts beside this file; nnU-Net reads the environment when it is imported."""
    command = [sys.executable, "-W", "ignore", str(HERE / script), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def cached(kind: str, *scripts: str) -> Path:
    """Where one kind is kept."""
    root = Path(os.environ.get("APPLIANCE_TEST_CACHE") or Path.home() / ".cache" / "appliance-tests")
    digest = hashlib.sha256(b"".join((HERE / script).read_bytes() for script in scripts)).hexdigest()[:12]
    return root / f"nnunet-{kind}-{digest}"


def train_once(kind: str, script: str = "train_nnunet.py", *arguments: object) -> Path:
    """The results folder of one kind; trained when there is none yet."""
    folder = cached(kind, *dict.fromkeys(("train_nnunet.py", script)))
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        run(script, *(argument if argument is not FOLDER else unfinished for argument in arguments))
        unfinished.rename(folder)
    (found,) = folder.glob("results/*/*/plans.json")
    return found.parent


FAST = "train_fast.py"
#: Stands for the folder to write among a script's arguments.
FOLDER = object()


def fast_is_trained() -> bool:
    """Whether the full-sized network is kept already."""
    return cached("fast", "train_nnunet.py", FAST).is_dir()


def train_fast() -> Path:
    """The results folder of the full-sized network."""
    return train_once("fast", FAST, FOLDER, DATA)


def as_volume(scan: Path) -> Volume:
    """A NIfTI file as the appliance sees it."""
    image = nibabel.load(scan)
    affine = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)[:, [2, 1, 0, 3]]
    return Volume(np.ascontiguousarray(np.asarray(image.dataobj).astype(np.int16).transpose(2, 1, 0)), affine)


def asked(trained: Path, scan: Path, folder: Path, **options: bool) -> dict:
    """What nnU-Net's own predictor answers."""
    out = folder / "labels.npz"
    run("compare_nnunet.py", trained, scan, out, json.dumps(options))
    with np.load(out) as found:
        return dict(found)


def imported(trained: Path, out: Path, **options):
    """The network as a pack."""
    said = Declaration("proof", "0.1.0", "CC BY 4.0", "open", "Proof of the import.")
    return import_nnunet(trained, out, said, **options)


def labels_of(pack, volume: Volume, engine: str = "openvino"):
    """Label with the pack; canonical axes."""
    return network_labels(volume, pack, open_engine(pack, engine=engine, precision="f32", threads=2))


def along_axes(pack, canonical: np.ndarray) -> np.ndarray:
    """Turn an array in canonical axes to those of the pack's network."""
    axes, flips = pack.manifest.input.axes
    return canonical.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def agreement(found: np.ndarray, expected: np.ndarray) -> float:
    """Share of equal labels where either says anything."""
    either = (found > 0) | (expected > 0)
    return float((found == expected)[either].mean())


def report(kind: str, **figures: object) -> None:
    """Keep the figures where asked for."""
    if folder := os.environ.get("APPLIANCE_TEST_FIGURES"):
        with (Path(folder) / "import.jsonl").open("a") as stream:
            stream.write(json.dumps({"kind": kind, **figures}) + "\n")
