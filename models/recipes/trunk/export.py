"""From trained weights to the pack's files: one ONNX file with half-precision weights, and its INT8 twin by NNCF.

python export.py --run RUN --data FOLDER --pack ../../trunk
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from dataset import Patches, _window
from network import Trunk
from onnx import TensorProto, helper, numpy_helper

from appliance.inference.engines import import_openvino

#: Most chests at 3 mm fit into one tile of this shape.
PATCH = (128, 112, 160)
CALIBRATION_PATCHES = 24


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


def calibration(folders: list[Path]) -> list[np.ndarray]:
    """Whole tiles of real training scans, as the appliance will cut them; held-out scans never."""
    patches = Patches(folders, PATCH, seed=11, phantom_share=0.15)
    random = np.random.default_rng(11)
    tiles = []
    for index in range(CALIBRATION_PATCHES):
        if index % 3 == 2:
            tiles.append(patches.draw()[0][None].numpy().astype(np.float32))
            continue
        _, hu, _ = patches.real[index % len(patches.real)]
        size = np.asarray(PATCH)
        slack = np.asarray(hu.shape) - size
        start = np.where(slack > 0, random.integers(0, np.maximum(slack, 0) + 1), slack // 2)
        tiles.append(_window(hu, start, size, -1024).astype(np.float32)[None, None])
    return tiles


def quantise(onnx_path: Path, tiles: list[np.ndarray], path: Path) -> None:
    """Quantise weights and activations to 8 bits after training and write OpenVINO IR."""
    openvino = import_openvino()
    import nncf

    model = openvino.Core().read_model(onnx_path)
    dataset = nncf.Dataset(tiles, lambda tile: {0: tile})
    quantised = nncf.quantize(
        model,
        dataset,
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(tiles),
    )
    openvino.save_model(quantised, path, compress_to_fp16=True)


def main() -> None:
    """Export one run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--pack", type=Path, required=True)
    options = parser.parse_args()
    options.pack.mkdir(parents=True, exist_ok=True)
    state = torch.load(options.run / "last.pt", weights_only=True)
    network = Trunk().eval()
    network.load_state_dict(state["average"])
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        to_onnx(network, made / "trunk.onnx")
        quantise(made / "trunk.onnx", calibration(options.data), made / "trunk_int8.xml")
        for name in ("trunk.onnx", "trunk_int8.xml", "trunk_int8.bin"):
            shutil.copyfile(made / name, options.pack / name)
    print(f"exported step {state['step']}")


if __name__ == "__main__":
    main()
