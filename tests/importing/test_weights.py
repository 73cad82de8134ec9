"""Where an imported network's answers may differ: not in the engine, but in how its weights are stored."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from appliance.inference.with_openvino import OpenVinoEngine
from appliance.packs.importing.graph import in_hounsfield, write_ir, write_onnx

torch = pytest.importorskip("torch", reason="the extra `import` is not installed")
unet = pytest.importorskip(
    "dynamic_network_architectures.architectures.unet", reason="the extra `import` is not installed"
)

pytestmark = pytest.mark.slow
PATCH = (48, 48, 64)
CLASSES = 33


@pytest.fixture(scope="module")
def network():
    """The widths and stages of the 3 mm model, random weights: near ties everywhere, which is the hardest case."""
    torch.manual_seed(0)
    plain = unet.PlainConvUNet(
        *(1, 6, [32, 64, 128, 256, 320, 320], torch.nn.Conv3d, [[3, 3, 3]] * 6),
        *([[1, 1, 1], *[[2, 2, 2]] * 4, [1, 1, 2]], [2] * 6, CLASSES, [2] * 5),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return in_hounsfield([plain.eval()], (-1000.0, 1200.0), -40.0, 350.0)


@pytest.fixture(scope="module")
def tile():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, PATCH), 2) * 3000
    return noise.clip(-1000, 1500).astype(np.int16)


@pytest.fixture(scope="module")
def expected(network, tile):
    """PyTorch's answer, in single precision."""
    torch.set_num_threads(2)
    with torch.inference_mode():
        return network(torch.from_numpy(tile.astype(np.float32))[None, None])[0].numpy()


def compared(network, tile, expected, folder: Path, *, half: bool) -> tuple[float, float]:
    """Largest difference of a logit, and share of equal labels."""
    write_onnx(network, PATCH, folder / "network.onnx", half=half)
    write_ir(folder / "network.onnx", folder / "network.xml", half=half)
    found = OpenVinoEngine(folder / "network.xml", PATCH, "f32", 2, None).run(tile)
    difference = float(np.abs(found - expected).max())
    same = float((found.argmax(axis=0) == expected.argmax(axis=0)).mean())
    if figures := os.environ.get("APPLIANCE_TEST_FIGURES"):
        with (Path(figures) / "import.jsonl").open("a") as stream:
            stream.write(json.dumps({"weights": "half" if half else "single", "difference": difference, "same": same}))
            stream.write("\n")
    return difference, same


def test_with_weights_in_single_precision_the_engine_answers_as_pytorch(network, tile, expected, tmp_path):
    difference, same = compared(network, tile, expected, tmp_path, half=False)
    assert difference < 2e-4
    assert same > 0.9999


def test_weights_stored_in_half_precision_are_the_difference(network, tile, expected, tmp_path):
    difference, same = compared(network, tile, expected, tmp_path, half=True)
    assert 1e-3 < difference < 1e-2
    assert same > 0.998
