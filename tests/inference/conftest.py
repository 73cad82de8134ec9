import numpy as np
import pytest

from appliance.inference.engines import import_openvino
from appliance.packs.registry import available
from appliance.phantom import PhantomOptions, label_map


@pytest.fixture(scope="session")
def pack():
    (found,) = available()
    return found


@pytest.fixture(scope="session")
def phantom():
    """HU and labels of the phantom's chest at 3 mm, in canonical axes."""
    hu, labels, _, values = label_map(PhantomOptions(seed=5, coverage_low_mm=-30.0), 3.0)
    return hu, labels, values


@pytest.fixture(scope="session")
def tile(phantom, pack):
    """One patch out of the phantom's middle."""
    hu, _, _ = phantom
    patch = pack.manifest.input.patch
    out = np.full(patch, -1024, np.int16)
    sizes = [min(a, b) for a, b in zip(hu.shape, patch, strict=True)]
    source = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(hu.shape, sizes, strict=True))
    target = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(patch, sizes, strict=True))
    out[target] = hu[source]
    return out


@pytest.fixture
def quantised(tmp_path):
    """A network of two convolutions with quantisers, as OpenVINO's IR, for tiles of 16³."""
    openvino = import_openvino()
    ops = openvino.opset13

    def coarse(values, low: float, high: float, levels: int):
        ends = [ops.constant(np.float32(end)) for end in (low, high)]
        return ops.fake_quantize(values, *ends, *ends, levels)

    hu = current = ops.parameter([1, 1, 16, 16, 16], np.float32)
    for inputs, outputs in ((1, 16), (16, 16)):
        values = np.random.default_rng(outputs).normal(0, 0.1, (outputs, inputs, 3, 3, 3)).astype(np.float32)
        weights, one = coarse(ops.constant(values), -0.4, 0.4, 255), [1] * 3
        current = ops.relu(ops.convolution(coarse(current, 0.0, 255.0, 256), weights, one, one, one, one))
    openvino.save_model(openvino.Model([current], [hu]), tmp_path / "quantised.xml", compress_to_fp16=False)
    return tmp_path / "quantised.xml"
