import numpy as np
import pytest

from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.anatomy.plausibility import cut_off, implausible
from appliance.phantom import PhantomOptions, label_map
from appliance.reasons import ReasonCode


def test_a_sane_map_is_plausible(drawn):
    assert implausible(drawn) == {}


def test_swapped_lungs_are_found(drawn):
    left, right = drawn.labels == 2, drawn.labels == 3
    drawn.labels[left], drawn.labels[right] = 3, 2
    reasons = implausible(drawn)
    assert {"lung_left", "lung_right"} <= reasons.keys()
    assert reasons["lung_left"].code is ReasonCode.ORGAN_IMPLAUSIBLE


def test_a_tiny_lung_is_found(drawn):
    drawn.labels[60:][drawn.labels[60:] == 2] = 1
    drawn.labels[:50][drawn.labels[:50] == 2] = 1
    assert "400 mL to 5 L" in implausible(drawn)["lung_left"].text


def test_a_lung_that_the_scan_cuts_is_not_called_tiny(drawn):
    cut = type(drawn)(drawn.labels[95:], drawn.affine, drawn.values, drawn.pack)
    assert cut.volume_ml("lung_left") < 400
    assert "lung_left" not in implausible(cut)


def test_a_huge_lung_is_found(drawn):
    big = drawn.labels == 1
    big[:, :, :62] = False
    drawn.labels[big] = 2
    assert "lung_left" in implausible(drawn)


def test_a_missing_structure_is_said(drawn):
    drawn.labels[drawn.labels == 4] = 1
    assert implausible(drawn)["airways"].text == "No airways were found in the scan."


def test_a_lung_in_pieces_is_found(drawn):
    drawn.labels[66:78][drawn.labels[66:78] == 2] = 1
    assert "in pieces" in implausible(drawn)["lung_left"].text


def test_a_lung_at_the_outside_is_found(drawn):
    body = drawn.labels == 1
    body[:, :, :85] = False
    drawn.labels[body] = 0
    assert "outside of the body" in implausible(drawn)["lung_left"].text


def test_airways_beside_the_lungs_are_found(drawn):
    where = np.argwhere(drawn.labels == 4)
    drawn.labels[drawn.labels == 4] = 1
    drawn.labels[where[:, 0], where[:, 1], where[:, 2] + 45] = 4
    assert "between the lungs" in implausible(drawn)["airways"].text


def test_too_much_bone_is_found(drawn):
    drawn.labels[:, 30:][drawn.labels[:, 30:] == 1] = 5
    assert "skeleton" in implausible(drawn)["bone"].text


def test_an_empty_map_is_implausible_throughout(drawn):
    drawn.labels[:] = 0
    assert set(implausible(drawn)) == set(drawn.values)


def test_whole_lungs_are_not_cut_off(drawn):
    assert cut_off(drawn, "lung_left") == frozenset()
    assert cut_off(drawn, "body") == {"top", "bottom"}


def test_cut_lungs_say_where(drawn):
    for part, face in ((slice(50, None), "bottom"), (slice(None, 80), "top")):
        cut = type(drawn)(drawn.labels[part], drawn.affine, drawn.values, drawn.pack)
        assert cut_off(cut, "lung_right") == {face}


def test_sides_are_the_patients(drawn):
    cut = type(drawn)(drawn.labels[:, :, :90], drawn.affine, drawn.values, drawn.pack)
    assert cut_off(cut, "lung_left") == {"left"}


def test_a_structure_in_the_last_layer_but_one_is_cut_off(drawn):
    cut = type(drawn)(drawn.labels[50:].copy(), drawn.affine, drawn.values, drawn.pack)
    cut.labels[0] = 1
    assert cut_off(cut, "lung_right") == {"bottom"}


@pytest.fixture(scope="module")
def trunk() -> OrganMap:
    """Every organ of the digital patient, at 4 mm."""
    _, labels, affine, values = label_map(PhantomOptions(), 4.0)
    return OrganMap(labels, affine, values, PackUse("truth", "0.0.0", "sha256:0", "f32", "CPU", "none"))


def test_every_organ_of_the_test_patient_is_plausible(trunk):
    assert implausible(trunk) == {}


def test_a_mirrored_patient_is_doubted_not_measured(trunk):
    mirrored = OrganMap(trunk.labels[:, :, ::-1], trunk.affine, trunk.values, trunk.pack)
    reasons = implausible(mirrored)
    assert {"lung_left", "lung_right", "liver", "spleen", "kidney_left", "kidney_right"} <= reasons.keys()
    assert "mirrored" in reasons["liver"].text


@pytest.mark.parametrize("name", ["heart", "liver", "spleen", "kidney_left", "aorta", "pulmonary_trunk"])
def test_a_crumb_of_an_organ_is_not_measured(trunk, name):
    labels = trunk.labels.copy()
    places = np.argwhere(labels == trunk.values[name])
    labels[labels == trunk.values[name]] = 1
    labels[tuple(places[len(places) // 2])] = trunk.values[name]
    reason = implausible(OrganMap(labels, trunk.affine, trunk.values, trunk.pack))[name]
    assert "is expected" in reason.text


def test_an_organ_that_the_scan_cuts_is_not_called_small(trunk):
    places = np.flatnonzero(trunk.mask("liver").any(axis=(1, 2)))
    cut = OrganMap(trunk.labels[places[-1] - 5 :], trunk.affine, trunk.values, trunk.pack)
    assert 0 < cut.volume_ml("liver") < 500
    assert "liver" not in implausible(cut)


def test_a_heart_beside_the_lungs_is_found(trunk):
    labels = trunk.labels.copy()
    heart = labels == trunk.values["heart"]
    labels[heart] = 1
    labels[np.roll(heart, 30, axis=2)] = trunk.values["heart"]
    reason = implausible(OrganMap(labels, trunk.affine, trunk.values, trunk.pack))["heart"]
    assert "between the lungs" in reason.text
