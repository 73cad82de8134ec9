"""Bright spots of the heart that the score leaves out, and the caveats that say so with what they would have scored.

None of the rules that leave a spot out is certain, so nobody who reads a score should have to guess what is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a spot was taken for."""

    STREAK = "streak"
    WALL = "wall"
    VALVE = "valve"
    BRONCHIAL = "bronchial"


#: With the number of spots and what they would score.
_SAID = {
    Kind.STREAK: (
        "bright streaks of the heart's motion, not counted: {spots} (they would score {score}); calcium under them is "
        "not seen"
    ),
    Kind.WALL: (
        "calcifications against the aorta, not counted: {spots} (they would score {score}); an artery that touches "
        "it cannot be told from its wall"
    ),
    Kind.VALVE: (
        "bright spots without fat around, of valves or of the heart's motion, not counted: {spots} (they would score "
        "{score})"
    ),
    Kind.BRONCHIAL: (
        "calcifications beside lung or bronchi, not counted: {spots} (they would score {score}); an artery just below "
        "the lung can look the same"
    ),
}


@dataclass(slots=True)
class LeftOut:
    """The Agatston scores of what was not counted, by what it was taken for."""

    scores: dict[Kind, list[float]] = field(default_factory=lambda: {kind: [] for kind in Kind})

    def add(self, kind: Kind, score: float) -> None:
        """Leave a spot out."""
        self.scores[kind].append(score)

    def score(self, kind: Kind) -> float:
        """Return what the spots of one kind would score together."""
        return sum(self.scores[kind])

    def caveats(self) -> list[str]:
        """Say what was left out, a sentence for each kind."""
        return [
            said.format(spots=len(self.scores[kind]), score=f"{self.score(kind):.0f}")
            for kind, said in _SAID.items()
            if self.scores[kind]
        ]
