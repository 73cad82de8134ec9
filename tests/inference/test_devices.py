"""Which device computes, and what happens when it does not.

There is no accelerator where these tests run: what a driver does is not tested here, only what the appliance makes of
a device that is absent, that cannot compile, or that stops in the middle.
"""

import dataclasses

import numpy as np
import pytest
from structlog.testing import capture_logs

from appliance.anatomy.mapper import network_labels
from appliance.errors import InferenceError
from appliance.inference.engines import OnnxRuntimeEngine, SteadyEngine, devices_of, open_engine
from appliance.inference.with_onnxruntime import _provider
from appliance.packs.manifest import Network
from appliance.packs.pack import load
from appliance.packs.registry import shipped_folders
from appliance.scan import Volume


def test_the_cpu_is_always_there():
    assert devices_of("openvino")[0] == "CPU"
    assert devices_of("onnxruntime")[0] == "CPU"


@pytest.mark.parametrize("device", ["GPU", "NPU"])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_absent_device_is_replaced_by_the_cpu_and_said(pack, engine, device):
    if device in devices_of(engine):
        pytest.skip(f"this machine may have a {device}")
    with capture_logs() as logs:
        opened = open_engine(pack, engine=engine, precision="f32", device=device)
    assert (opened.name, opened.device) == (engine, "CPU")
    assert "device_not_used" in [entry["event"] for entry in logs]


@pytest.mark.parametrize(
    ("available", "device", "expected"),
    [
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "CPU", "CPUExecutionProvider"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "GPU", "CUDAExecutionProvider"),
        (["TensorrtExecutionProvider", "CUDAExecutionProvider"], "GPU", "TensorrtExecutionProvider"),
        (["OpenVINOExecutionProvider", "CPUExecutionProvider"], "GPU", "OpenVINOExecutionProvider"),
        (["OpenVINOExecutionProvider", "CPUExecutionProvider"], "NPU", "OpenVINOExecutionProvider"),
    ],
)
def test_the_quickest_provider_for_a_device_is_taken(available, device, expected):
    assert _provider(available, device)[0] == expected


def test_a_build_without_a_provider_says_what_it_has():
    with pytest.raises(RuntimeError, match=r"no provider for a NPU \(it has CPUExecutionProvider\)"):
        _provider(["CPUExecutionProvider"], "NPU")


def test_onnx_runtime_computes_where_it_says(pack):
    engine = OnnxRuntimeEngine(pack.network("onnxruntime", "f32"), pack.manifest.input.patch, 2)
    assert engine.device == "CPU"
    assert engine._session.get_providers() == ["CPUExecutionProvider"]


def test_a_file_with_tiles_of_its_own_takes_no_others(pack):
    with pytest.raises(RuntimeError, match="voxels only"):
        OnnxRuntimeEngine(pack.network("onnxruntime", "f32"), (64, 64, 64), 2)


class Stand:
    """A network of two channels on a device that stops after some tiles."""

    name, precision, patch = "stand-in", "f32", (8, 8, 8)

    def __init__(self, device="CPU", last=10**6, label=1):
        self.device, self.last, self.label, self.runs = device, last, label, 0

    def run(self, hu):
        self.runs += 1
        if self.runs > self.last:
            raise RuntimeError("the driver has gone")
        logits = np.zeros((3, *hu.shape), np.float32)
        logits[self.label] = 1
        return logits


def prepared(shape, **changes):
    pack = load(shipped_folders()[0])
    wanted = pack.manifest.input.model_copy(update={"skip_air": False, "patch": (8, 8, 8), **changes})
    affine = np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
    return (
        Volume(np.zeros(shape, np.int16), affine),
        dataclasses.replace(pack, manifest=pack.manifest.model_copy(update={"input": wanted})),
    )


def test_a_device_that_stops_in_the_middle_leaves_no_label_behind():
    """The first tiles came from the device, and the whole scan from the CPU."""
    volume, pack = prepared((20, 8, 8))
    engine = SteadyEngine(Stand("GPU", last=1, label=1), lambda: Stand("CPU", label=2), (8, 8, 8))
    with capture_logs() as logs:
        labels, _ = network_labels(volume, pack, engine)
    assert (labels == 2).all()
    assert engine.device == "CPU"
    assert [entry["event"] for entry in logs] == ["device_failed"]


def test_a_cpu_that_stops_is_a_sentence():
    volume, pack = prepared((20, 8, 8))
    with pytest.raises(InferenceError, match=r"Pack trunk .*stand-in, f32, CPU.*: the driver has gone"):
        network_labels(volume, pack, Stand(last=0))


def test_a_network_that_answers_with_no_number_labels_nothing():
    volume, pack = prepared((8, 8, 8))
    engine = Stand()
    engine.run = lambda hu: np.full((3, *hu.shape), np.nan, np.float32)
    with pytest.raises(InferenceError, match="not finite"):
        network_labels(volume, pack, engine)


def test_another_tile_than_the_manifests_is_the_engines():
    volume, pack = prepared((20, 8, 8))
    seen = []
    engine = Stand()
    engine.patch = (10, 8, 8)
    inner = engine.run
    engine.run = lambda hu: seen.append(hu.shape) or inner(hu)
    network_labels(volume, pack, engine)
    assert set(seen) == {(10, 8, 8)}


def test_an_unknown_operator_is_named(pack, quantised):
    quantised.write_text(quantised.read_text().replace('type="ReLU"', 'type="Quux"'))
    network = Network(engine="openvino", precisions=("int8",), path=quantised.name)
    spoilt = dataclasses.replace(
        pack, path=quantised.parent, manifest=pack.manifest.model_copy(update={"networks": (network,)})
    )
    with pytest.raises(InferenceError, match=r"operators that it does not know \(Quux\)"):
        open_engine(spoilt, engine="openvino", precision="int8")
