"""Changing a graph changes what lies in memory, and not what is computed."""

from itertools import pairwise

import numpy as np
import pytest

from appliance.inference.engines import import_openvino
from appliance.inference.openvino_graph import part_concatenations, upsample_by_shuffling

PATCH = (8, 12, 16)


@pytest.fixture
def unet():
    """A U-Net of two levels that concatenates: 4 channels above, 6 below, 3 classes."""
    return build()


def build(*, block=(2, 2, 2), bias=True, quantise=False, half=False, leaky=True):
    openvino = import_openvino()
    ops, rng, one, nothing = openvino.opset13, np.random.default_rng(5), [1] * 3, [0] * 3

    def constant(*shape):
        values = rng.normal(0, 0.3, shape).astype(np.float16 if half else np.float32)
        return ops.convert(ops.constant(values), np.float32) if half else ops.constant(values)

    def convolved(values, inputs, outputs):
        given = ops.convolution(values, constant(outputs, inputs, 3, 3, 3), one, one, one, one)
        given = ops.add(given, constant(1, outputs, 1, 1, 1))
        return ops.prelu(given, ops.constant(np.float32([0.01]))) if leaky else ops.relu(given)

    hu = ops.parameter([1, 1, *PATCH], np.float32)
    left = convolved(hu, 1, 4)
    smaller = ops.max_pool(left, list(block), one, nothing, nothing, list(block)).output(0)
    below = convolved(smaller, 4, 6)
    back = ops.convolution_backprop_data(below, constant(6, 5, *block), strides=list(block))
    if bias:
        back = ops.add(back, constant(1, 5, 1, 1, 1))
    parts = [back, left]
    if quantise:
        ends = [ops.constant(np.float32(end)) for end in (0, 8)]
        parts = [ops.fake_quantize(part, *ends, *ends, 256) for part in parts]
    last = ops.convolution(ops.concat(parts, 1), constant(3, 9, 3, 3, 3), one, one, one, one)
    return openvino.Model([last], [hu])


def answer(network):
    compiled = import_openvino().Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    tile = np.random.default_rng(1).normal(0, 1, (1, 1, *PATCH)).astype(np.float32)
    return compiled(tile)[0].copy()


def kinds(network):
    return [operation.get_type_name() for operation in network.get_ops()]


@pytest.mark.parametrize("half", [False, True], ids=["single", "half"])
def test_a_concatenation_is_convolved_in_parts(half):
    network = build(half=half)
    before = answer(network)
    assert part_concatenations(network, import_openvino()) == 1
    assert "Concat" not in kinds(network)
    assert np.allclose(answer(network), before, atol=1e-5)


def test_what_is_quantised_stays_in_one_piece():
    network = build(quantise=True)
    assert part_concatenations(network, import_openvino()) == 0
    assert "Concat" in kinds(network)


@pytest.mark.parametrize(("axis", "parted"), [(1, 1), (-4, 1), (2, 0)])
def test_only_channels_are_parted(axis, parted):
    openvino = import_openvino()
    ops = openvino.opset13
    hu = ops.parameter([1, 1, *PATCH], np.float32)
    whole = ops.concat([hu, ops.relu(hu)], axis)
    weights = np.random.default_rng(2).normal(0, 1, (3, 2 if parted else 1, 3, 3, 3)).astype(np.float32)
    network = openvino.Model([ops.convolution(whole, ops.constant(weights), [1] * 3, [1] * 3, [1] * 3, [1] * 3)], [hu])
    before = answer(network)
    assert part_concatenations(network, openvino) == parted
    assert np.allclose(answer(network), before, atol=1e-5)


@pytest.mark.parametrize("half", [False, True], ids=["single", "half"])
@pytest.mark.parametrize("bias", [True, False])
def test_upsampling_by_shuffling_gives_the_same(bias, half):
    network = build(bias=bias, half=half)
    before = answer(network)
    assert upsample_by_shuffling(network, import_openvino()) == 1
    assert "ConvolutionBackpropData" not in kinds(network)
    assert np.allclose(answer(network), before, atol=1e-5)


@pytest.mark.parametrize("other", [{"block": (1, 1, 2)}, {"leaky": False}], ids=["no cube", "behind a ReLU"])
def test_what_gains_nothing_is_left_as_it_is(other):
    network = build(**other)
    before = answer(network)
    assert upsample_by_shuffling(network, import_openvino()) == 0
    assert np.array_equal(answer(network), before)


def test_steps_that_overlap_are_left_as_they_are():
    openvino = import_openvino()
    ops = openvino.opset13
    hu = ops.parameter([1, 1, 4, 4, 4], np.float32)
    weights = ops.constant(np.ones((1, 2, 3, 3, 3), np.float32))
    network = openvino.Model([ops.convolution_backprop_data(hu, weights, strides=[2, 2, 2])], [hu])
    assert upsample_by_shuffling(network, openvino) == 0


def test_a_layer_keeps_its_name_and_its_place(unet):
    def names(network):
        found = [o for o in network.get_ordered_ops() if o.get_type_name().startswith("Convolution")]
        return [operation.get_friendly_name() for operation in found]

    before = names(unet)
    upsample_by_shuffling(unet, import_openvino())
    assert names(unet) == before
    assert all(a != b for a, b in pairwise(before))
