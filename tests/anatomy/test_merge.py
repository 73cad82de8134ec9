import numpy as np
import pytest

from appliance.anatomy.merge import merge, on_grid
from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.errors import PackError


def organ_map(name, labels, values, spacing_mm=3.0, origin_mm=(0.0, 0.0, 0.0)):
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = origin_mm
    use = PackUse(name, "1.0.0", "sha256:x", "f32", "CPU", "openvino")
    return OrganMap(np.asarray(labels, np.uint8), affine, values, use)


@pytest.fixture
def trunk():
    labels = np.ones((6, 6, 6), np.uint8)
    labels[1:3] = 2
    return organ_map("trunk", labels, {"body": 1, "bone": 2})


@pytest.fixture
def chest():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[8:] = 1
    labels[:2] = 2
    return organ_map("chest", labels, {"airways": 1, "bone": 2}, spacing_mm=1.5, origin_mm=(-0.75, -0.75, -0.75))


def test_one_map_stays_as_it_is(trunk):
    assert merge([trunk], {"body": "trunk", "bone": "trunk"}) is trunk


def test_structures_of_both_are_there_on_the_grid_of_the_body(trunk, chest):
    merged = merge([chest, trunk], {"body": "trunk", "bone": "trunk", "airways": "chest"})
    assert merged.labels.shape == trunk.labels.shape
    assert set(merged.values) == {"body", "bone", "airways"}
    assert merged.mask("airways")[4:].all()
    assert merged.mask("bone")[1:3].all()
    assert merged.mask("body")[0].all()


def test_the_losers_voxels_become_body(trunk, chest):
    merged = merge([trunk, chest], {"body": "trunk", "bone": "chest", "airways": "chest"})
    assert merged.mask("body")[1:3].all()
    assert merged.mask("bone")[0].all()


def test_another_grid_is_brought_over_by_the_nearest_voxel(trunk, chest):
    assert np.array_equal(np.unique(on_grid(chest, trunk)[4:]), [1])


def test_outside_of_the_other_map_is_background(trunk, chest):
    away = organ_map("chest", chest.labels, chest.values, spacing_mm=1.5, origin_mm=(500.0, 0.0, 0.0))
    assert not on_grid(away, trunk).any()


def test_more_structures_than_labels_are_refused(trunk):
    many = {f"s{value}": value for value in range(1, 255)}
    other = organ_map("other", np.zeros((6, 6, 6)), many)
    providers = {"body": "trunk", "bone": "trunk"} | dict.fromkeys(many, "other")
    with pytest.raises(PackError, match="more structures than the 255 labels"):
        merge([trunk, other], providers)


@pytest.mark.parametrize(("order", "stays"), [(("trunk",), "bone"), (("chest",), "trachea"), ((), "trachea")])
def test_where_structures_overlap_the_preferred_packs_stays(trunk, order, stays):
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[1:3] = 1
    chest = organ_map("chest", labels, {"trachea": 1})
    merged = merge([chest, trunk], {"body": "trunk", "bone": "trunk", "trachea": "chest"}, order)
    assert merged.mask(stays)[1:3].all()
    assert merged.mask("body")[3:].all()
