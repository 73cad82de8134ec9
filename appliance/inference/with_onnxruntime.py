"""ONNX Runtime: the engine to fall back to, and the way to devices that OpenVINO does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.inference.devices import DEVICES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class OnnxRuntimeEngine:
    """The same network in ONNX Runtime, in single precision.

    Parameters
    ----------
    model
        ONNX file.
    patch
        Shape of a tile; where the file fixes one, no other.
    threads
        CPU threads; 0 takes all.
    device
        ``"CPU"``, ``"GPU"`` or ``"NPU"``.
    """

    name = "onnxruntime"
    precision = "f32"

    def __init__(self, model: Path, patch: tuple[int, int, int], threads: int, *, device: str = "CPU") -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        provider = _provider(onnxruntime.get_available_providers(), device)
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=[provider])
        except Exception as error:  # its errors share no base class but this one
            raise RuntimeError(str(error)) from error
        # Left alone, it goes on with the CPU where a provider fails, and does not say so.
        self._session.disable_fallback()
        if self._session.get_providers()[0] != provider[0]:
            raise RuntimeError(f"{provider[0]} could not be used")
        entry = self._session.get_inputs()[0]
        fixed = [size for size in entry.shape[-3:] if isinstance(size, int)]
        if len(fixed) == len(patch) and tuple(fixed) != patch:
            raise RuntimeError(f"the file takes tiles of {fixed} voxels only")
        self._input = entry.name
        self.device = device
        self.patch = patch

    def run(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        """Run one tile; see :meth:`Engine.run`."""
        try:
            answer = self._session.run(None, {self._input: hu.astype(np.float32)[None, None]})
        except Exception as error:
            raise RuntimeError(str(error)) from error
        logits: NDArray[np.float32] = answer[0][0]
        return logits


#: ONNX Runtime's execution providers for each device, the quickest first, with what makes them compute in full single
#: precision.
_PROVIDERS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "CPU": (("CPUExecutionProvider", {}),),
    "GPU": (
        ("TensorrtExecutionProvider", {"trt_fp16_enable": False}),
        ("CUDAExecutionProvider", {"use_tf32": 0}),
        ("OpenVINOExecutionProvider", {"device_type": "GPU", "precision": "FP32"}),
    ),
    "NPU": (("OpenVINOExecutionProvider", {"device_type": "NPU"}),),
}


def onnxruntime_devices() -> tuple[str, ...]:
    """Kinds of devices that this build has a provider for; whether one is there, only a session tells."""
    import onnxruntime

    known = set(onnxruntime.get_available_providers())
    return tuple(kind for kind in DEVICES if any(name in known for name, _ in _PROVIDERS[kind]))


def _provider(available: Sequence[str], device: str) -> tuple[str, dict[str, Any]]:
    for provider in _PROVIDERS[device]:
        if provider[0] in available:
            return provider
    raise RuntimeError(f"this build has no provider for a {device} (it has {', '.join(available)})")
