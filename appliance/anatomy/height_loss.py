"""How much height each vertebral body has lost, against its own back edge and against its neighbours.

The shapes follow Genant's semiquantitative grades (Genant et al., J Bone Miner Res 1993;8:1137-48): a wedge is low in
front, a biconcave body in the middle, a crushed one at the back too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.derived import derived
from appliance.anatomy.endplates import body_shapes
from appliance.anatomy.vertebral_levels import LEVELS

if TYPE_CHECKING:
    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.endplates import BodyShape

#: From one body to the next one down, height grows by about this share.
_GROWTH_PER_LEVEL = 0.025


@dataclass(frozen=True, slots=True)
class HeightLoss:
    """Height lost by one body, % of what is expected; negative where it is higher.

    Attributes
    ----------
    wedge_percent, biconcave_percent
        At the front edge and in the middle, against the back edge.
    crush_percent
        At the back edge, against the neighbours; ``None`` where none was measured.
    """

    wedge_percent: float
    biconcave_percent: float
    crush_percent: float | None

    @property
    def largest_percent(self) -> float:
        """The largest of the losses, at least 0."""
        return max(self.wedge_percent, self.biconcave_percent, self.crush_percent or 0.0, 0.0)

    @property
    def shape(self) -> str:
        """Which of the losses is the largest, for people."""
        names = {
            "wedge": self.wedge_percent,
            "biconcave": self.biconcave_percent,
            "crush": self.crush_percent if self.crush_percent is not None else -np.inf,
        }
        return max(names, key=lambda name: names[name])


@derived
def height_losses(anatomy: Anatomy) -> dict[str, HeightLoss]:
    """Height loss of every body that could be measured, by its level's name."""
    shapes = body_shapes(anatomy)
    losses = {}
    for level, shape in shapes.items():
        expected = _expected_back_mm(level, shapes)
        losses[level] = HeightLoss(
            100.0 * (1.0 - shape.anterior_mm / shape.posterior_mm),
            100.0 * (1.0 - shape.middle_mm / shape.posterior_mm),
            100.0 * (1.0 - shape.posterior_mm / expected) if expected is not None else None,
        )
    return losses


def _expected_back_mm(level: str, shapes: dict[str, BodyShape]) -> float | None:
    """Height of the back edge that the neighbours, up to two on each side, let expect."""
    number = LEVELS.index(level)
    near = []
    for offset in (-2, -1, 1, 2):
        other = number + offset
        if 0 <= other < len(LEVELS) and LEVELS[other] in shapes:
            near.append(shapes[LEVELS[other]].posterior_mm * (1.0 - _GROWTH_PER_LEVEL * offset))
    # one fractured neighbour must not set the measure
    return float(np.median(near)) if len(near) >= 2 else None
