"""The vocabulary's codes are DICOM's own; none is made up."""

import pytest
from pydicom.sr._concepts_dict import concepts

from appliance.anatomy.structures import STRUCTURES

#: In SNOMED CT, but not in any context group that pydicom knows.
OLDER = {"body", "lung_left", "lung_right", "bone"}
DICOM = {}
for known in concepts["SCT"].values():
    for code, (meaning, _) in known.items():
        DICOM.setdefault(code, set()).add(meaning.lower())


@pytest.mark.parametrize("name", sorted(set(STRUCTURES) - OLDER))
def test_a_code_and_its_meaning_are_in_the_standard(name):
    structure = STRUCTURES[name]
    assert any(structure.meaning.lower() in meaning for meaning in DICOM[structure.code])


def test_names_say_their_side():
    for name, structure in STRUCTURES.items():
        sides = [side for side in ("left", "right") if side in name.split("_")]
        assert [structure.laterality] == (sides or [None])


def test_what_shares_a_code_differs_in_side():
    seen = {}
    for structure in STRUCTURES.values():
        key = (structure.code, structure.laterality)
        assert key not in seen, (structure.name, seen[key])
        seen[key] = structure.name


def test_colours_are_bytes():
    assert all(0 <= value <= 255 for structure in STRUCTURES.values() for value in structure.rgb)
