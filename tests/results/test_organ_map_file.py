"""The NIfTI organ map lies where the organ map lies in the patient, read back by an independent reader."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from appliance.results.organ_map_file import write_organ_map
from tests.screenings.chest import Chest, make


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("organ-map")
    _, organs = make(Chest())
    write_organ_map(folder, organs)
    return folder, organs


def test_each_voxel_keeps_its_label_and_its_place(written):
    folder, organs = written
    image = nibabel.load(folder / "organ_map.nii.gz")
    data = np.asarray(image.dataobj)
    random = np.random.default_rng(1)
    for index in random.integers(0, organs.labels.shape, size=(200, 3)):
        k, j, i = (int(value) for value in index)
        assert data[i, j, k] == organs.labels[k, j, i]
        lps = organs.affine @ [k, j, i, 1]
        ras = image.affine @ [i, j, k, 1]
        assert np.allclose(ras[:3], lps[:3] * [-1, -1, 1])


def test_the_left_lung_is_on_the_left(written):
    folder, organs = written
    image = nibabel.load(folder / "organ_map.nii.gz")
    left = np.argwhere(np.asarray(image.dataobj) == organs.values["lung_left"]).mean(axis=0)
    assert (image.affine @ [*left, 1])[0] < 0  # RAS: the patient's left is negative


def test_the_table_names_every_label_with_its_code(written):
    folder, organs = written
    table = json.loads((folder / "organ_map.json").read_text())
    assert {int(value): row["name"] for value, row in table.items()} == {v: n for n, v in organs.values.items()}
    assert table["2"]["code"] == "SCT:44029006"
    assert table["2"]["volume_ml"] == pytest.approx(organs.volume_ml("lung_left"), abs=0.1)
