import pytest

from appliance.anatomy.structures import STRUCTURES
from appliance.errors import PackError
from appliance.packs.importing.terms import TOTALSEGMENTATOR, structure_channels


def test_every_translation_ends_in_the_vocabulary():
    assert set(TOTALSEGMENTATOR.values()) <= set(STRUCTURES)


def test_ribs_of_a_side_become_one_structure():
    found = structure_channels({"liver": 1, "rib_left_1": 2, "spleen": 3, "rib_left_12": 4}, {})
    assert found == {"liver": (1,), "ribs_left": (2, 4), "spleen": (3,)}


def test_vertebrae_are_translated():
    assert structure_channels({"vertebrae_T12": 1}, {}) == {"vertebra_T12": (1,)}


def test_an_unknown_class_is_refused_by_name():
    with pytest.raises(PackError, match=r"iliopsoas_left.*--map"):
        structure_channels({"liver": 1, "iliopsoas_left": 2}, {})


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
