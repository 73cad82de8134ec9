"""What a bundle does before and after its network, and what of it a pack refuses to repeat."""

import pytest

from appliance.errors import PackError
from appliance.packs.importing.monai_config import Configuration
from appliance.packs.importing.monai_plan import read_postprocessing, read_preprocessing, read_window

ORIENT = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
SPACE = {"_target_": "monai.transforms.Spacingd", "keys": ["image"], "pixdim": [1.5, 2.0, 3.0], "mode": ["bilinear"]}
SCALE = {
    "_target_": "ScaleIntensityRanged",
    "keys": "image",
    "a_min": -100,
    "a_max": 300,
    "b_min": -1,
    "b_max": 1,
    "clip": True,
}


def of(*steps, key="preprocessing", **content):
    return Configuration({key: {"_target_": "Compose", "transforms": list(steps)}, **content}, "inference.json")


def test_axes_spacing_and_window_are_read():
    found = read_preprocessing(of({"_target_": "LoadImaged"}, ORIENT, SPACE, SCALE), "auto")
    assert (found.axes, found.spacing_mm) == ("right-front-head", (1.5, 2.0, 3.0))
    assert found.scaling.clip_hu == pytest.approx((-100, 300))
    assert (found.scaling.subtract_hu, found.scaling.divide_hu) == pytest.approx((100, 200))
    assert not found.scaling.clip_first


def test_clipping_before_resampling_is_kept_in_its_place():
    assert read_preprocessing(of(ORIENT, SCALE, SPACE), "auto").scaling.clip_first


def test_fixed_figures_of_a_normalisation_follow_a_window():
    after = {"_target_": "NormalizeIntensityd", "subtrahend": 0.5, "divisor": 0.25}
    found = read_preprocessing(of(ORIENT, SPACE, SCALE, after), "auto").scaling
    # At 100 HU the window gives 0, at 300 HU 1.
    assert [(hu - found.subtract_hu) / found.divide_hu for hu in (100, 300)] == pytest.approx([-2, 2])


def test_the_caller_may_say_the_axes():
    assert read_preprocessing(of(SPACE), "LPS").axes == "left-back-head"


def test_a_spacing_that_is_switched_off_is_where_the_scans_lay():
    found = read_preprocessing(of(ORIENT, SPACE | {"_disabled_": True}), "auto")
    assert found.spacing_mm == (1.5, 2.0, 3.0)
    assert "switched off" in found.facts[1]


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        ((ORIENT, SPACE, {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True}), "whole image"),
        ((ORIENT, SPACE, {"_target_": "ScaleIntensityd", "keys": "image"}), "whole image"),
        ((ORIENT, SPACE, {"_target_": "CropForegroundd", "keys": "image"}), "CropForegroundd is not known"),
        ((ORIENT, SPACE, {"_target_": "Lambdad", "func": "$lambda x: x"}), "would have to be run"),
        ((ORIENT,), "no Spacingd"),
        ((SPACE,), "no Orientationd"),
        ((SPACE, ORIENT), "after resampling"),
        ((ORIENT, SPACE | {"pixdim": [1, 1]}), "no fixed pixdim"),
        ((ORIENT, SPACE | {"pixdim": [1, 1, float("nan")]}), "no fixed pixdim"),
        ((ORIENT, SPACE | {"mode": "nearest"}), "linear"),
        ((ORIENT, SPACE | {"diagonal": True}), "diagonal"),
        ((ORIENT, SPACE, SCALE, SCALE), "twice"),
        ((ORIENT, SPACE, SCALE | {"a_max": -200}), "upside down"),
        ((ORIENT, SPACE, SCALE | {"a_max": "many"}), "lacks"),
        ((ORIENT | {"axcodes": "RAX"}, SPACE), "not an orientation"),
    ],
)
def test_what_cannot_be_repeated_is_refused(steps, match):
    with pytest.raises(PackError, match=match):
        read_preprocessing(of(*steps), "auto")


def window(**options):
    found = Configuration({"inferer": {"_target_": "SlidingWindowInferer", **options}}, "inference.json")
    return read_window(found, found.get("inferer"))


def test_a_window_has_monais_defaults():
    found = window(roi_size=[96, 64, 32], device="$torch.device('cpu')")
    assert (found.patch, found.overlap, found.gaussian, found.pad_value) == ((96, 64, 32), 0.25, False, 0.0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"roi_size": [96, 96]}, "roi_size"),
        ({"roi_size": [96, 96, -1]}, "roi_size"),
        ({"roi_size": "$[96] * 3"}, "would have to be run"),
        ({"roi_size": 96, "overlap": [0.5, 0.5, 0.25]}, "differently"),
        ({"roi_size": 96, "overlap": 1.0}, "overlap"),
        ({"roi_size": 96, "mode": "gaussian", "sigma_scale": 0.25}, "blends"),
    ],
)
def test_windows_of_other_kinds_are_refused(options, match):
    with pytest.raises(PackError, match=match):
        window(**options)


@pytest.mark.parametrize(
    ("steps", "single"),
    [
        (({"_target_": "Activationsd", "softmax": True}, {"_target_": "AsDiscreted", "argmax": True}), False),
        (({"_target_": "Activationsd", "sigmoid": True}, {"_target_": "AsDiscreted", "threshold": 0.5}), True),
        ((), False),
    ],
)
def test_labels_are_the_largest_channel_or_one_behind_a_sigmoid(steps, single):
    assert read_postprocessing(of(*steps, key="postprocessing"))[0] is single


def test_what_is_done_besides_is_said():
    (fact,) = read_postprocessing(of({"_target_": "KeepLargestConnectedComponentd"}, key="postprocessing"))[1]
    assert "KeepLargestConnectedComponentd" in fact


def test_other_thresholds_are_refused():
    steps = ({"_target_": "Activationsd", "sigmoid": True}, {"_target_": "AsDiscreted", "threshold": 0.3})
    with pytest.raises(PackError, match=r"threshold of 0\.3"):
        read_postprocessing(of(*steps, key="postprocessing"))
