"""Post-training quantisation of one network with NNCF, and which of its layers bear it worst."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.errors import PackError
from appliance.inference.engines import import_openvino
from appliance.inference.logits import labels_of
from appliance.inference.openvino_graph import bias_of, fold_constants, upsample_by_shuffling

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
            fold_constants(self._model)
            upsample_by_shuffling(self._model, self._openvino)
        except RuntimeError as error:
            raise PackError(f"{path}: OpenVINO cannot read the network: {str(error).strip()[:300]}") from error
        operations = [item for item in self._model.get_ordered_ops() if item.get_type_name() in _WEIGHTED]
        self.layers = tuple(
            Layer(item.get_friendly_name(), f"{number} of {len(operations)}{_own_name(item)}")
            for number, item in enumerate(operations, start=1)
        )
        self._takes_off_means = any(item.get_type_name() == "MVN" for item in self._model.get_ops())
        if not self.layers:
            raise PackError(f"{path}: the network has no layer with weights, so there is nothing to quantise.")

    @property
    def tools(self) -> str:
        """Versions of what quantises."""
        return f"nncf {self._nncf.__version__}, openvino {self._openvino.__version__.partition('-')[0]}"

    def quantise(self, tiles: Sequence[NDArray[np.int16]], kept: Collection[str] = (), *, widest: bool = False) -> Any:
        """Quantise weights and activations to 8 bits after training.

        Parameters
        ----------
        tiles
            Calibration tiles in Hounsfield units.
        kept
            Names of layers that stay in single precision.
        widest
            Let the ranges of activations hold every tile's extremes instead of their mean: coarser steps, but what few
            tiles show is not cut off.

        Returns
        -------
        openvino.Model
        """
        nncf = self._nncf
        advanced = None
        if widest:
            ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
            advanced = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges)
        with _quiet():
            return nncf.quantize(
                self._model,
                nncf.Dataset(tiles, lambda tile: {0: tile.astype(np.float32)[None, None]}),
                # Symmetric weights; activations unsigned after ReLU and with a zero point elsewhere (LeakyReLU).
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(tiles),
                # The correction that runs the quantised network up to each layer, not the one that looks at it alone:
                # that one made most structures of the trunk network worse. It takes long, and InstanceNorm, which takes
                # off the mean anyway, leaves nothing to correct.
                fast_bias_correction=self._takes_off_means,
                ignored_scope=nncf.IgnoredScope(names=sorted(kept)) if kept else None,
                advanced_parameters=advanced,
            )

    def save(self, quantised: Any, path: Path) -> None:
        """Write OpenVINO IR: the ``.xml`` file, and its ``.bin`` beside it."""
        self._openvino.save_model(quantised, path, compress_to_fp16=True)

    def harmed_most(self, quantised: Any, tiles: Sequence[NDArray[np.int16]], channels: Collection[int]) -> list[str]:
        """Order layers by how much quantising each of them alone spoils what the whole network says.

        Each layer in turn gets its quantised weights, input and corrected bias while all others stay as they are, and
        the labels of one tile are held against single precision's.

        Parameters
        ----------
        quantised
            Made by :meth:`quantise` with nothing kept; taken to pieces, so save it before.
        tiles
            Hounsfield units; the one that shows most of the channels is looked at.
        channels
            Channels of the network that matter: those of the structures that fell.

        Returns
        -------
        list[str]
            Names of layers, the most harmful first; of equally harmful ones the one nearer to the input.
        """
        coarse = {item.get_friendly_name(): item for item in quantised.get_ops()}
        tile, exact = self._telling(tiles, channels)
        scores = {}
        for layer in self.layers:
            found = self._labels(self._with(layer.name, coarse[layer.name]), [tile])[0]
            scores[layer.name] = _loss(exact, found, channels)
        return sorted(scores, key=lambda name: scores[name], reverse=True)

    def _telling(
        self, tiles: Sequence[NDArray[np.int16]], channels: Collection[int]
    ) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        labels = self._labels(self._model, tiles)
        best = max(range(len(tiles)), key=lambda index: int(np.isin(labels[index], list(channels)).sum()))
        return tiles[best], labels[best]

    def _with(self, name: str, quantised: Any) -> Any:
        """Return the network with one layer taken from the quantised network."""
        model = self._model.clone()
        own = next(item for item in model.get_ops() if item.get_friendly_name() == name)
        bias, corrected = bias_of(own), bias_of(quantised)
        if bias is not None and corrected is not None:
            bias.replace_source_output(corrected.get_source_output())
        own.input(1).replace_source_output(quantised.input_value(1))
        first = quantised.input(0)
        while (node := first.get_source_output().get_node()).get_type_name() == "FakeQuantize":
            first = node.input(0)
        if first.get_node().get_type_name() == "FakeQuantize":
            first.replace_source_output(own.input_value(0))
            own.input(0).replace_source_output(quantised.input_value(0))
        return model

    def _labels(self, model: Any, tiles: Sequence[NDArray[np.int16]]) -> list[NDArray[np.uint8]]:
        options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = self._openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        labels = []
        for tile in tiles:
            request.infer({0: tile.astype(np.float32)[None, None]})
            labels.append(labels_of(request.get_output_tensor(0).data[0]))
        return labels


def _loss(exact: NDArray[np.uint8], found: NDArray[np.uint8], channels: Collection[int]) -> float:
    """One less Dice of some channels together."""
    a, b = np.isin(exact, list(channels)), np.isin(found, list(channels))
    both = int(a.sum()) + int(b.sum())
    return 1 - 2 * int((a & (exact == found)).sum()) / both if both else 0.0


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
