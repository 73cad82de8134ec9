"""Running a network: OpenVINO by default, ONNX Runtime as fallback, on the device that is wanted or else on the CPU.

One small interface; what an engine says of its name, device and precision is what it really uses.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from appliance.errors import InferenceError, NotEnoughMemoryError, PackError
from appliance.inference.devices import complaint
from appliance.inference.with_onnxruntime import OnnxRuntimeEngine, onnxruntime_devices
from appliance.inference.with_openvino import (
    OpenVinoEngine,
    import_openvino,
    openvino_devices,
    refuse_file_if_too_large,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from appliance.inference.logits import Logits
    from appliance.packs.pack import Pack

__all__ = [
    "Engine",
    "OnnxRuntimeEngine",
    "OpenVinoEngine",
    "SteadyEngine",
    "devices_of",
    "import_openvino",
    "open_engine",
]

_log = structlog.get_logger()


class Engine(Protocol):
    """A compiled network.

    Attributes
    ----------
    name
        ``"openvino"`` or ``"onnxruntime"``.
    precision
        What it really computes in, read back from the engine: ``"int8"``, ``"bf16"`` or ``"f32"``.
    device
        ``"CPU"``, ``"GPU"`` or ``"NPU"``. A device that stops computing is replaced by the CPU between two calls.
    patch
        Shape of a tile.
    """

    @property
    def name(self) -> str:  # noqa: D102  # see above
        ...

    @property
    def precision(self) -> str:  # noqa: D102
        ...

    @property
    def device(self) -> str:  # noqa: D102
        ...

    @property
    def patch(self) -> tuple[int, int, int]:  # noqa: D102
        ...

    def run(self, hu: NDArray[np.int16]) -> Logits:
        """Run one tile.

        Parameters
        ----------
        hu
            Hounsfield units in the pack's patch shape and axes.

        Returns
        -------
        Logits
            ``(channels, slices, rows, columns)``; channel 0 is background. Valid until the next call.
        """
        ...


class SteadyEngine:
    """A network on a device that may fail, with the CPU to fall back to.

    Parameters
    ----------
    engine
        Compiled for the device.
    reopen
        Compiles the network for the CPU.
    patch
        Shape of a tile.
    """

    def __init__(self, engine: Engine, reopen: Callable[[], Engine], patch: tuple[int, int, int]) -> None:
        self._engine = engine
        self._patch = patch
        self._reopen: Callable[[], Engine] | None = reopen

    @property
    def name(self) -> str:
        """Name of the engine in use."""
        return self._engine.name

    @property
    def precision(self) -> str:
        """What it computes in now."""
        return self._engine.precision

    @property
    def device(self) -> str:
        """Device in use now."""
        return self._engine.device

    @property
    def patch(self) -> tuple[int, int, int]:
        """Shape of a tile; the same on every device."""
        return self._patch

    def run(self, hu: NDArray[np.int16]) -> Logits:
        """Run one tile; see :meth:`Engine.run`. After a failure of the device, all run on the CPU."""
        try:
            return self._engine.run(hu)
        except RuntimeError as error:
            if self._reopen is None:
                raise
            _log.error("device_failed", engine=self.name, device=self.device, error=complaint(error))
            reopen, self._reopen = self._reopen, None
            self._engine = reopen()
            return self._engine.run(hu)


def open_engine(
    pack: Pack,
    *,
    engine: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    cache: Path | None = None,
    device: str = "auto",
    patch: tuple[int, int, int] | None = None,
    memory_mib: int = 0,
) -> Engine:
    """Compile a pack's network.

    Parameters
    ----------
    pack
        A verified pack.
    engine
        ``"openvino"``, ``"onnxruntime"``, or ``"auto"``: OpenVINO, and ONNX Runtime when that fails.
    precision
        ``"int8"``, ``"bf16"``, ``"f32"``, or ``"auto"``: the first of these that the pack has for the engine and whose
        accuracy gate, where it has one, was passed.
    threads
        CPU threads; 0 takes all.
    cache
        Folder for compiled networks, or ``None``.
    device
        ``"CPU"``, ``"GPU"``, ``"NPU"``, or ``"auto"``, which is the CPU here: what was measured is chosen by
        :mod:`appliance.packs.runtime`. A device that is not there, or cannot compile the network or compute it, is
        replaced by the CPU; the engine's ``device`` says so.
    patch
        Shape of a tile where it is not the manifest's.
    memory_mib
        Largest resident size that the configuration allows this process; 0 is none.

    Raises
    ------
    InferenceError
        No engine could compile the network; the sentence says what each answered.
    NotEnoughMemoryError
        It needs more memory than there is.
    PackError
        The pack does not hold the network in that precision.
    """
    wanted = ("openvino", "onnxruntime") if engine == "auto" else (engine,)
    shape = patch or pack.manifest.input.patch

    def on(kind: str) -> Engine:
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
                if name == "openvino":
                    return OpenVinoEngine(
                        path, shape, chosen, threads, cache, device=kind, digest=pack.digest, memory_mib=memory_mib
                    )
                if kind == "CPU":
                    refuse_file_if_too_large(path, shape, chosen, memory_mib)
                return OnnxRuntimeEngine(path, shape, threads, device=kind)
            except NotEnoughMemoryError as error:
                raise NotEnoughMemoryError(f"Pack {pack.name} {pack.version} cannot be run: {error}.") from error
            except (ImportError, OSError, RuntimeError) as error:
                said = complaint(error)
                failures.append(f"{name}: {said}")
                _log.warning("engine_failed", engine=name, device=kind, pack=pack.name, precision=chosen, error=said)
        sentence = f"Pack {pack.name} {pack.version} cannot be run: " + "; ".join(failures) + "."
        raise (PackError if missing == len(wanted) else InferenceError)(sentence)

    opened = _opened(on, "CPU" if device == "auto" else device, shape)
    if precision not in {"auto", opened.precision}:
        _log.warning("precision_differs", engine=opened.name, asked=precision, used=opened.precision)
    return opened


def devices_of(engine: str) -> tuple[str, ...]:
    """Kinds of devices that an engine may find here; none where the engine cannot be loaded."""
    try:
        return openvino_devices() if engine == "openvino" else onnxruntime_devices()
    except (ImportError, OSError, RuntimeError) as error:
        _log.warning("engine_failed", engine=engine, error=complaint(error))
        return ()


def _opened(on: Callable[[str], Engine], device: str, patch: tuple[int, int, int]) -> Engine:
    if device == "CPU":
        return on("CPU")
    try:
        return SteadyEngine(on(device), partial(on, "CPU"), patch)
    except InferenceError as error:
        _log.warning("device_not_used", device=device, instead="CPU", why=str(error))
        return on("CPU")


def _choose(pack: Pack, engine: str, precision: str) -> tuple[Path, str] | None:
    for candidate in pack.automatic(engine) if precision == "auto" else (precision,):
        path = pack.network(engine, candidate)
        if path is not None:
            return path, candidate
    return None
