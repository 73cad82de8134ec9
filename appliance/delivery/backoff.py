"""How long to wait before the next try: twice as long each time, up to a bound, and never all boxes at once."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waiting times.

    Attributes
    ----------
    first_s
        About how long after the first failure.
    longest_s
        No wait is longer.
    """

    first_s: float
    longest_s: float

    def wait_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row, at random between half of the wait and all of it."""
        doubled = self.first_s * 2.0 ** min(failures - 1, 60)
        return min(self.longest_s, doubled) * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, hides nothing
