import pytest

from appliance.errors import PackError
from appliance.packs.importing.plans import compare, interpret, read_json


def test_plans_are_read(plans, dataset):
    found = interpret(plans, dataset, "3d_fullres")
    assert (found.architecture, found.spacing_mm, found.patch) == ("PlainConvUNet", (3.0, 2.0, 2.5), (16, 24, 32))
    assert (found.clip_hu, found.mean_hu, found.deviation_hu) == ((-900.0, 1200.0), 40.5, 300.0)
    assert found.usual_resampling


def test_older_plans_say_the_same(plans, dataset):
    full = plans["configurations"]["3d_fullres"]
    expected = interpret(plans, dataset, "3d_fullres").arguments
    del full["architecture"]
    full |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "conv_kernel_sizes": [[3, 3, 3]] * 3,
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage_encoder": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
    }
    found = interpret(plans, dataset, "3d_fullres").arguments
    assert found == {key: value for key, value in expected.items() if not key.startswith("dropout")}


def test_a_cascade_is_refused(plans, dataset):
    with pytest.raises(PackError, match="second stage of a cascade"):
        interpret(plans, dataset, "3d_cascade_fullres")


def test_an_unknown_configuration_names_the_known(plans, dataset):
    with pytest.raises(PackError, match="3d_fullres"):
        interpret(plans, dataset, "3d_lowres")


def test_a_circle_of_configurations_is_refused(plans, dataset):
    plans["configurations"]["3d_fullres"]["inherits_from"] = "3d_cascade_fullres"
    with pytest.raises(PackError, match="leads nowhere"):
        interpret(plans, dataset, "3d_cascade_fullres")


def two_dimensional(plans, dataset):
    plans["configurations"]["3d_fullres"] |= {"patch_size": [512, 512], "spacing": [1, 1]}


def several_images(plans, dataset):
    dataset["channel_names"] = {"0": "CT", "1": "PET"}


def for_mr(plans, dataset):
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["ZScoreNormalization"]


def regions(plans, dataset):
    dataset["labels"] = {"background": 0, "whole": [1, 2], "core": [2]}


def gaps(plans, dataset):
    dataset["labels"] = {"background": 0, "liver": 1, "spleen": 3}


def nothing(plans, dataset):
    del plans["configurations"]["3d_fullres"]["spacing"]


def no_architecture(plans, dataset):
    del plans["configurations"]["3d_fullres"]["architecture"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (two_dimensional, "two-dimensional"),
        (several_images, "2 images at once"),
        (for_mr, "ZScoreNormalization"),
        (regions, "overlapping regions"),
        (gaps, "not numbered"),
        (nothing, "spacing"),
        (no_architecture, "no architecture"),
    ],
)
def test_what_a_pack_cannot_hold_is_refused(plans, dataset, spoil, sentence):
    spoil(plans, dataset)
    with pytest.raises(PackError, match=sentence):
        interpret(plans, dataset, "3d_fullres")


def test_a_network_without_normalisation_takes_hounsfield_units(plans, dataset):
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["NoNormalization"]
    found = interpret(plans, dataset, "3d_fullres")
    assert (found.clip_hu, found.mean_hu, found.deviation_hu) == (None, 0.0, 1.0)


@pytest.mark.parametrize(
    ("reader", "name", "axes"),
    [
        ("SimpleITKIO", "Dataset007_Test", "head-back-left"),
        ("NibabelIOWithReorient", "Dataset007_Test", "head-front-right"),
        ("SimpleITKIO", "Dataset297_TotalSegmentator_total_3mm", "head-front-right"),
    ],
)
def test_the_axes_follow_the_reader(plans, dataset, reader, name, axes):
    plans |= {"image_reader_writer": reader, "dataset_name": name}
    assert interpret(plans, dataset, "3d_fullres").orientation("auto")[0] == axes


def test_the_axes_are_transposed_as_the_image_was(plans, dataset):
    plans["transpose_forward"] = [2, 0, 1]
    assert interpret(plans, dataset, "3d_fullres").orientation("las")[0] == "left-head-front"


@pytest.mark.parametrize("code", ["RA", "RAL", "RRS", "XYZ", "RASI", ""])
def test_a_wrong_orientation_is_refused(plans, dataset, code):
    with pytest.raises(PackError, match="not an orientation"):
        interpret(plans, dataset, "3d_fullres").orientation(code)


def test_plans_of_another_training_are_told(plans):
    other = {**plans, "transpose_forward": [1, 0, 2]}
    with pytest.raises(PackError, match="transpose_forward"):
        compare(plans, other, "3d_fullres")


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "plans.json").write_text("{")
    with pytest.raises(PackError, match="not a JSON file"):
        read_json(tmp_path / "plans.json")
    with pytest.raises(PackError, match="cannot be read"):
        read_json(tmp_path / "dataset.json")
