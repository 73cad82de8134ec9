"""One network, quantised in several ways; and which of its layers bears it worst."""

import numpy as np
import pytest

from appliance.errors import PackError
from appliance.inference.engines import OpenVinoEngine, import_openvino
from appliance.inference.logits import labels_of
from appliance.packs.quantising.network import FloatNetwork
from tests.quantising.conftest import BONE, CHANNELS, PATCH, Graph, logits, one_bad_layer, scan, sound

pytest.importorskip("nncf", reason="the extra `import` is not installed, so nothing can be quantised")


@pytest.fixture
def network_of(tmp_path):
    def write(build) -> FloatNetwork:
        graph = Graph()
        build(graph)
        graph.save(tmp_path / "network.xml")
        return FloatNetwork(tmp_path / "network.xml", PATCH)

    return write


@pytest.fixture
def tiles():
    """Two tiles with bone."""
    return [scan(seed)[4:36, 12:44, 4:36].copy() for seed in (1, 2)]


def test_layers_are_numbered_in_the_order_of_the_graph(network_of):
    assert [layer.label for layer in network_of(sound).layers] == [f"{n + 1} of 4: layer_{n}" for n in range(4)]


@pytest.mark.slow
def test_the_layer_that_loses_bone_is_ranked_first(network_of, tiles):
    network = network_of(one_bad_layer)
    assert network.harmed_most(network.quantise(tiles), tiles, {BONE})[0] == "layer_3"


@pytest.mark.slow
def test_ranking_leaves_the_float_network_as_it_was(network_of, tiles):
    network = network_of(one_bad_layer)
    first = network.harmed_most(network.quantise(tiles), tiles, {BONE})
    assert network.harmed_most(network.quantise(tiles), tiles, {BONE}) == first


def test_what_is_saved_is_computed_in_int8(network_of, tiles, tmp_path):
    network = network_of(sound)
    network.save(network.quantise(tiles), tmp_path / "int8.xml")
    engine = OpenVinoEngine(tmp_path / "int8.xml", PATCH, "int8", 1, None)
    exact = OpenVinoEngine(tmp_path / "network.xml", PATCH, "f32", 1, None).run(tiles[1]).argmax(axis=0)
    assert engine.precision == "int8"
    assert np.mean(labels_of(engine.run(tiles[1])) == exact) > 0.99


def test_a_kept_layer_has_no_quantisers(network_of, tiles):
    network = network_of(sound)
    quantised = network.quantise(tiles, {"layer_1"})
    found = {
        item.get_friendly_name(): item.input_value(0).get_node().get_type_name()
        for item in quantised.get_ops()
        if item.get_friendly_name().startswith("layer_")
    }
    assert found["layer_1"] != "FakeQuantize"
    assert found["layer_2"] == "FakeQuantize"


def test_a_network_without_weights_is_refused(tmp_path):
    openvino = import_openvino()
    hu = openvino.opset13.parameter([1, 1, *PATCH], np.float32)
    openvino.save_model(openvino.Model([openvino.opset13.relu(hu)], [hu]), tmp_path / "network.xml")
    with pytest.raises(PackError, match="nothing to quantise"):
        FloatNetwork(tmp_path / "network.xml", PATCH)


def test_a_damaged_network_is_refused(tmp_path):
    (tmp_path / "network.xml").write_text("<net")
    with pytest.raises(PackError, match="cannot read the network"):
        FloatNetwork(tmp_path / "network.xml", PATCH)


def biases(model) -> list[np.ndarray]:
    """Constants that are added behind convolutions."""
    added = [item for item in model.get_ordered_ops() if item.get_type_name() == "Add"]
    return [node.get_data() for item in added if (node := item.input_value(1).get_node()).get_type_name() == "Constant"]


def shaped_bias(graph) -> None:
    """A layer whose bias is brought into shape by operations, as in what is read from ONNX; its weights round badly."""
    random, ops = np.random.default_rng(4), graph.ops
    graph.conv(random.uniform(0, 1, (CHANNELS, 1, 3, 3, 3)), relu=True)
    graph.conv(random.uniform(-0.2, 1, (CHANNELS, CHANNELS, 3, 3, 3)) ** 3, relu=False)
    shape = ops.concat([ops.constant([1]), ops.constant([CHANNELS]), ops.constant([1, 1, 1])], 0)
    graph.last = ops.relu(ops.add(graph.last, ops.reshape(ops.constant(np.ones(CHANNELS, np.float32)), shape, False)))
    logits(graph)


@pytest.mark.slow
def test_a_bias_that_comes_in_shape_by_operations_is_corrected_too(network_of, tiles):
    (corrected,) = (values for values in biases(network_of(shaped_bias).quantise(tiles)) if values.size == CHANNELS)
    assert not np.allclose(corrected, 1.0, atol=1e-4)
