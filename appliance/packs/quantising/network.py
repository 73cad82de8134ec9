"""Post-training quantisation of one network with NNCF, and which of its layers bear it worst."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.errors import PackError
from appliance.inference.engines import import_openvino

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_WEIGHTED = frozenset(
    {
        "Convolution",
        "ConvolutionBackpropData",
        "GroupConvolution",
        "GroupConvolutionBackpropData",
        "MatMul",
    }
)
#: Layers' inputs are held in memory in portions of this size when they are compared.
_PORTION_BYTES = 1 << 30
#: A channel that hardly varies is measured against this share of the liveliest one.
_QUIET = 1e-4


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with weights.

    Attributes
    ----------
    name
        In the graph that was read; names that OpenVINO makes up hold only within one process.
    label
        For people and manifests: its number in the graph and its own name, where it has one.
    """

    name: str
    label: str


class FloatNetwork:
    """A network in single precision, ready to be quantised in several ways.

    Parameters
    ----------
    path
        ONNX file or OpenVINO IR.
    patch
        Static shape of a tile.

    Raises
    ------
    PackError
        NNCF is not installed, or the network has no layer that could be quantised.
    """

    def __init__(self, path: Path, patch: tuple[int, int, int]) -> None:
        self._openvino = import_openvino()
        self._nncf = _import_nncf()
        try:
            self._model = self._openvino.Core().read_model(path)
            self._model.reshape([1, 1, *patch])
        except RuntimeError as error:
            raise PackError(f"{path}: OpenVINO cannot read the network: {str(error).strip()[:300]}") from error
        operations = [item for item in self._model.get_ordered_ops() if item.get_type_name() in _WEIGHTED]
        self.layers = tuple(
            Layer(item.get_friendly_name(), f"{number} of {len(operations)}{_own_name(item)}")
            for number, item in enumerate(operations, start=1)
        )
        if not self.layers:
            raise PackError(f"{path}: the network has no layer with weights, so there is nothing to quantise.")

    @property
    def tools(self) -> str:
        """Versions of what quantises."""
        return f"nncf {self._nncf.__version__}, openvino {self._openvino.__version__.partition('-')[0]}"

    def quantise(self, tiles: Sequence[NDArray[np.int16]], kept: Collection[str] = ()) -> Any:
        """Quantise weights and activations to 8 bits after training.

        Parameters
        ----------
        tiles
            Calibration tiles in Hounsfield units.
        kept
            Names of layers that stay in single precision.

        Returns
        -------
        openvino.Model
        """
        nncf = self._nncf
        with _quiet():
            return nncf.quantize(
                self._model,
                nncf.Dataset(tiles, lambda tile: {0: tile.astype(np.float32)[None, None]}),
                # Symmetric weights; activations unsigned after ReLU and with a zero point elsewhere (LeakyReLU).
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(tiles),
                ignored_scope=nncf.IgnoredScope(names=sorted(kept)) if kept else None,
            )

    def save(self, quantised: Any, path: Path) -> None:
        """Write OpenVINO IR: the ``.xml`` file, and its ``.bin`` beside it."""
        self._openvino.save_model(quantised, path, compress_to_fp16=True)

    def harmed_most(self, quantised: Any, tile: NDArray[np.int16]) -> list[str]:
        """Order layers by how much quantising each of them alone spoils its own output.

        Every layer is given its float input on one tile, once with float and once with quantised weights and input.
        Its score is the standard deviation of the difference in its worst channel over that of the float channel; a
        constant error counts nothing, because NNCF corrects it in the bias.

        Parameters
        ----------
        quantised
            Made by :meth:`quantise`; taken to pieces, so write it before.
        tile
            Hounsfield units.

        Returns
        -------
        list[str]
            Names, the worst first; layers that were kept in single precision are last.
        """
        exact = {item.get_friendly_name(): item for item in self._model.clone().get_ops()}
        coarse = {item.get_friendly_name(): item for item in quantised.get_ops()}
        names = [layer.name for layer in self.layers if layer.name in coarse]
        inputs = {name: exact[name].input_value(0) for name in names}
        pairs = {}
        scores = {}
        for portion in _portions(names, inputs):
            # The inputs first: cutting the graph loose layer by layer must not cut them.
            tensors = self._tensors([self._named_output(inputs[name]) for name in portion], tile)
            for name, tensor in zip(portion, tensors, strict=True):
                pairs[name] = tensor.shape
                scores[name] = _score(self._alone(exact[name], tensor), self._alone(coarse[name], tensor))
        return sorted(names, key=lambda name: scores[name], reverse=True)

    def _named_output(self, output: Any) -> tuple[str, int]:
        return output.get_node().get_friendly_name(), output.get_index()

    def _tensors(self, outputs: Sequence[tuple[str, int]], tile: NDArray[np.int16]) -> list[NDArray[np.float32]]:
        model = self._model.clone()
        found = {item.get_friendly_name(): item for item in model.get_ops()}
        wanted = [found[name].output(index) for name, index in outputs]
        observed = self._openvino.Model(wanted, model.get_parameters())
        return [result.copy() for result in self._run(observed, tile.astype(np.float32)[None, None])]

    def _alone(self, operation: Any, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one layer with the quantisers before it, given the tensor that comes before those."""
        first = operation.input(0)
        while first.get_source_output().get_node().get_type_name() == "FakeQuantize":
            first = first.get_source_output().get_node().input(0)
        parameter = self._openvino.opset13.parameter(list(tensor.shape), np.float32)
        first.replace_source_output(parameter.output(0))
        single = self._openvino.Model([operation.output(0)], [parameter])
        return self._run(single, tensor)[0]

    def _run(self, model: Any, tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        compiled = self._openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        request = compiled.create_infer_request()
        request.infer({0: tensor})
        return [request.get_output_tensor(index).data for index in range(len(compiled.outputs))]


def _score(exact: NDArray[np.float32], coarse: NDArray[np.float32]) -> float:
    flat = exact[0].reshape(exact.shape[1], -1)
    spread = flat.std(axis=1)
    error = (coarse[0].reshape(flat.shape) - flat).std(axis=1)
    return float((error / (spread + _QUIET * spread.max() + np.finfo(np.float32).tiny)).max())


def _portions(names: Sequence[str], inputs: dict[str, Any]) -> Iterator[list[str]]:
    portion: list[str] = []
    size = 0
    for name in names:
        own = 4 * int(np.prod(list(inputs[name].get_shape())))
        if portion and size + own > _PORTION_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(name)
        size += own
    if portion:
        yield portion


def _own_name(operation: Any) -> str:
    name = str(operation.get_friendly_name())
    made_up = name.startswith(operation.get_type_name() + "_")
    return "" if made_up else f": {name.removesuffix('/WithoutBiases')}"


def _import_nncf() -> Any:
    try:
        import nncf
    except ImportError as error:
        raise PackError(
            "Quantising needs NNCF, which is not installed; on a workstation: pip install 'appliance[import]'. It is "
            "not needed on the box."
        ) from error
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's progress bars and notes off a screen that has its own."""
    import io

    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
