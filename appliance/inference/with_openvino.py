"""OpenVINO: the default engine."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from appliance.errors import NotEnoughMemoryError
from appliance.inference.compiled import CompiledNetworks
from appliance.inference.devices import DEVICES, complaint
from appliance.inference.memory import needed_bytes, room
from appliance.inference.openvino_graph import LAYOUT, part_concatenations, put_channels_last

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.inference.logits import Logits

_log = structlog.get_logger()


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
    """A network compiled by OpenVINO: static shape, one stream, precision stated and read back.

    Parameters
    ----------
    model
        File of the network.
    patch
        Shape of a tile.
    precision
        ``"int8"`` (a network with quantisers), ``"bf16"`` or ``"f32"``.
    threads
        CPU threads; 0 takes all.
    cache
        Folder for compiled networks, or ``None``.
    device
        ``"CPU"``, ``"GPU"`` or ``"NPU"``.
    digest
        Of the pack; nothing is kept in ``cache`` without it.
    memory_mib
        Largest resident size that the configuration allows; 0 is none.

    Raises
    ------
    NotEnoughMemoryError
        It needs more memory than there is.
    """

    name = "openvino"

    def __init__(
        self,
        model: Path,
        patch: tuple[int, int, int],
        precision: str,
        threads: int,
        cache: Path | None,
        *,
        device: str = "CPU",
        digest: str = "",
        memory_mib: int = 0,
    ) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        found = _openvino_device(core, device)
        reduced = precision != "f32" and device == "CPU" and _has_bf16(core, openvino)
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            options["NUM_STREAMS"] = 1
            # Left alone, OpenVINO computes in bf16 wherever the CPU has it and does not say so. What of an INT8 network
            # is not quantised is computed in bf16 too.
            options["INFERENCE_PRECISION_HINT"] = "bf16" if reduced or precision == "bf16" else "f32"
            if threads:
                options["INFERENCE_NUM_THREADS"] = threads
        elif device == "GPU":
            options["INFERENCE_PRECISION_HINT"] = "f16" if precision == "bf16" else "f32"
        network = core.read_model(model)
        network.reshape([1, 1, *patch])
        if device == "CPU":
            part_concatenations(network, openvino)
        if device != "GPU":  # a graphics card has memory of its own
            _refuse_if_too_large(network, precision, memory_mib, reduced=reduced)
        self._channels_last = put_channels_last(network, openvino, bf16=reduced)
        kept = CompiledNetworks(cache, openvino.__version__) if cache is not None and digest else None
        facts = {
            "pack": digest,
            "network": model.name,
            "shape": patch,
            "precision": precision,
            "device": found,
            "device_name": str(core.get_property(found, "FULL_DEVICE_NAME")),
            "options": options,
            "layout": LAYOUT,
        }
        self._compiled = _compile(core, network, found, options, kept, facts)
        self._request = self._compiled.create_infer_request()
        self.device = device
        self.patch = patch
        self.precision = _computed_in(self._compiled.get_runtime_model(), precision)

    def run(self, hu: NDArray[np.int16]) -> Logits:
        """Run one tile; see :meth:`Engine.run`."""
        # Without share_outputs it would copy the whole answer into a dictionary that nobody reads.
        self._request.infer({0: hu.astype(np.float32)[None, None]}, share_inputs=True, share_outputs=True)
        answer = self._request.get_output_tensor(0).data[0]
        logits: Logits = answer if answer.dtype == np.float32 else answer.view(np.uint16)
        return np.moveaxis(logits, -1, 0) if self._channels_last else logits


def _has_bf16(core: Any, openvino: Any) -> bool:
    """Whether the CPU computes in bf16 by itself: only then is that what OpenVINO takes when nothing is asked of it."""
    return bool(core.get_property("CPU", "INFERENCE_PRECISION_HINT") == openvino.Type.bf16)


def openvino_devices() -> tuple[str, ...]:
    """Kinds of devices that OpenVINO finds here, among ``"CPU"``, ``"GPU"`` and ``"NPU"``."""
    found = import_openvino().Core().available_devices
    return tuple(kind for kind in DEVICES if any(_kind(name) == kind for name in found))


def _kind(name: str) -> str:
    return name.partition(".")[0]


def _openvino_device(core: Any, device: str) -> str:
    found: list[str] = core.available_devices
    for name in found:
        if _kind(name) == device:
            return name
    raise RuntimeError(f"there is no {device} here that it knows (it finds {', '.join(found) or 'nothing'})")


def refuse_file_if_too_large(model: Path, patch: tuple[int, int, int], precision: str, limit_mib: int) -> None:
    """Estimate a network that another engine will run; say nothing where this one cannot read it.

    Raises
    ------
    NotEnoughMemoryError
        It needs more memory than there is.
    """
    try:
        network = import_openvino().Core().read_model(model)
        network.reshape([1, 1, *patch])
    except (ImportError, OSError, RuntimeError):
        return
    _refuse_if_too_large(network, precision, limit_mib, reduced=False)


def _refuse_if_too_large(network: Any, precision: str, limit_mib: int, *, reduced: bool) -> None:
    needed, there = needed_bytes(network, precision, reduced=reduced), room(limit_mib)
    if needed > there.free_bytes:
        need, have = needed / 2**30, there.free_bytes / 2**30
        raise NotEnoughMemoryError(
            f"one tile needs about {need:.1f} GiB of memory in {precision}, and {have:.1f} GiB are {there.limit}"
        )


def _compile(
    core: Any, network: Any, device: str, options: dict[str, Any], kept: CompiledNetworks | None, facts: dict[str, Any]
) -> Any:
    if kept is None:
        return core.compile_model(network, device, options)
    blob = kept.read(facts)
    if blob is not None:
        try:
            return core.import_model(BytesIO(blob), device, options)
        except RuntimeError as error:
            _log.warning("compiled_network_not_taken", why=complaint(error))
            kept.forget(facts)
    compiled = core.compile_model(network, device, options)
    stream = BytesIO()
    try:
        compiled.export_model(stream)
    except RuntimeError as error:  # a plug-in that cannot give away what it compiled
        _log.debug("compiled_network_not_kept", why=complaint(error))
    else:
        kept.write(facts, stream.getbuffer())  # a copy of it would be as large as the network
    return compiled


def _computed_in(runtime_model: Any, otherwise: str) -> str:
    """Read back what most convolutions of a compiled network are computed in; a plug-in may not say."""
    names = {"i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "f16", "f32": "f32"}
    counts: dict[str, int] = {}
    for operation in runtime_model.get_ops():
        info = operation.get_rt_info()
        if "layerType" not in info or "runtimePrecision" not in info:
            return otherwise
        if info["layerType"].astype(str) in {"Convolution", "Deconvolution"}:
            used = names.get(info["runtimePrecision"].astype(str), "f32")
            counts[used] = counts.get(used, 0) + 1
    return max(counts, key=lambda used: counts[used], default="f32")
