"""Where the discs are: the spine's column of bone, laid out straight, cut into vertebral bodies.

A network may give all bodies as one class, with or without gaps between them. A disc is told by the two endplates that
enclose it, by the gap in the mask, and by its neighbours: discs follow each other at distances that change slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.spine_curve import OUTSIDE_HU, STEP_MM

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: From disc to disc, mm: upper thoracic spine of a small adult to lumbar spine of a tall one.
PERIOD_MM = (16, 46)
#: Contrast between endplates and disc that counts as certain, HU.
_CERTAIN_HU = 150.0
#: How strongly neighbouring distances must resemble each other.
_STIFFNESS = 12.0
#: What a cut must show before it is better than none.
_LEAST = 0.3


def cut_positions(hu: NDArray[np.float32], share: NDArray[np.float64]) -> list[float]:
    """Find the discs along a straightened spine.

    Parameters
    ----------
    hu
        Mean over the middle of the cross-section every ``STEP_MM``, HU; ``OUTSIDE_HU`` outside the scan.
    share
        Part of that cross-section that the map calls vertebral body, 0 … 1.

    Returns
    -------
    list of float
        Middles of the discs, mm from the beginning of the curve, upwards. The faces of the last body that end the
        spine, such as that towards the sacrum, count as discs.
    """
    step = round(1.0 / STEP_MM)
    inside = np.flatnonzero(hu > OUTSIDE_HU + 1.0)
    if inside.size < 20 * step:
        return []
    first, last = int(inside[0]), int(inside[-1])
    column = _per_mm(hu[first : last + 1].astype(np.float64), step)
    gap = 1.0 - _per_mm(share[first : last + 1], step)
    best, before = _best_chain(column, gap)
    return [first * STEP_MM + at + 0.25 for at in _walk(best, before)]


def _per_mm(values: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    length = len(values) // step * step
    means: NDArray[np.float64] = values[:length].reshape(-1, step).mean(axis=1)
    return means


def _evidence(column: NDArray[np.float64], gap: NDArray[np.float64], period: int) -> NDArray[np.float64]:
    """How much each place looks like a disc between bodies ``period`` mm apart; about 2 for a plain one."""
    from scipy import ndimage

    reach = round(0.2 * period + 2.5)
    ahead = ndimage.maximum_filter1d(column, reach, origin=-(reach // 2), mode="constant", cval=-1000.0)
    behind = ndimage.maximum_filter1d(column, reach, origin=(reach - 1) // 2, mode="constant", cval=-1000.0)
    trough = np.minimum(ahead, behind) - column
    # the last disc has bone on one side only: the gap speaks for it
    gap = ndimage.uniform_filter1d(gap, 3, mode="nearest")
    score: NDArray[np.float64] = np.clip(trough / _CERTAIN_HU, -0.3, 1.2) + 0.8 * gap - _LEAST
    return score


def _best_chain(column: NDArray[np.float64], gap: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Best sum of evidence of all chains of cuts that end at a place with a last distance; and the distance before."""
    periods = np.arange(PERIOD_MM[0], PERIOD_MM[1] + 1)
    size, kinds = len(column), len(periods)
    evidence = np.stack([_evidence(column, gap, int(period)) for period in periods], axis=1)
    unlike = _STIFFNESS * np.log(periods[:, None] / periods[None, :]) ** 2
    best = np.full((size, kinds), -np.inf)
    before = np.full((size, kinds), -1, dtype=np.int64)
    for at in range(size):
        for kind, period in enumerate(periods):
            origin = at - int(period)
            # the first cut lies within one distance of the lower end and carries its own evidence
            gain = float(evidence[at, kind])
            if origin < 0:
                best[at, kind] = gain
                continue
            chain = best[origin] - unlike[kind]
            winner = int(np.argmax(chain))
            best[at, kind], before[at, kind] = gain + float(chain[winner]), winner
    return best, before


def _walk(best: NDArray[np.float64], before: NDArray[np.int64]) -> list[int]:
    """Read the best chain back from the upper end, within one distance of which its last cut must lie."""
    periods = np.arange(PERIOD_MM[0], PERIOD_MM[1] + 1)
    size = len(best)
    low = max(0, size - PERIOD_MM[1])
    at, kind = divmod(int(np.argmax(best[low:])), best.shape[1])
    at += low
    chain: list[int] = []
    while True:
        chain.append(at)
        previous = int(before[at, kind])
        if previous < 0:
            return chain[::-1]
        at, kind = at - int(periods[kind]), previous
