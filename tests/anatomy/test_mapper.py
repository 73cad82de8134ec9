import itertools

import numpy as np
import pytest

from appliance.anatomy.coverage import regions
from appliance.anatomy.mapper import map_organs, map_with
from appliance.anatomy.plausibility import implausible
from appliance.errors import PackError
from appliance.inference.engines import open_engine
from appliance.scan import Volume


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b))


def turned(volume, order, flips):
    """The same anatomy in another axis order."""
    hu, matrix = volume.hu, volume.affine.copy()
    for axis, flip in enumerate(flips):
        if flip:
            hu = np.flip(hu, axis)
            matrix[:3, 3] += matrix[:3, axis] * (hu.shape[axis] - 1)
            matrix[:3, axis] *= -1
    matrix[:3, :3] = matrix[:3, list(order)]
    return Volume(np.ascontiguousarray(hu.transpose(order)), matrix)


@pytest.mark.slow
def test_the_phantom_is_mapped(phantom, phantom_map):
    _, labels, values = phantom
    for name, least in (("lung_left", 0.9), ("lung_right", 0.9), ("bone", 0.6)):
        found = phantom_map.mask(name)
        assert dice(found, labels == values[name]) > least, name


@pytest.mark.slow
def test_the_phantom_is_plausible_and_its_regions_are_named(phantom_map):
    reasons = implausible(phantom_map)
    assert not {"body", "lung_left", "lung_right"} & reasons.keys(), reasons
    assert "chest" in regions(phantom_map)


@pytest.mark.slow
def test_the_map_covers_the_scan_in_canonical_axes(phantom, phantom_map):
    volume, _, _ = phantom
    assert phantom_map.labels.shape == volume.shape
    np.testing.assert_allclose(phantom_map.affine, volume.affine)
    assert phantom_map.labels.dtype == np.uint8


@pytest.mark.slow
def test_the_map_says_what_made_it(phantom_map, pack, engine):
    assert phantom_map.pack.to_json() == {
        "name": "trunk",
        "version": pack.version,
        "digest": pack.digest,
        "precision": engine.precision,
        "device": "CPU",
        "engine": "openvino",
        "trust": pack.trust,
    }


def air():
    matrix = np.array([[0, 0, 3.0, 0], [0, 3.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    return Volume(np.full((20, 60, 60), -1000, np.int16), matrix)


CASES = [((2, 0, 1), (True, False, False)), ((0, 2, 1), (False, True, True)), ((1, 2, 0), (True, True, True))]


@pytest.mark.slow
@pytest.mark.parametrize(("order", "flips"), CASES)
def test_any_orientation_gives_the_same_map(phantom, phantom_map, pack, engine, order, flips):
    found = map_with(turned(phantom[0], order, flips), pack, engine)
    assert np.array_equal(found.labels, phantom_map.labels)
    np.testing.assert_allclose(found.affine, phantom_map.affine, atol=1e-9)


@pytest.mark.slow
def test_int8_keeps_to_single_precision_on_the_phantom(phantom, pack):
    if pack.network("openvino", "int8") is None:
        pytest.skip("the pack ships no INT8 network")
    maps = {
        precision: map_with(phantom[0], pack, open_engine(pack, engine="openvino", precision=precision, threads=2))
        for precision in ("int8", "f32")
    }
    for name, least in (("body", 0.99), ("lung_left", 0.97), ("lung_right", 0.97), ("bone", 0.93)):
        assert dice(maps["int8"].mask(name), maps["f32"].mask(name)) >= least, name


def test_without_a_pack_there_is_a_sentence():
    with pytest.raises(PackError, match="No model pack is installed"):
        map_organs(air(), ())


def test_two_packs_are_refused_with_their_names(pack):
    with pytest.raises(PackError, match="trunk, trunk"):
        map_organs(air(), (pack, pack))


@pytest.mark.slow
def test_air_alone_gives_an_empty_map_without_a_crash(pack):
    seen = []
    found = map_organs(air(), (pack,), on_progress=lambda done, total: seen.append((done, total)))
    assert found.volume_ml(*found.values) < 0.02 * found.labels.size * found.voxel_ml
    assert seen[-1][0] == seen[-1][1]


def held_out(data, name):
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(data / "volumes-2mm" / f"{name}.nii.gz"))
    hu = np.ascontiguousarray(np.asarray(image.dataobj).astype(np.int16).transpose(2, 1, 0))
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    matrix[:, :3] = matrix[:, [2, 1, 0]]
    return Volume(hu, matrix)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lidc_0002_plain", "lidc_0009_plain", "lungdx_a0002_plain"])
def test_a_scan_not_trained_on_is_plausible_and_int8_keeps_to_single_precision(data, pack, name):
    volume = held_out(data, name)
    precisions = [p for p in ("int8", "f32") if pack.network("openvino", p) is not None]
    maps = [
        map_with(volume, pack, open_engine(pack, engine="openvino", precision=precision, threads=2))
        for precision in precisions
    ]
    for organs in maps:
        reasons = implausible(organs)
        assert not {"body", "lung_left", "lung_right"} & reasons.keys(), reasons
    for first, second in itertools.pairwise(maps):
        for structure, least in (("body", 0.99), ("lung_left", 0.97), ("lung_right", 0.97), ("bone", 0.93)):
            assert dice(first.mask(structure), second.mask(structure)) >= least, structure


@pytest.mark.slow
def test_lung_volume_of_the_scan_read_by_hand(data, pack, engine):
    organs = map_with(held_out(data, "lidc_0002_plain"), pack, engine)
    assert organs.volume_ml("lung_left", "lung_right") == pytest.approx(5200, rel=0.06)
