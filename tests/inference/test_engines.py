import os
import subprocess
import sys

import numpy as np
import pytest

from appliance.errors import InferenceError, PackError
from appliance.inference import with_openvino
from appliance.inference.engines import OpenVinoEngine, open_engine
from appliance.inference.logits import labels_of, single
from appliance.inference.tiling import label_tiles


def labels(engine, tile):
    return labels_of(engine.run(tile))


@pytest.mark.slow
def test_openvino_and_onnx_runtime_agree(pack, tile):
    first = labels(open_engine(pack, engine="openvino", precision="f32"), tile)
    second = labels(open_engine(pack, engine="onnxruntime", precision="f32"), tile)
    assert (first == second).mean() >= 0.995


def test_single_precision_is_really_single(pack):
    assert open_engine(pack, engine="openvino", precision="f32").precision == "f32"


def test_auto_takes_openvino(pack):
    engine = open_engine(pack)
    assert engine.name == "openvino"
    assert engine.device == "CPU"


def test_auto_falls_back_to_onnx_runtime(pack, monkeypatch):
    def broken():
        raise ImportError("libopenvino.so: cannot open shared object file")

    monkeypatch.setattr(with_openvino, "import_openvino", broken)
    engine = open_engine(pack)
    assert (engine.name, engine.precision) == ("onnxruntime", "f32")


def test_no_engine_at_all_is_a_sentence(pack, monkeypatch):
    def broken():
        raise ImportError("libopenvino.so is missing")

    monkeypatch.setattr(with_openvino, "import_openvino", broken)
    with pytest.raises(InferenceError, match=r"libopenvino\.so is missing"):
        open_engine(pack, engine="openvino")


def test_a_precision_that_the_pack_lacks_is_a_sentence(pack):
    with pytest.raises(PackError, match="no network for precision int8"):
        open_engine(pack, engine="onnxruntime", precision="int8")


def test_a_damaged_network_is_a_sentence(pack, tmp_path):
    from dataclasses import replace

    for network in pack.manifest.networks:
        (tmp_path / network.path).write_bytes(b"nonsense")
    with pytest.raises(InferenceError, match="cannot be run"):
        open_engine(replace(pack, path=tmp_path))


def test_the_compiled_model_can_be_cached(pack, tmp_path):
    open_engine(pack, engine="openvino", precision="f32", cache=tmp_path)
    assert any(tmp_path.iterdir())


def test_openvino_never_loads_its_telemetry_and_needs_no_home(tmp_path):
    code = (
        "import sys\n"
        "from appliance.inference.engines import import_openvino\n"
        "import_openvino().Core()\n"
        "assert not any(m.startswith('openvino_telemetry') and sys.modules[m] for m in sys.modules)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in {"HOME", "XDG_CONFIG_HOME"}}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_same_tile_gives_the_same_labels_twice(pack, tile):
    engine = open_engine(pack)
    assert np.array_equal(labels(engine, tile), labels(engine, tile))


def test_int8_is_really_int8(quantised):
    assert OpenVinoEngine(quantised, (16, 16, 16), "int8", 2, None).precision == "int8"


@pytest.mark.slow
def test_bf16_answers_in_its_own_bits_where_the_processor_has_it(pack, tile):
    engine = open_engine(pack, engine="openvino", precision="bf16")
    answer = engine.run(tile)
    assert answer.dtype == (np.uint16 if engine.precision == "bf16" else np.float32)
    assert np.isfinite(single(answer)).all()
    exact = labels(open_engine(pack, engine="openvino", precision="f32"), tile)
    assert (labels_of(answer) == exact).mean() > 0.99


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_answers_in_bf16_that_are_no_numbers_or_too_large_are_refused(bad):
    values = np.ones((2, 4, 4, 4), np.float32)
    values[1, 3, 3, 3] = bad
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    with pytest.raises(InferenceError, match="not finite"):
        label_tiles(np.zeros((4, 4, 4), np.int16), lambda _: bits, patch=(4, 4, 4), overlap=0.5, fill_hu=0)
