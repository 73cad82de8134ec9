"""What is changed in a network's graph for OpenVINO's sake: how it lies in memory, and nothing that it computes."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

#: Raise it when what is done before compiling changes, so that networks compiled before are compiled anew.
LAYOUT = 2


def put_channels_last(network: Any, openvino: Any, *, bf16: bool = False) -> bool:
    """Let a network that labels voxels give the channels of each voxel side by side, and say whether it does.

    That is how convolutions leave them; bringing them into another order would cost a pass over the whole answer.

    Parameters
    ----------
    network
        ``openvino.Model``; changed in place.
    openvino
        The module.
    bf16
        Give the bits of bf16: where that is what a network is computed in, single precision only doubles the memory.
    """
    output = network.output(0)
    if len(output.get_partial_shape()) != len("nczyx"):
        return False
    changed = openvino.preprocess.PrePostProcessor(network)
    changed.output(0).model().set_layout(openvino.Layout("NCDHW"))
    changed.output(0).tensor().set_layout(openvino.Layout("NDHWC"))
    if bf16:
        changed.output(0).tensor().set_element_type(openvino.Type.bf16)
    changed.build()
    return True


def part_concatenations(network: Any, openvino: Any) -> int:
    """Convolve each part of a concatenation by itself and add what comes of it; return how many were parted.

    A U-Net's decoder concatenates what was upsampled with what its encoder left, and convolves both. With the channels
    of a voxel side by side that concatenation is a copy, the largest thing in memory while it is made. Convolution is
    linear: the weights are cut along their input channels instead, and the second convolution adds onto the first.
    Quantised convolutions stay as they are, for their sums would leave 8 bits.
    """
    ops = openvino.opset13
    parted = 0
    for convolution in network.get_ordered_ops():
        if convolution.get_type_name() != "Convolution":
            continue
        whole, weights = convolution.input_value(0).get_node(), convolution.input_value(1)
        # Of floating-point weights OpenVINO cuts and folds the constant when it compiles.
        if not (whole.get_type_name() == "Concat" and _of_channels(whole) and _constant(weights.get_node())):
            continue
        said = convolution.get_attributes()
        layout = [said[name] for name in ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")]
        given, start = [], 0
        for part in whole.input_values():
            end = start + part.get_shape()[1]
            cut = ops.slice(weights, *(np.array([number]) for number in (start, end, 1, 1)))
            given.append(ops.convolution(part, cut, *layout))
            start = end
        for target in convolution.output(0).get_target_inputs():
            target.replace_source_output(reduce(ops.add, given).output(0))
        parted += 1
    if parted:
        network.validate_nodes_and_infer_types()
    return parted


def fold_constants(network: Any) -> None:
    """Compute what depends on constants alone; shapes must be static.

    ONNX adds a bias through a chain of operations that bring it into shape. NNCF corrects biases of quantised layers
    only where it finds a constant, and says nothing where it finds none.
    """
    from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(network)


def upsample_by_shuffling(network: Any, openvino: Any) -> int:
    """Compute transposed convolutions whose steps do not overlap as convolutions of 1³, and shuffle; return how many.

    Each voxel then gives the channels of the block of voxels that it becomes, which are put into their places: the same
    products and sums (Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network, 2016). OpenVINO leaves a quantised transposed convolution in floating point where its
    input has a zero point, as behind LeakyReLU, and then holds its answer several times in single precision. Behind a
    ReLU there is none, and the transposed convolution is the quicker one.

    Parameters
    ----------
    network
        ``openvino.Model`` in floating point; changed in place. A block that is no cube, and one behind a ReLU, are left
        as they are.
    openvino
        The module.
    """
    ops = openvino.opset13
    changed = 0
    for upsampling in network.get_ordered_ops():
        if upsampling.get_type_name() != "ConvolutionBackpropData":
            continue
        constant, said = upsampling.input_value(1).get_node(), upsampling.get_attributes()
        if not _constant(constant) or upsampling.input_value(0).get_node().get_type_name() == "Relu":
            continue
        weights = _values(constant)
        inputs, outputs, *block = weights.shape
        unpadded = not any((*said["pads_begin"], *said["pads_end"], *said["output_padding"]))
        if len(set(block)) > 1 or list(said["strides"]) != block or set(said["dilations"]) != {1} or not unpadded:
            continue
        # (inputs, outputs, z, y, x) to a row for each channel and place in a block, in the order of the shuffling.
        rows = np.ascontiguousarray(np.moveaxis(weights, 0, -1).reshape(-1, inputs, 1, 1, 1))
        one, nothing = [1] * len(block), [0] * len(block)
        given = ops.convolution(upsampling.input_value(0), ops.constant(rows), one, nothing, nothing, one)
        given.set_friendly_name(upsampling.get_friendly_name())
        last, bias = upsampling, bias_of(upsampling)
        if bias is not None:
            values = _values(bias.get_source_output().get_node())
            if values.size == outputs:
                each = np.repeat(values.ravel(), rows.shape[0] // outputs).reshape(1, -1, 1, 1, 1)
                last, given = bias.get_node(), ops.add(given, ops.constant(each))
        whole = ops.depth_to_space(given, "depth_first", block[0])
        for target in last.output(0).get_target_inputs():
            target.replace_source_output(whole.output(0))
        changed += 1
    if changed:
        network.validate_nodes_and_infer_types()
    return changed


def bias_of(layer: Any) -> Any:
    """Return the input of the addition behind a layer that a constant feeds; ``None`` where there is none."""
    consumers = list(layer.output(0).get_target_inputs())
    if len(consumers) != 1 or consumers[0].get_node().get_type_name() != "Add":
        return None
    other = consumers[0].get_node().input(1 - consumers[0].get_index())
    return other if _constant(other.get_source_output().get_node()) else None


def _values(constant: Any) -> Any:
    if constant.get_type_name() == "Convert":
        constant = constant.input_value(0).get_node()
    return constant.get_data().astype(np.float32)


def _constant(node: Any) -> bool:
    """Whether a node is a constant, stored in single or half precision."""
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant" and node.get_element_type().is_real())


def _of_channels(concatenation: Any) -> bool:
    """Whether channels are put side by side, all in floating point and of a shape that is known."""
    axis, parts = concatenation.get_attributes()["axis"], concatenation.input_values()
    return axis in {1, 1 - len(concatenation.output(0).get_partial_shape())} and not any(
        part.get_node().get_type_name() == "FakeQuantize" or part.get_partial_shape().is_dynamic for part in parts
    )
