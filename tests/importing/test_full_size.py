"""A network with the plan of TotalSegmentator's 3 mm model: exact in float, and then through the gate of quantising.

nnU-Net trains it here for a few minutes; its 32 classes are made up. ``make test-all`` runs this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.inference.engines import open_engine
from appliance.packs.importing.write import phantom_tile
from appliance.packs.pack import load
from tests.importing.proving import (
    DATA,
    NEEDED,
    SCAN,
    agreement,
    along_axes,
    as_volume,
    asked,
    imported,
    labels_of,
    report,
    train_fast,
)
from tests.importing.stand_ins import stand_ins

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not SCAN.is_file(), reason="the real scans are not on this machine"),
    pytest.mark.skipif(
        "APPLIANCE_TEST_ALL" not in os.environ, reason="the full-sized network takes many minutes; `make test-all`"
    ),
]
for needed in ("torch", "nnunetv2", "dynamic_network_architectures"):
    pytest.importorskip(needed, reason=f"{needed} is not installed, so nnU-Net cannot be compared with")

#: Least distance of the two largest logits of a voxel that is called decided; for information only.
DECIDED = 0.1


@pytest.fixture(scope="module")
def trained() -> Path:
    return train_fast()


@pytest.fixture(scope="module")
def pack(trained, tmp_path_factory):
    """With weights as they were trained, in single precision."""
    return imported(trained, tmp_path_factory.mktemp("packs") / "single", half=False, structures=stand_ins(trained))


@pytest.fixture(scope="module")
def halved(trained, tmp_path_factory):
    """As ``appliance packs import`` writes it by default: weights stored in half precision."""
    return imported(trained, tmp_path_factory.mktemp("packs") / "half", structures=stand_ins(trained))


@pytest.fixture(scope="module")
def theirs(trained, tmp_path_factory) -> dict:
    """What nnU-Net's predictor answers, its sums of tiles in single precision as ours."""
    return asked(trained, SCAN, tmp_path_factory.mktemp("float"), single=True)


@pytest.fixture(scope="module")
def ours(pack) -> np.ndarray:
    return along_axes(pack, labels_of(pack, as_volume(SCAN))[0])


def test_the_plan_is_that_of_the_3_mm_model(pack):
    wanted = pack.manifest.input
    assert (wanted.patch, wanted.spacing_mm) == ((112, 112, 128), (3.0, 3.0, 3.0))
    assert len(pack.structures) == 32


def test_every_voxel_agrees_with_nnunets_predictor(ours, theirs):
    expected = theirs["network"]
    assert ours.shape == expected.shape
    # Thirty steps teach it the commonest of its 32 classes; all 33 channels compete in every voxel all the same.
    assert len(np.unique(expected)) > 3, "the network learnt too little to prove anything"
    everywhere = float((ours == expected).mean())
    decided = theirs["margin"] >= DECIDED
    report(
        "fast",
        weights="single",
        all_voxels=everywhere,
        foreground=agreement(ours, expected),
        decided_voxels=float(decided.mean()),
        decided_agree=float((ours == expected)[decided].mean()),
        median_margin=float(np.median(theirs["margin"])),
        classes=len(np.unique(expected)),
    )
    assert everywhere >= NEEDED
    assert agreement(ours, expected) >= NEEDED


def test_what_halved_weights_cost_is_measured(halved, theirs):
    found, expected = along_axes(halved, labels_of(halved, as_volume(SCAN))[0]), theirs["network"]
    report("fast", weights="half", all_voxels=float((found == expected).mean()), foreground=agreement(found, expected))
    assert (found == expected).mean() > 0.99


def test_the_logits_of_a_tile_are_those_of_pytorch(trained, pack):
    """Where a difference comes from: the engine computes as PyTorch does, with the very same weights."""
    import torch

    from appliance.packs.importing.graph import in_hounsfield
    from appliance.packs.importing.nnunet import _read
    from appliance.packs.importing.plans import read_json

    plans_file, dataset = read_json(trained / "plans.json"), read_json(trained / "dataset.json")
    plans, networks, _, _ = _read(trained, ["all"], "checkpoint_final.pth", plans_file, dataset)
    whole = in_hounsfield(networks, plans.clip_hu, plans.mean_hu, plans.deviation_hu)
    tile = phantom_tile(plans.patch, pack.manifest.input)
    torch.set_num_threads(2)
    with torch.inference_mode():
        expected = whole(torch.from_numpy(tile.astype(np.float32))[None, None])[0].numpy()
    found = open_engine(pack, engine="openvino", precision="f32", threads=2).run(tile)
    difference, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    same = float((found.argmax(axis=0) == expected.argmax(axis=0)).mean())
    report("fast", largest_logit=largest, largest_difference=difference, tile_agrees=same)
    # Fifty million answers of two engines that add in another order.
    assert difference < 1e-3 * largest
    assert same >= NEEDED


def test_quantised_through_its_gate(pack, tmp_path):
    """INT8 and bf16 are held against single precision on a scan; what passes and gains is kept, and says so."""
    pytest.importorskip("nncf", reason="the extra `import` is not installed, so nothing can be quantised")
    (tmp_path / "box.toml").write_text(f'[box]\nstate_directory = "{tmp_path / "state"}"\n')
    volumes, out = DATA / "volumes-2mm", tmp_path / "quick"
    done = CliRunner().invoke(
        main,
        [
            *("packs", "quantize", str(pack.path), "--out", str(out), "--threads", "2"),
            *("--calibrate", str(volumes / "lidc_0009_plain.nii.gz"), "--gate", str(SCAN)),
            *("--config", str(tmp_path / "box.toml")),
        ],
    )
    assert done.exit_code == 0, done.output
    made = load(out)
    gates = {gate.precision: gate for gate in made.manifest.gates}
    report("fast", gates={name: gate.model_dump(mode="json") for name, gate in gates.items()})
    # InstanceNorm and LeakyReLU stay outside INT8's convolutions: on a machine with bf16 that is the quicker one.
    for name, gate in gates.items():
        assert (name in made.automatic("openvino")) == (gate.verdict == "passed")
        fell = [item for item in gate.structures if item.verdict == "fell"]
        assert (gate.verdict == "passed") <= (not fell)
    assert all(item.scans == 1 for gate in gates.values() for item in gate.structures if item.verdict == "passed")
