"""What screenings share is worked out once."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.anatomy.derived import Anatomy, derived
from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.anatomy.structures import PARTS, STRUCTURES, with_wholes
from appliance.scan import Volume

PACK = PackUse("test", "0.0.0", "sha256:0", "f32", "CPU", "none")


def anatomy(**values: int) -> Anatomy:
    labels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    return Anatomy(Volume(np.zeros((2, 2, 2), np.int16), np.eye(4)), OrganMap(labels, np.eye(4), values, PACK))


@derived
def inner_thing(_: Anatomy) -> list[int]:
    return [1]


@derived
def outer_thing(scan: Anatomy) -> list[int]:
    return [*inner_thing(scan), 2]


def test_a_derived_thing_is_made_once_for_a_scan():
    scan = anatomy(liver=1)
    assert outer_thing(scan) is outer_thing(scan)
    assert inner_thing(scan) == [1]
    assert scan.computed == {"outer thing": 1, "inner thing": 1}
    assert scan.seconds.keys() == {"outer thing", "inner thing"}


def test_another_scan_has_its_own():
    assert outer_thing(anatomy(liver=1)) is not outer_thing(anatomy(liver=1))


def test_a_native_mask_is_shared_and_read_only():
    scan = anatomy(liver=1)
    _, mask = scan.native("liver")
    assert scan.native("liver")[1] is mask
    assert not mask.flags.writeable
    assert scan.native("liver", margin_mm=1.0)[1] is not mask


def test_lobes_make_up_a_lung():
    organs = anatomy(lung_upper_lobe_left=1, lung_lower_lobe_left=2).organs
    assert np.count_nonzero(organs.mask("lung_left")) == 2
    assert "lung_right" not in organs.structures


def test_one_lobe_is_no_lung():
    with pytest.raises(KeyError, match="lung_left"):
        anatomy(lung_upper_lobe_left=1).organs.mask("lung_left")


def test_a_whole_of_one_pack_is_filled_up_with_the_parts_of_another():
    organs = anatomy(bone=1, vertebra_L1=2, vertebral_bodies=3).organs
    assert np.count_nonzero(organs.mask("bone")) == 3
    assert np.count_nonzero(organs.mask("vertebral_bodies")) == 2


def test_every_part_is_in_the_vocabulary():
    assert {part for parts in PARTS.values() for part in parts} | PARTS.keys() <= STRUCTURES.keys()


def test_lumbar_levels_are_vertebral_bodies():
    levels = {"vertebra_T12", "vertebra_L1", "vertebra_L2", "vertebra_L3"}
    assert "vertebral_bodies" in with_wholes(levels)
    assert "vertebral_bodies" not in with_wholes(levels - {"vertebra_L1"})
