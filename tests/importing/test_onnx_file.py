"""A plain ONNX file needs a specification; with it, it becomes a pack like any other."""

import numpy as np
import pytest

from appliance.errors import PackError
from appliance.packs.importing.onnx_file import import_onnx

onnx = pytest.importorskip("onnx", reason="the extra `import` is not installed")
pytest.importorskip("torch", reason="the extra `import` is not installed")
pytest.importorskip("dynamic_network_architectures", reason="the extra `import` is not installed")

SPEC = """
[input]
orientation = "head-front-right"
spacing_mm = [3.0, 3.0, 3.0]
patch = [8, 12, 16]
overlap = 0.25
fill_hu = -1024

[scaling]
low_hu = -100.0
high_hu = 300.0
subtract = 100.0
divide = 50.0

[classes]
soft = 1
hard = 2

[structures]
soft = "body"
hard = "bone"
"""


def write_network(path, *, operator="Relu", shape=(1, 1, "d", "h", "w"), inputs=1):
    """Channels 0, 1, 2: zero, the scaled image, twice the scaled image less three."""
    helper, proto = onnx.helper, onnx.TensorProto
    places = [helper.make_tensor_value_info(f"x{i}", proto.FLOAT, shape) for i in range(inputs)]
    answer = helper.make_tensor_value_info("y", proto.FLOAT, (1, 3, *shape[2:]))
    weights = [
        onnx.numpy_helper.from_array(np.array([0, 1, 2], np.float32).reshape(3, 1, 1, 1, 1), "w"),
        onnx.numpy_helper.from_array(np.array([0, 0, -3], np.float32), "b"),
    ]
    nodes = [helper.make_node(operator, ["x0"], ["r"]), helper.make_node("Conv", ["r", "w", "b"], ["y"])]
    graph = helper.make_graph(nodes, "g", places, [answer], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path / "spec.toml"


def test_a_file_becomes_a_pack_that_takes_hounsfield_units(tmp_path, spec, said):
    from appliance.inference.engines import open_engine

    pack = import_onnx(write_network(tmp_path / "n.onnx"), spec, tmp_path / "out", said)
    assert pack.structures == {"body": 1, "bone": 2}
    assert pack.manifest.input.orientation == "head-front-right"
    for engine in ("openvino", "onnxruntime"):
        tile = np.full((8, 12, 16), 250, np.int16)
        tile[0] = 2000
        logits = open_engine(pack, engine=engine, precision="f32", threads=2).run(tile)
        assert np.allclose(logits[:, 0, 0, 0], [0, 4, 5], atol=0.01)
        assert np.allclose(logits[:, 1, 0, 0], [0, 3, 3], atol=0.01)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inputs": 2}, "2 inputs"),
        ({"shape": (1, 1, 9, "h", "w")}, "which is not"),
        ({"operator": "NoSuchOperator"}, "not an ONNX file, or damaged.*NoSuchOperator"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, spec, said, changes, sentence):
    with pytest.raises(PackError, match=sentence):
        import_onnx(write_network(tmp_path / "n.onnx", **changes), spec, tmp_path / "out", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_file_is_refused(tmp_path, spec, said, share):
    path = write_network(tmp_path / "n.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PackError, match="not an ONNX file"):
        import_onnx(path, spec, tmp_path / "out", said)


def test_a_network_that_answers_nan_is_refused(tmp_path, spec, said):
    with pytest.raises(PackError, match="NaN"):
        import_onnx(write_network(tmp_path / "n.onnx", operator="Log"), spec, tmp_path / "out", said)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"head-front-right"', '"upwards"', "three axes"),
        ("[classes]", "[classses]", "classes"),
        ("divide = 50.0", "divide = 0", "divide"),
        ('hard = "bone"', 'hard = "stone"', "no structure stone"),
        ("hard = 2", "hard = 7", "at least 8 channels"),
    ],
)
def test_a_wrong_specification_is_told(tmp_path, spec, said, old, new, sentence):
    spec.write_text(SPEC.replace(old, new))
    with pytest.raises(PackError, match=sentence):
        import_onnx(write_network(tmp_path / "n.onnx"), spec, tmp_path / "out", said)
