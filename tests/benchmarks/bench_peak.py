"""How much of this machine's own INT8 peak a network reaches: operations a second, measured in turns in one process.

The peak is the best of several stacks of large quantised convolutions. Beside them run a U-Net made as quantisable
networks should be (BatchNorm folded into the convolution, ReLU, widths that are multiples of 16), the same in other
widths, and the same behind InstanceNorm and LeakyReLU, as nnU-Net has them; weights are random, which no kernel
notices. Where NNCF is installed, the shipped network is quantised with one tile and runs too.

Run as ``python tests/benchmarks/bench_peak.py [--rounds N] [--json]``; prints a Markdown table. Take it from a quiet
machine: both threads must have their core for the whole of a run, or the ratio tells of the neighbours.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from appliance.inference.openvino_graph import put_channels_last
from appliance.inference.with_openvino import import_openvino

THREADS = 2
AIM = 0.7
#: Channels and places of the convolutions whose best is taken for the machine's peak.
LARGE = ((128, (32, 32, 32)), (256, (16, 32, 32)), (256, (32, 32, 32)), (512, (16, 16, 16)))
PATCH = (128, 128, 128)
#: Widths of the U-Net from fine to coarse.
WIDTHS, ODD_WIDTHS = (16, 32, 64, 128, 128), (12, 24, 44, 84, 84)
OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "INFERENCE_NUM_THREADS": THREADS,
}


def operations(network) -> int:
    """Multiplications and additions of a network's convolutions."""
    total = 0
    for op in network.get_ordered_ops():
        kind = op.get_type_name()
        if kind not in {"Convolution", "ConvolutionBackpropData"}:
            continue
        weights = list(op.input(1).get_shape())  # out, in, … ; a transposed convolution's are in, out, …
        places = list(op.output(0).get_shape() if kind == "Convolution" else op.input(0).get_shape())[2:]
        total += 2 * int(np.prod(weights)) * int(np.prod(places))
    return total


class Layers:
    """Quantised layers with random weights."""

    def __init__(self, *, normalised: bool = False) -> None:
        self._ops = import_openvino().opset13
        self._random = np.random.default_rng(0)
        self._normalised = normalised

    def quantised(self, values, low: float, high: float, levels: int):
        ends = [self._ops.constant(np.float32(end)) for end in (low, high)]
        return self._ops.fake_quantize(values, *ends, *ends, levels)

    def weights(self, *shape: int):
        values = self._random.normal(0, 0.02, shape).astype(np.float32)
        most = float(np.abs(values).max())
        return self.quantised(self._ops.constant(values), -most, most, 255)

    def convolution(self, values, inputs: int, outputs: int, stride: int = 1):
        """3³ convolution, bias and ReLU; or InstanceNorm and LeakyReLU."""
        low = -0.05 if self._normalised else 0.0
        convolved = self._ops.convolution(
            self.quantised(values, low, 2.5, 256),
            self.weights(outputs, inputs, 3, 3, 3),
            [stride] * 3,
            [1] * 3,
            [1] * 3,
            [1] * 3,
        )
        bias = self._random.normal(0, 0.1, (1, outputs, 1, 1, 1)).astype(np.float32)
        added = self._ops.add(convolved, self._ops.constant(bias))
        if not self._normalised:
            return self._ops.relu(added)
        axes = self._ops.constant(np.array([2, 3, 4]))
        normal = self._ops.mvn(added, axes, True, 1e-5, "inside_sqrt")
        return self._ops.prelu(normal, self._ops.constant(np.float32([0.01])))

    def doubled(self, values, inputs: int, outputs: int):
        """Transposed convolution to twice the size."""
        weights = self.weights(inputs, outputs, 2, 2, 2)
        low = -0.05 if self._normalised else 0.0
        return self._ops.convolution_backprop_data(self.quantised(values, low, 2.5, 256), weights, [2] * 3)

    def model(self, made, channels: int, size: tuple[int, ...]):
        openvino = import_openvino()
        start = self._ops.parameter([1, channels, *size], np.float32)
        return openvino.Model([made(start)], [start])


def large_convolutions(channels: int, size: tuple[int, ...], depth: int = 4):
    layers = Layers()

    def made(values):
        for _ in range(depth):
            values = layers.convolution(values, channels, channels)
        return values

    return layers.model(made, channels, size)


def unet(widths: tuple[int, ...], *, normalised: bool = False):
    """Two convolutions a level, strides down, transposed convolutions up, skips beside them, 16 classes."""
    layers = Layers(normalised=normalised)

    def made(values):
        skips, before = [], 1
        for level, width in enumerate(widths):
            values = layers.convolution(values, before, width, stride=2 if level else 1)
            values = layers.convolution(values, width, width)
            skips.append(values)
            before = width
        skips.pop()
        for width in reversed(widths[:-1]):
            both = layers._ops.concat([layers.doubled(values, before, width), skips.pop()], 1)
            values = layers.convolution(layers.convolution(both, 2 * width, width), width, width)
            before = width
        low, one, none = -0.05 if normalised else 0.0, [1] * 3, [0] * 3
        last = layers.weights(16, before, 1, 1, 1)
        return layers._ops.convolution(layers.quantised(values, low, 2.5, 256), last, one, none, none, one)

    return layers.model(made, 1, PATCH)


def trunk(folder: Path):
    """The shipped network in INT8, which its gate did not let into the pack."""
    from appliance.packs.importing.write import phantom_tile
    from appliance.packs.pack import load
    from appliance.packs.quantising.network import FloatNetwork
    from appliance.packs.registry import shipped_folders

    pack = load(shipped_folders()[0])
    wanted = pack.manifest.input
    network = FloatNetwork(pack.network("onnxruntime", "f32"), wanted.patch)
    network.save(network.quantise([phantom_tile(wanted.patch, wanted)]), folder / "trunk.xml")
    model = import_openvino().Core().read_model(folder / "trunk.xml")
    model.reshape([1, 1, *wanted.patch])
    return model


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Operations and operations a second of each, best of the rounds."""
    core = import_openvino().Core()
    size = " × ".join(map(str, PATCH))
    models = {
        f"convolutions of {channels} channels, {' × '.join(map(str, places))}": large_convolutions(channels, places)
        for channels, places in LARGE
    }
    models |= {
        f"U-Net {'-'.join(map(str, WIDTHS))}, ReLU, {size}": unet(WIDTHS),
        f"U-Net {'-'.join(map(str, ODD_WIDTHS))}, ReLU, {size}": unet(ODD_WIDTHS),
        f"U-Net {'-'.join(map(str, WIDTHS))}, InstanceNorm and LeakyReLU, {size}": unet(WIDTHS, normalised=True),
    }
    runs, best = {}, {}
    with tempfile.TemporaryDirectory() as name:
        if importlib.util.find_spec("nncf"):
            model = trunk(Path(name))
            models[f"shipped trunk network, {' × '.join(map(str, list(model.input(0).shape)[2:]))}"] = model
        for what, model in models.items():
            put_channels_last(model, import_openvino())
            request = core.compile_model(model, "CPU", OPTIONS).create_infer_request()
            values = np.random.default_rng(1).random(list(model.input(0).shape), np.float32)
            request.set_input_tensor(import_openvino().Tensor(values))
            runs[what], best[what] = (operations(model), request.infer), np.inf
        for number in range(rounds + 1):
            for what, (_, run) in runs.items():
                begun = time.perf_counter()
                run()
                if number:
                    best[what] = min(best[what], time.perf_counter() - begun)
    return {
        what: {"gop": count / 1e9, "seconds": best[what], "gops": count / best[what] / 1e9}
        for what, (count, _) in runs.items()
    }


def main() -> None:
    """Measure and print."""
    from appliance.packs.quantising.trial import machine

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    found = measure(options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    large = [what for what in found if what.startswith("convolutions")]
    peak = max(found[what]["gops"] for what in large)
    print(f"\n### INT8 beside the machine's own peak ({machine()}, {THREADS} threads, {datetime.now(UTC).date()})\n")
    print(f"Load before the run: {before:.1f}; best of {options.rounds} rounds in turns.\n")
    print("| INT8 | GOP | best s | GOP/s | of the peak |\n|---|---|---|---|---|")
    for what, one in found.items():
        print(f"| {what} | {one['gop']:.0f} | {one['seconds']:.3f} | {one['gops']:.0f} | {one['gops'] / peak:.2f} |")
    reached = next(one["gops"] / peak for what, one in found.items() if what.startswith("U-Net"))
    print(f"\nAim of {AIM} for a network of such widths {'met' if reached >= AIM else 'missed'} ({reached:.3f}).")


if __name__ == "__main__":
    main()
