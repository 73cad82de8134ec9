"""A second network sees only its organ, in the box that the first one's map gives."""

import dataclasses
from itertools import permutations

import numpy as np
import pytest

from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.anatomy.region import cut_out, region_box
from appliance.anatomy.stages import by_stage, map_in_stages
from appliance.anatomy.structures import STRUCTURES
from appliance.errors import InferenceError
from appliance.packs.manifest import StructureOutput
from appliance.packs.pack import load
from appliance.packs.registry import shipped_folders
from appliance.scan import Volume

CANONICAL = np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
USE = PackUse("first", "1.0.0", "", "f32", "CPU", "stand-in")


def pack(name, structure, **changes):
    """A pack of one structure, on 3 mm, in tiles of eight voxels."""
    shipped = load(shipped_folders()[0])
    wanted = shipped.manifest.input.model_copy(update={"skip_air": False, "patch": (8, 8, 8), **changes})
    output = StructureOutput(name=structure, code=STRUCTURES[structure].code, value=1)
    update = {"input": wanted, "structures": (output,), "name": name}
    return dataclasses.replace(shipped, manifest=shipped.manifest.model_copy(update=update))


class Bright:
    """A network that labels whatever is brighter than water, and counts the voxels that it was shown."""

    name, precision, device, patch = "stand-in", "f32", "CPU", (8, 8, 8)

    def __init__(self):
        self.shown = 0

    def run(self, hu):
        self.shown += hu.size
        values = hu.astype(np.float32)
        return np.stack([np.zeros_like(values), values])


@dataclasses.dataclass
class Opened:
    pack: object
    network: object

    def engine(self):
        return self.network


def volume(shape=(40, 32, 32)):
    hu = np.full(shape, -1000, np.int16)
    hu[10:18, 12:20, 4:12] = 60
    return Volume(hu, CANONICAL.copy())


def organs(labels, affine=CANONICAL):
    return OrganMap(labels, affine, {"heart": 1}, USE)


def test_a_box_reaches_to_the_outer_faces_and_beyond_by_the_margin():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[2:4, 5, 6:9] = 1
    low, high = region_box(organs(labels), ["heart"], 2.0)
    assert low == (6 * 3 - 1.5 - 2, 5 * 3 - 1.5 - 2, 2 * 3 - 1.5 - 2)
    assert high == (8 * 3 + 1.5 + 2, 5 * 3 + 1.5 + 2, 3 * 3 + 1.5 + 2)


def test_a_structure_that_is_not_there_has_no_box():
    assert region_box(organs(np.zeros((4, 4, 4), np.uint8)), ["heart"], 20.0) is None
    assert region_box(organs(np.ones((4, 4, 4), np.uint8)), ["liver"], 20.0) is None


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flip", [False, True])
def test_what_is_cut_out_keeps_its_place_in_the_patient(order, flip):
    hu = np.random.default_rng(1).integers(-1000, 1000, (9, 11, 13)).astype(np.int16)
    affine = CANONICAL.copy()
    affine[:3, 3] = (-20, 30, 5)
    if flip:
        hu, affine[:3, 3] = np.ascontiguousarray(hu[::-1]), affine[:3, 3] + affine[:3, 0] * 8
        affine[:3, 0] *= -1
    affine[:, :3] = affine[:, list(order)]
    whole = Volume(np.ascontiguousarray(hu.transpose(order)), affine)
    box = (-10.0, 36.0, 12.0), (2.0, 50.0, 20.0)
    part = cut_out(whole, box)
    for index in np.ndindex(part.shape):
        place = whole.to_index(part.to_patient_mm(np.array(index)))
        assert np.allclose(place, np.rint(place))
        assert part.hu[index] == whole.hu[tuple(np.rint(place).astype(int))]
    corners = part.to_patient_mm(np.array([[0, 0, 0], np.array(part.shape) - 1]))
    assert (corners.min(axis=0) - 1.5 <= box[0]).all()
    assert (corners.max(axis=0) + 1.5 >= box[1]).all()


def test_a_box_beside_the_scan_is_an_error():
    with pytest.raises(InferenceError, match="outside the scan"):
        cut_out(volume(), ((500.0, 0.0, 0.0), (600.0, 10.0, 10.0)))


def test_a_second_network_sees_only_its_organ_and_labels_it_where_it_is():
    first, second = Bright(), Bright()
    packs = [
        Opened(pack("calcium", "aorta", region=("heart",), region_margin_mm=6.0), second),
        Opened(pack("trunk", "heart"), first),
    ]
    maps, merged = map_in_stages(volume(), packs, {"heart": "trunk", "aorta": "calcium"}, ("calcium",))
    assert [item.pack.name for item in maps] == ["trunk", "calcium"]
    assert second.shown < 0.25 * first.shown
    expected = volume().hu > 0
    assert np.array_equal(merged.mask("aorta"), expected)
    assert maps[1].labels.size < 0.1 * maps[0].labels.size


def test_without_its_organ_a_network_does_not_run_and_the_result_says_so():
    second = Bright()
    packs = [Opened(pack("calcium", "aorta", region=("liver",)), second), Opened(pack("trunk", "heart"), Bright())]
    maps, merged = map_in_stages(volume(), packs, {"heart": "trunk", "aorta": "calcium"})
    assert second.shown == 0
    assert not maps[1].labels.any()
    assert not merged.mask("aorta").any()
    assert "no liver" in maps[1].pack.to_json()["note"]
    assert "note" not in maps[0].pack.to_json()


def test_an_order_is_found_for_networks_that_build_on_each_other():
    packs = [
        Opened(pack("a", "aorta", region=("liver",)), None),
        Opened(pack("b", "liver", region=("heart",)), None),
        Opened(pack("c", "heart"), None),
    ]
    assert [item.pack.name for item in by_stage(packs)] == ["c", "b", "a"]


def test_networks_that_wait_for_each_other_still_all_run():
    packs = [
        Opened(pack("a", "aorta", region=("liver",)), None),
        Opened(pack("b", "liver", region=("aorta",)), None),
    ]
    assert len(by_stage(packs)) == 2


def test_a_region_outside_the_vocabulary_is_refused():
    wanted = load(shipped_folders()[0]).manifest.input.model_dump()
    with pytest.raises(ValueError, match="not in the vocabulary"):
        type(load(shipped_folders()[0]).manifest.input).model_validate({**wanted, "region": ["hart"]})
