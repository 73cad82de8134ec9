"""Running a network on the CPU: OpenVINO by default, ONNX Runtime as fallback, behind one small interface."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import structlog

from appliance.errors import InferenceError, PackError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.packs.pack import Pack

_log = structlog.get_logger()

#: In the order of preference; a pack ships only those that passed its own accuracy gate.
_PREFERENCE = ("int8", "bf16", "f32")

#: Characters of an engine's own complaint that are passed on.
_LONGEST_COMPLAINT = 300


class Engine(Protocol):
    """A compiled network.

    Attributes
    ----------
    name
        ``"openvino"`` or ``"onnxruntime"``.
    precision
        What it really computes in, read back from the engine: ``"int8"``, ``"bf16"`` or ``"f32"``.
    device
        Such as ``"CPU"``.
    """

    name: str
    precision: str
    device: str

    def run(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        """Run one tile.

        Parameters
        ----------
        hu
            Hounsfield units in the pack's patch shape and axes.

        Returns
        -------
        NDArray[np.float32]
            Logits ``(channels, slices, rows, columns)``; channel 0 is background. Valid until the next call.
        """
        ...


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    ``openvino_telemetry`` would look for a home directory and for the internet; a box beside a scanner has neither.
    With the module barred, OpenVINO's own tools fall back to a stand-in that does nothing.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVinoEngine:
    """A network compiled by OpenVINO for the CPU: static shape, one stream, precision stated and read back."""

    name = "openvino"
    device = "CPU"

    def __init__(
        self, model: Path, patch: tuple[int, int, int], precision: str, threads: int, cache: Path | None
    ) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # Left alone, OpenVINO computes in bf16 wherever the CPU has it and does not say so.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        if cache is not None:
            options["CACHE_DIR"] = str(cache)
        network = core.read_model(model)
        network.reshape([1, 1, *patch])
        self._compiled = core.compile_model(network, self.device, options)
        self._request = self._compiled.create_infer_request()
        self._patch = patch
        self.precision = _computed_in(self._compiled.get_runtime_model())

    def run(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        """Run one tile; see :meth:`Engine.run`."""
        self._request.infer({0: hu.astype(np.float32)[None, None]}, share_inputs=True)
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data[0]
        return logits


def _computed_in(runtime_model: Any) -> str:
    """Read back what most convolutions of a compiled network are computed in."""
    names = {"i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "f16", "f32": "f32"}
    counts: dict[str, int] = {}
    for operation in runtime_model.get_ops():
        info = operation.get_rt_info()
        if info["layerType"].astype(str) in {"Convolution", "Deconvolution"}:
            used = names.get(info["runtimePrecision"].astype(str), "f32")
            counts[used] = counts.get(used, 0) + 1
    return max(counts, key=lambda used: counts[used], default="f32")


class OnnxRuntimeEngine:
    """The same network in ONNX Runtime, in single precision."""

    name = "onnxruntime"
    device = "CPU"
    precision = "f32"

    def __init__(self, model: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class but this one
            raise RuntimeError(str(error)) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        """Run one tile; see :meth:`Engine.run`."""
        logits: NDArray[np.float32] = self._session.run(None, {self._input: hu.astype(np.float32)[None, None]})[0][0]
        return logits


def open_engine(
    pack: Pack,
    *,
    engine: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    cache: Path | None = None,
) -> Engine:
    """Compile a pack's network.

    Parameters
    ----------
    pack
        A verified pack.
    engine
        ``"openvino"``, ``"onnxruntime"``, or ``"auto"``: OpenVINO, and ONNX Runtime when that fails.
    precision
        ``"int8"``, ``"bf16"``, ``"f32"``, or ``"auto"``: the first of these that the pack has for the engine.
    threads
        CPU threads; 0 takes all.
    cache
        Folder for OpenVINO's compiled models, or ``None``.

    Raises
    ------
    InferenceError
        No engine could compile the network; the sentence says what each answered.
    PackError
        The pack does not hold the network in that precision.
    """
    wanted = ("openvino", "onnxruntime") if engine == "auto" else (engine,)
    failures = []
    missing = 0
    for name in wanted:
        found = _choose(pack, name, precision)
        if found is None:
            missing += 1
            failures.append(f"{name}: the pack has no network for precision {precision}")
            continue
        path, chosen = found
        try:
            opened = _open(name, path, pack.manifest.input.patch, chosen, threads, cache)
        except (ImportError, OSError, RuntimeError) as error:
            said = " ".join(str(error).split())[:_LONGEST_COMPLAINT] or type(error).__name__
            failures.append(f"{name}: {said}")
            _log.warning("engine_failed", engine=name, pack=pack.name, precision=chosen, error=said)
            continue
        if precision not in {"auto", opened.precision}:
            _log.warning("precision_differs", engine=name, asked=precision, used=opened.precision)
        return opened
    sentence = f"Pack {pack.name} {pack.version} cannot be run: " + "; ".join(failures) + "."
    if missing == len(wanted):
        raise PackError(sentence)
    raise InferenceError(sentence)


def _choose(pack: Pack, engine: str, precision: str) -> tuple[Path, str] | None:
    for candidate in _PREFERENCE if precision == "auto" else (precision,):
        path = pack.network(engine, candidate)
        if path is not None:
            return path, candidate
    return None


def _open(
    name: str, path: Path, patch: tuple[int, int, int], precision: str, threads: int, cache: Path | None
) -> Engine:
    if name == "openvino":
        return OpenVinoEngine(path, patch, precision, threads, cache)
    return OnnxRuntimeEngine(path, threads)
