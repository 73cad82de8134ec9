"""A tile that fits the scan: one large tile instead of two that overlap almost wholly, where the pack allows both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from appliance.errors import InferenceError, NotEnoughMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.inference.logits import Logits

    Shape = tuple[int, int, int]

_log = structlog.get_logger()

#: What another shape must save to be worth compiling the network anew.
_LEAST_SAVED_S = 1.0


class FittingEngine:
    """A network that is compiled anew for tiles of another shape when a scan takes less time with them.

    Only one shape is compiled at a time. Where another one cannot be, for want of memory say, it is not tried again.

    Parameters
    ----------
    engine
        Compiled for one of the shapes.
    reopen
        Compiles the network for a shape.
    seconds
        What a tile of each shape was measured to take.
    count
        Tiles that a scan of a shape takes: shape of the scan, shape of a tile.
    """

    def __init__(
        self,
        engine: Engine,
        reopen: Callable[[Shape], Engine],
        seconds: Mapping[Shape, float],
        count: Callable[[Shape, Shape], int],
    ) -> None:
        self._engine: Engine | None = engine
        self._patch = engine.patch
        self._reopen = reopen
        self._seconds = dict(seconds)
        self._count = count
        self._device = engine.device

    def _opened(self) -> Engine:
        if self._engine is None:  # another shape could not be compiled, nor this one again at that time
            self._engine = self._reopen(self._patch)
        return self._engine

    @property
    def name(self) -> str:
        """Name of the engine in use."""
        return self._opened().name

    @property
    def precision(self) -> str:
        """What it computes in now."""
        return self._opened().precision

    @property
    def device(self) -> str:
        """Device in use now."""
        return self._opened().device

    @property
    def patch(self) -> Shape:
        """Shape of a tile now."""
        return self._patch

    def run(self, hu: NDArray[np.int16]) -> Logits:
        """Run one tile of the shape that :attr:`patch` says; see :meth:`Engine.run`."""
        return self._opened().run(hu)

    def fit(self, shape: Shape) -> None:
        """Take the tiles with which a scan is done soonest.

        Parameters
        ----------
        shape
            Voxels of the scan on the network's grid and axes.

        Raises
        ------
        InferenceError, NotEnoughMemoryError
            The shape from before cannot be compiled again either.
        """
        now = self._patch
        if self._opened().device != self._device or now not in self._seconds:
            return  # nothing was measured of the device that took over

        def takes_s(patch: Shape) -> float:
            return self._seconds[patch] * self._count(shape, patch)

        best = min(self._seconds, key=takes_s)
        if takes_s(now) - takes_s(best) < _LEAST_SAVED_S:
            return
        self._engine = None  # its memory is needed
        try:
            self._engine = self._reopen(best)
            self._patch = best
        except (InferenceError, NotEnoughMemoryError) as error:
            _log.warning("tile_not_used", shape=best, instead=now, why=str(error))
            del self._seconds[best]
        _log.debug("tile_fitted", shape=self._opened().patch, before=now, scan=shape)


def fit(engine: Engine, shape: Shape) -> None:
    """Let an engine that can take the tiles that fit a scan; see :meth:`FittingEngine.fit`."""
    if isinstance(engine, FittingEngine):
        engine.fit(shape)
