"""A network trained along other axes still labels the right side of the patient."""

import dataclasses

import numpy as np
import pytest

from appliance.anatomy.mapper import network_labels
from appliance.packs.manifest import StructureOutput
from appliance.packs.pack import load
from appliance.packs.registry import shipped_folders
from appliance.scan import Volume

#: Shape of the volume at the network's spacing: slices, rows, columns.
SHAPE = (10, 14, 18)
CORNERS = {
    "head": (slice(5, None), slice(None), slice(None)),
    "feet": (slice(None, 5), slice(None), slice(None)),
    "back": (slice(None), slice(7, None), slice(None)),
    "front": (slice(None), slice(None, 7), slice(None)),
    "left": (slice(None), slice(None), slice(9, None)),
    "right": (slice(None), slice(None), slice(None, 9)),
}


class FarHalf:
    """A network that gives its last channel to the half of the tile that its first axis grows to."""

    name, precision, device = "stand-in", "f32", "CPU"

    def __init__(self, channels: int, patch: tuple[int, int, int]) -> None:
        self.channels, self.patch = channels, patch

    def run(self, hu):
        logits = np.zeros((self.channels, *hu.shape), np.float32)
        logits[-1, hu.shape[0] // 2 :] = 1
        return logits


def pack_with(structures=None, **changes):
    pack = load(shipped_folders()[0])
    wanted = pack.manifest.input.model_copy(update={"skip_air": False, **changes})
    update = {"input": wanted} | ({"structures": structures} if structures else {})
    return dataclasses.replace(pack, manifest=pack.manifest.model_copy(update=update))


def volume() -> Volume:
    affine = np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
    return Volume(np.zeros(SHAPE, np.int16), affine)


@pytest.mark.parametrize(
    ("orientation", "patch"),
    [
        ("head-back-left", SHAPE),
        ("head-front-right", SHAPE),
        ("right-head-front", (18, 10, 14)),
        ("back-left-feet", (14, 18, 10)),
        ("feet-right-back", (10, 18, 14)),
    ],
)
@pytest.mark.parametrize("resampling", ["area", "nnunet"])
def test_the_far_half_is_where_the_first_axis_grows_to(orientation, patch, resampling):
    pack = pack_with(orientation=orientation, patch=patch, resampling=resampling)
    labels, grid = network_labels(volume(), pack, FarHalf(2, pack.manifest.input.patch))
    expected = np.zeros(SHAPE, np.uint8)
    expected[CORNERS[orientation.split("-")[0]]] = 1
    assert grid.shape == SHAPE
    assert np.array_equal(labels, expected)


def test_spacing_follows_the_networks_axes():
    pack = pack_with(orientation="right-head-front", spacing_mm=(9.0, 3.0, 6.0), patch=(8, 8, 8))
    _, grid = network_labels(volume(), pack, FarHalf(2, pack.manifest.input.patch))
    assert grid.shape == (10, 7, 6)


def test_several_channels_become_one_structure_and_others_nothing():
    ribs = StructureOutput(name="ribs_left", code="113197003", value=1, channels=(2, 5))
    for channels, value in ((3, 1), (5, 0), (6, 1)):
        labels, _ = network_labels(volume(), pack_with((ribs,), patch=SHAPE), FarHalf(channels, SHAPE))
        assert labels.max() == value


def test_one_channel_is_claimed_once():
    pack = load(shipped_folders()[0])
    content = pack.manifest.model_dump()
    content["structures"][0]["channels"] = (2,)
    with pytest.raises(ValueError, match="same channel"):
        type(pack.manifest).model_validate(content)
