"""Is INT8 worth having outside OpenVINO? Seconds for a tile and labels kept, OpenVINO's INT8 beside ONNX's (QDQ).

The network of the shipped pack is quantised by NNCF for OpenVINO and by ONNX Runtime's own tool into ONNX with
QuantizeLinear/DequantizeLinear pairs, activations once unsigned and once signed; both engines run both. Calibrated and
compared on the built-in phantom, so the agreement is synthetic; the times are not. Contenders take turns.

Run as ``python tests/benchmarks/bench_quantised.py``; needs the extra ``import``; prints a Markdown table.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

THREADS = 2
ROUNDS = 7


class Tiles:
    """Feeds ONNX Runtime's calibration."""

    def __init__(self, name: str, tiles: list[np.ndarray]) -> None:
        self._left = [{name: tile.astype(np.float32)[None, None]} for tile in tiles]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


def as_qdq(model: Path, tiles: list[np.ndarray], out: Path, *, signed: bool) -> Path:
    """Quantise ONNX with ONNX Runtime's tool: 8 bits, weights per channel."""
    import onnx
    from onnxruntime import quantization as q

    logging.getLogger().setLevel(logging.ERROR)  # it recommends a step that nothing here needs

    # Weights in half precision stand behind a cast, which the tool does not look through.
    prepared = out.with_suffix(".plain.onnx")
    single = onnx.load(str(model))
    halves = {tensor.name: tensor for tensor in single.graph.initializer}
    for node in [node for node in single.graph.node if node.op_type == "Cast" and node.input[0] in halves]:
        tensor = halves[node.input[0]]
        values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, node.output[0]))
        single.graph.node.remove(node)
    onnx.save(single, str(prepared))
    q.quantize_static(
        str(prepared),
        str(out),
        Tiles(single.graph.input[0].name, tiles),
        quant_format=q.QuantFormat.QDQ,
        activation_type=q.QuantType.QInt8 if signed else q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
        per_channel=True,
    )
    return out


def contenders(folder: Path) -> tuple[dict[str, object], np.ndarray]:
    from appliance.inference.engines import OnnxRuntimeEngine, OpenVinoEngine
    from appliance.packs.importing.write import phantom_tile
    from appliance.packs.pack import load
    from appliance.packs.quantising.network import FloatNetwork
    from appliance.packs.registry import shipped_folders

    pack = load(shipped_folders()[0])
    patch, model = pack.manifest.input.patch, pack.network("onnxruntime", "f32")
    tile = phantom_tile(patch, pack.manifest.input)
    network = FloatNetwork(model, patch)
    network.save(network.quantise([tile]), folder / "int8.xml")
    unsigned = as_qdq(model, [tile], folder / "unsigned.onnx", signed=False)
    signed = as_qdq(model, [tile], folder / "signed.onnx", signed=True)

    def openvino(path: Path, precision: str) -> OpenVinoEngine:
        return OpenVinoEngine(path, patch, precision, THREADS, None)

    return {
        "OpenVINO f32": openvino(model, "f32"),
        "OpenVINO bf16": openvino(model, "bf16"),
        "OpenVINO INT8 (NNCF)": openvino(folder / "int8.xml", "int8"),
        "OpenVINO INT8 (QDQ, unsigned activations)": openvino(unsigned, "int8"),
        "OpenVINO INT8 (QDQ, signed activations)": openvino(signed, "int8"),
        "ONNX Runtime f32": OnnxRuntimeEngine(model, patch, THREADS),
        "ONNX Runtime INT8 (QDQ, unsigned activations)": OnnxRuntimeEngine(unsigned, patch, THREADS),
        "ONNX Runtime INT8 (QDQ, signed activations)": OnnxRuntimeEngine(signed, patch, THREADS),
    }, tile


def main() -> None:
    missing = [name for name in ("nncf", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not measured: {', '.join(missing)} not installed (extra `import`)")
        sys.exit(0)
    from appliance.inference.logits import labels_of
    from appliance.packs.quantising.trial import machine
    from appliance.packs.selftest import agreement

    with tempfile.TemporaryDirectory() as folder:
        engines, tile = contenders(Path(folder))
        labels = {name: labels_of(engine.run(tile)) for name, engine in engines.items()}
        best = dict.fromkeys(engines, np.inf)
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                begun = time.perf_counter()
                engine.run(tile)
                best[name] = min(best[name], time.perf_counter() - begun)
    print(f"\n## INT8 of the trunk pack, one tile ({machine()}, {THREADS} threads, {datetime.now(UTC).date()})\n")
    print(
        "| engine | computed in | best s | times as fast as OpenVINO f32 | equal labels (phantom, without background) |"
    )
    print("|---|---|---|---|---|")
    for name, engine in engines.items():
        share = agreement(labels[name], labels["OpenVINO f32"])
        used = engine.precision if name.startswith("OpenVINO") else "not said"
        print(f"| {name} | {used} | {best[name]:.3f} | {best['OpenVINO f32'] / best[name]:.1f} | {share:.4f} |")


if __name__ == "__main__":
    main()
