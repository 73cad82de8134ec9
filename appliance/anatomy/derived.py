"""What is derived from one scan's organ map (a centreline, vertebral levels, a mask at full resolution), once each.

Screenings share these. Each is worked out when the first screening asks and kept until the scan is done, so that
another screening costs only itself.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from appliance.anatomy.native import Box
    from appliance.anatomy.organ_map import OrganMap
    from appliance.reasons import Reason
    from appliance.scan import Volume

T = TypeVar("T")


class Anatomy:
    """One scan with its organ map and everything that was derived from them so far.

    Parameters
    ----------
    volume
        The voxels.
    organs
        Their organ map.
    doubts
        Structure name to why its part of the map is not believed.

    Attributes
    ----------
    volume, organs, doubts
        As given.
    computed
        How often each derived thing was worked out; never more than once.
    seconds
        How long each took, without what it asked for in turn.
    """

    def __init__(self, volume: Volume, organs: OrganMap, doubts: Mapping[str, Reason] | None = None) -> None:
        self.volume = volume
        self.organs = organs
        self.doubts: Mapping[str, Reason] = doubts or {}
        self.computed: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self._kept: dict[Any, Any] = {}
        self._inner: list[float] = []

    def once(self, name: str, make: Callable[[], T], *details: Any) -> T:
        """Return what ``make`` made the first time it was asked for under this name and these details."""
        key = (name, *details)
        if key not in self._kept:
            started = time.monotonic()
            self._inner.append(0.0)
            self._kept[key] = make()
            taken = time.monotonic() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + taken - self._inner.pop()
            if self._inner:
                self._inner[-1] += taken
            self.computed[" ".join(str(part) for part in key)] += 1
        return cast("T", self._kept[key])

    def native(self, *names: str, margin_mm: float = 0.0) -> tuple[Box, NDArray[np.bool_]]:
        """Return structures at the scan's resolution, see :func:`appliance.anatomy.native.native_mask`.

        The mask is shared and read-only.
        """
        from appliance.anatomy.native import native_mask

        def make() -> tuple[Box, NDArray[np.bool_]]:
            box, mask = native_mask(self.organs, self.volume, *names, margin_mm=margin_mm)
            mask.flags.writeable = False
            return box, mask

        return self.once("native mask", make, *sorted(names), margin_mm)


def derived(function: Callable[[Anatomy], T]) -> Callable[[Anatomy], T]:
    """Make a function of an :class:`Anatomy` answer every later call for the same scan with its first answer."""

    @wraps(function)
    def ask(anatomy: Anatomy) -> T:
        return anatomy.once(function.__name__.replace("_", " "), lambda: function(anatomy))

    return ask
