"""nnU-Net's own predictor and the imported pack label the same real scan alike.

The networks are trained here, by nnU-Net itself, on real scans; they are kept in a cache outside the repository.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pytest

from appliance.scan import Volume
from tests.importing.proving import (
    DATA,
    FOLDER,
    NEEDED,
    SCAN,
    agreement,
    along_axes,
    as_volume,
    asked,
    imported,
    labels_of,
    report,
    train_once,
)
from tests.importing.train_nnunet import KINDS, reoriented

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not SCAN.is_file(), reason="the real scans are not on this machine"),
]
for needed in ("torch", "nnunetv2", "dynamic_network_architectures"):
    pytest.importorskip(needed, reason=f"{needed} is not installed, so nnU-Net cannot be compared with")


@pytest.fixture(scope="session", params=["plain", "residual"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def trained(kind) -> Path:
    """The results folder of one kind, trained once."""
    return train_once(kind, "train_nnunet.py", kind, FOLDER, DATA)


@pytest.fixture(scope="session")
def scan(kind, tmp_path_factory) -> Path:
    """A scan that no training step saw, stored along the axes that the network knows."""
    path = tmp_path_factory.mktemp("scan") / "lidc_0002.nii.gz"
    nibabel.save(reoriented(SCAN, KINDS[kind]["axes"]), path)
    return path


@pytest.fixture(scope="session")
def volume(scan) -> Volume:
    """The same file as the appliance sees it."""
    return as_volume(scan)


@pytest.fixture(scope="session")
def theirs(trained, scan, tmp_path_factory) -> dict:
    """What nnU-Net's predictor answers, as it is; it sums tiles in half precision."""
    return asked(trained, scan, tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="session")
def theirs_in_float(trained, scan, tmp_path_factory) -> dict:
    """What it answers when it sums tiles in single precision, as we do."""
    return asked(trained, scan, tmp_path_factory.mktemp("float"), single=True)


def on_the_scan(labels: np.ndarray, grid, volume: Volume) -> np.ndarray:
    """Labels of the nearest voxel of the network's grid, at the scan's voxels."""
    index = []
    for axis in range(3):
        grid_axis = grid.axes.index(axis)
        place = (np.arange(volume.shape[axis]) - grid.first_index[axis]) / grid.step[axis]
        index.append(np.clip(np.rint(place).astype(int), 0, grid.shape[grid_axis] - 1))
    return grid.to_volume_axes(labels)[np.ix_(*index)]


@pytest.fixture(scope="session")
def pack(trained, tmp_path_factory):
    return imported(trained, tmp_path_factory.mktemp("packs") / "exact")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_labels_agree_on_the_networks_grid(kind, pack, volume, theirs, theirs_in_float, engine):
    canonical, grid = labels_of(pack, volume, engine)
    found, expected = along_axes(pack, canonical), theirs["network"]
    assert found.shape == expected.shape
    assert len(np.unique(expected)) > 2, "the network learnt too little to prove anything"
    everywhere, as_it_is = float((found == expected).mean()), agreement(found, expected)
    in_float = agreement(found, theirs_in_float["network"])
    report(
        kind,
        engine=engine,
        all_voxels=everywhere,
        foreground=as_it_is,
        foreground_sums_in_float=in_float,
        nnunet_half_against_its_own_float=agreement(expected, theirs_in_float["network"]),
        scan_grid_nearest=agreement(on_the_scan(canonical, grid, volume), theirs["native"]),
        voxels_by_class=np.bincount(expected.ravel(), minlength=5).tolist(),
    )
    assert everywhere >= NEEDED
    # Background makes agreement easy; without it, only nnU-Net's own rounding of its sums is left out.
    assert in_float >= NEEDED


def test_resampling_is_nnunets_own(pack, volume, theirs):
    from appliance.inference.resample import to_canonical

    wanted = pack.manifest.input
    spacing = tuple(wanted.spacing_mm[axis] for axis in np.argsort(wanted.axes[0]))
    hu, _ = to_canonical(volume, spacing, method="nnunet", clip_hu=wanted.clip_hu)
    ours = along_axes(pack, hu)
    known = pack.manifest.intensity
    expected = theirs["data"] * known.deviation_hu + known.mean_hu
    # Ours are whole Hounsfield units.
    assert np.abs(ours - expected).max() < 1.0


def test_other_axes_are_noticed(kind, trained, pack, volume, theirs, tmp_path):
    turned = {"LPS": "RAS", "RAS": "LPS"}[KINDS[kind]["axes"]]
    canonical, _ = labels_of(imported(trained, tmp_path / "turned", orientation=turned), volume)
    share = agreement(along_axes(pack, canonical), theirs["network"])
    report(kind, wrong_axes=share)
    assert share < NEEDED


def test_a_scan_stored_along_other_axes_gets_the_same_labels(pack, volume):
    expected, _ = labels_of(pack, volume)
    turned = volume.affine @ np.array(
        [[1, 0, 0, 0], [0, 0, -1, volume.shape[1] - 1], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float
    )
    hu = np.ascontiguousarray(volume.hu[:, ::-1].transpose(0, 2, 1))
    found, _ = labels_of(pack, Volume(hu, turned))
    assert found.shape == expected.shape
    assert agreement(found, expected) >= NEEDED


def test_the_appliances_own_resampling_is_measured(kind, trained, volume, theirs, tmp_path):
    pack = imported(trained, tmp_path / "area", resampling="area", skip_air=True)
    canonical, grid = labels_of(pack, volume)
    share = agreement(on_the_scan(canonical, grid, volume), theirs["native"])
    report(kind, own_resampling_on_scan_grid=share)
    assert share > 0.8


def test_mirroring_agrees_too(kind, trained, scan, volume, tmp_path):
    if KINDS[kind]["mirroring"] is None:
        pytest.skip("this network was trained without mirroring")
    expected = asked(trained, scan, tmp_path, mirror=True, single=True)
    pack = imported(trained, tmp_path / "mirrored", mirror=True)
    canonical, _ = labels_of(pack, volume)
    share = agreement(along_axes(pack, canonical), expected["network"])
    report(kind, mirrored=share)
    assert share >= NEEDED
