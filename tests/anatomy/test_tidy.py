import numpy as np

from appliance.anatomy.tidy import tidy


def clean(organs):
    tidy(organs.labels, organs.values, organs.voxel_ml)
    return organs.labels


def test_a_clean_map_is_left_alone(drawn):
    before = drawn.labels.copy()
    assert np.array_equal(clean(drawn), before)


def test_what_lies_beside_the_patient_goes(drawn):
    drawn.labels[:, 79, :10] = 1
    assert not clean(drawn)[:, 79, :10].any()


def test_a_speck_of_left_inside_the_right_lung_joins_it(drawn):
    drawn.labels[70, 40, 33:36] = 2
    assert (clean(drawn)[70, 40, 33:36] == 3).all()


def test_a_speck_of_lung_in_the_abdomen_becomes_body(drawn):
    drawn.labels[8:11, 40:43, 40:43] = 3
    assert (clean(drawn)[8:11, 40:43, 40:43] == 1).all()


def test_gas_far_below_the_lungs_becomes_body(drawn):
    drawn.labels[2:14, 34:46, 66:78] = 2
    assert (clean(drawn)[2:14, 34:46, 66:78] == 1).all()


def test_a_part_of_a_lung_beside_it_stays(drawn):
    drawn.labels[56:59][drawn.labels[56:59] == 2] = 1
    before = np.count_nonzero(drawn.labels[:56] == 2)
    assert before > 0.02 * np.count_nonzero(drawn.labels == 2)
    assert np.count_nonzero(clean(drawn)[:56] == 2) == before


def test_a_vessel_inside_a_lung_is_filled(drawn):
    drawn.labels[68:72, 40, 34] = 1
    assert (clean(drawn)[68:72, 40, 34] == 3).all()


def test_specks_of_bone_go(drawn):
    drawn.labels[20, 30, 60] = 5
    assert clean(drawn)[20, 30, 60] == 1


def test_a_hole_through_the_body_is_filled_in_its_slice(drawn):
    drawn.labels[5, 40:44, 60:64] = 0
    assert (clean(drawn)[5, 40:44, 60:64] == 1).all()


def test_an_empty_map_stays_empty(drawn):
    drawn.labels[:] = 0
    assert not clean(drawn).any()


def test_an_island_of_an_organ_becomes_body(drawn):
    drawn.values["liver"] = 6
    drawn.labels[10:22, 30:50, 20:50] = 6
    drawn.labels[30:33, 30:33, 60:63] = 6
    labels = clean(drawn)
    assert (labels[30:33, 30:33, 60:63] == 1).all()
    assert (labels[10:22, 30:50, 20:50] == 6).all()


def test_an_aorta_without_its_arch_keeps_both_parts(drawn):
    drawn.values["aorta"] = 6
    drawn.labels[60:100, 20:28, 58:66] = 6
    drawn.labels[20:100, 50:56, 66:72] = 6
    before = drawn.labels.copy()
    assert np.array_equal(clean(drawn), before)
