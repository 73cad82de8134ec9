"""From trained weights to the pack's network: one ONNX file with half-precision weights; quantise.py makes its twin.

python export.py --run RUN --pack ../../trunk
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from network import Trunk
from onnx import TensorProto, helper, numpy_helper

#: Most chests at 3 mm fit into one tile of this shape.
PATCH = (128, 112, 160)


def to_onnx(network: Trunk, path: Path) -> None:
    """Write ONNX whose weights are stored in half precision and cast to single when it is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        torch.onnx.export(
            network,
            (torch.zeros(1, 1, *PATCH),),
            str(plain),
            input_names=["hu"],
            output_names=["logits"],
            opset_version=17,
            dynamo=False,
        )
        model = onnx.load(str(plain))
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 256:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float16)
        name, half = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(values, half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    model.producer_name, model.doc_string = "appliance", ""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def main() -> None:
    """Export one run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    options = parser.parse_args()
    options.pack.mkdir(parents=True, exist_ok=True)
    state = torch.load(options.run / "last.pt", weights_only=True)
    network = Trunk().eval()
    network.load_state_dict(state["average"])
    # Until it is packaged again it is no pack: manifest and INT8 belong to the weights before.
    for name in ("pack.toml", "trunk_int8.xml", "trunk_int8.bin"):
        (options.pack / name).unlink(missing_ok=True)
    to_onnx(network, options.pack / "trunk.onnx")
    print(f"exported step {state['step']}")


if __name__ == "__main__":
    main()
