import pytest

from appliance.anatomy.structures import STRUCTURES
from appliance.errors import PackError
from appliance.packs.importing.terms import TOTALSEGMENTATOR, WITHOUT_CODE, structure_channels
from tests.importing.totalsegmentator import ALL, PARTS


def test_every_translation_ends_in_the_vocabulary():
    assert set(TOTALSEGMENTATOR.values()) <= set(STRUCTURES)


def test_ribs_of_a_side_become_one_structure():
    found = structure_channels({"liver": 1, "rib_left_1": 2, "spleen": 3, "rib_left_12": 4}, {})
    assert found == {"liver": (1,), "ribs_left": (2, 4), "spleen": (3,)}


def test_vertebrae_are_translated():
    assert structure_channels({"vertebrae_T12": 1}, {}) == {"vertebra_T12": (1,)}


def test_an_unknown_class_is_refused_by_name():
    with pytest.raises(PackError, match=r"omentum.*--map"):
        structure_channels({"liver": 1, "omentum": 2}, {})


def test_an_unknown_class_may_be_left_out():
    assert structure_channels({"liver": 1, "x": 2}, {}, drop_unknown=True) == {"liver": (1,)}
    assert structure_channels({"liver": 1, "x": 2}, {"x": ""}) == {"liver": (1,)}


def test_the_caller_wins():
    assert structure_channels({"liver": 1}, {"liver": "spleen"}) == {"spleen": (1,)}


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"heart": "heart"}, "no class heart"),
        ({"liver": "livre"}, "no structure livre"),
        ({"liver": ""}, "give nothing"),
    ],
)
def test_a_wrong_mapping_is_refused(chosen, sentence):
    with pytest.raises(PackError, match=sentence):
        structure_channels({"liver": 1}, chosen)


def test_every_class_of_totalsegmentator_is_coded_or_left_out_for_a_reason():
    labels = {name: channel for channel, name in enumerate(ALL, start=1)}
    assert len(labels) == 117
    found = structure_channels(labels, {})
    channels = {channel for claimed in found.values() for channel in claimed}
    assert {name for name, channel in labels.items() if channel not in channels} == set(WITHOUT_CODE)
    assert len(channels) == 102
    assert len(found) == 79  # 24 ribs are two structures, S1 is sacrum


def test_its_parts_are_disjoint_also_as_structures():
    found = [set(structure_channels(dict.fromkeys(names, 1), {})) for names in PARTS.values()]
    assert sum(map(len, found)) == len(set().union(*found))


def test_a_class_without_a_code_can_still_be_given_one():
    assert structure_channels({"hip_left": 1}, {"hip_left": "bone"}) == {"bone": (1,)}


def test_nothing_is_left_out_that_has_a_structure():
    assert not set(WITHOUT_CODE) & {*TOTALSEGMENTATOR, *STRUCTURES}
