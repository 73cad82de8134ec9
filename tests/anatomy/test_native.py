import numpy as np
import pytest

from appliance.anatomy.native import native_mask
from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.inference.resample import canonical_grid
from appliance.scan import Volume

USE = PackUse("trunk", "0.1.0", "sha256:0", "int8", "CPU", "openvino")


def sphere(matrix, shape, centre_mm, radius_mm):
    """A volume and a map of it that holds a ball."""
    volume = Volume(np.zeros(shape, np.int16), matrix)
    grid = canonical_grid(shape, matrix, (3.0, 3.0, 3.0))
    places = np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    labels = (np.linalg.norm(places - centre_mm, axis=-1) < radius_mm).astype(np.uint8)
    return volume, OrganMap(labels, grid.affine, {"body": 1}, USE)


ORIENTATIONS = [
    np.array([[0, 0, 0.8, -40], [0, 0.8, 0, -40], [1.25, 0, 0, -60], [0, 0, 0, 1]]),
    np.array([[0, 0, -0.8, 40], [0, -0.8, 0, 40], [-1.25, 0, 0, 60], [0, 0, 0, 1]]),
    np.array([[0, 0.8, 0, -40], [1.25, 0, 0, -60], [0, 0, 0.8, -40], [0, 0, 0, 1]]),
]


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_a_ball_comes_back_where_it_was(matrix):
    volume, organs = sphere(matrix, (96, 100, 100), (0, 0, 0), 25)
    box, mask = native_mask(organs, volume, "body")
    inside = np.argwhere(mask) + [part.start for part in box]
    places = volume.to_patient_mm(inside.astype(float))
    assert np.abs(places.mean(axis=0)).max() < 0.5
    assert np.linalg.norm(places, axis=1).max() < 25 + 3
    assert mask.sum() * volume.voxel_ml == pytest.approx(4 / 3 * np.pi * 25**3 / 1000, rel=0.03)


@pytest.mark.parametrize("margin_mm", [-4.0, 5.0])
def test_the_surface_moves_by_the_margin(margin_mm):
    volume, organs = sphere(ORIENTATIONS[0], (96, 100, 100), (0, 0, 0), 22)
    _, mask = native_mask(organs, volume, "body", margin_mm=margin_mm)
    assert mask.sum() * volume.voxel_ml == pytest.approx(4 / 3 * np.pi * (22 + margin_mm) ** 3 / 1000, rel=0.15)


def test_a_given_box_is_filled():
    volume, organs = sphere(ORIENTATIONS[0], (96, 100, 100), (0, 0, 0), 25)
    box, mask = native_mask(organs, volume, "body")
    wanted = (slice(40, 60), slice(30, 70), slice(20, 55))
    same, part = native_mask(organs, volume, "body", box=wanted)
    assert same == wanted
    whole = np.zeros(volume.shape, bool)
    whole[box] = mask
    assert np.array_equal(part, whole[wanted])


def test_the_box_stays_in_the_volume():
    volume, organs = sphere(ORIENTATIONS[0], (96, 100, 100), (-40, 0, 0), 25)
    box, _ = native_mask(organs, volume, "body", margin_mm=50)
    assert all(0 <= part.start < part.stop <= size for part, size in zip(box, volume.shape, strict=True))


def test_nothing_there_gives_an_empty_box():
    volume, organs = sphere(ORIENTATIONS[0], (20, 20, 20), (900, 0, 0), 5)
    box, mask = native_mask(organs, volume, "body")
    assert mask.size == 0
    assert volume.hu[box].size == 0


def test_an_unknown_structure_is_a_key_error():
    volume, organs = sphere(ORIENTATIONS[0], (20, 20, 20), (0, 0, 0), 5)
    with pytest.raises(KeyError):
        native_mask(organs, volume, "gills")
