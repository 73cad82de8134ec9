"""What a courier runs: one kind of thing taken to one destination, and what became of a try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from appliance.delivery.verdict import DOUBTFUL_TRIES, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.delivery.verdict import Judgement
    from appliance.store.outbox import OutboxEntry


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one entry.

    Attributes
    ----------
    verdict
        :attr:`Verdict.THERE` when nothing of it is left to send.
    obstacle
        What stands in the way, in one word.
    sentence
        The same for whoever must act.
    away
        Whether the peer as a whole was not to be had, so that nothing else need try now.
    asked
        Whether the peer was asked at all; what ends on this box says nothing of the peer.
    wait_s
        How long the peer wants to be left alone; 0 when it did not say.
    until
        When to look again, Unix time, where nothing has failed and the peer takes its time.
    """

    verdict: Verdict
    obstacle: str | None = None
    sentence: str = ""
    away: bool = False
    asked: bool = True
    wait_s: float = 0.0
    until: float | None = None


class Errand(Protocol):
    """One kind of thing to one destination; it knows what the thing is and how the destination is spoken to."""

    @property
    def kind(self) -> str:
        """Kind of the outbox entries that it takes."""

    @property
    def name(self) -> str:
        """Name of the destination."""

    @property
    def sent(self) -> int:
        """How much the destination has confirmed since the service started."""

    def digest(self) -> str:
        """Return ``sha256:…`` over everything that a change of the configuration can mend."""

    def attempt(self, entry: OutboxEntry) -> Outcome:
        """Send what the destination does not have yet; of the entry itself nothing is changed.

        Raises
        ------
        StoreError
            The database cannot be used.
        """


def sum_up(judgements: Iterable[Judgement], *, tries: int, away: bool, wait_s: float = 0.0) -> Outcome:
    """Join the judgements of the parts of an entry: what may still pass is tried again before anything is parked.

    Parameters
    ----------
    judgements
        One for each part that was tried.
    tries
        Tries of the entry, this one included; decides what becomes of what is doubtful.
    away, wait_s
        As in :class:`Outcome`.
    """
    last_try = tries >= DOUBTFUL_TRIES
    by_verdict: dict[Verdict, list[Judgement]] = {}
    for judgement in judgements:
        verdict = judgement.verdict
        if verdict is Verdict.DOUBTFUL:
            verdict = Verdict.PERSON if last_try else Verdict.AGAIN
        by_verdict.setdefault(verdict, []).append(judgement)
    again, person = by_verdict.get(Verdict.AGAIN, []), by_verdict.get(Verdict.PERSON, [])
    text = " ".join(dict.fromkeys(item.sentence for item in (*person, *again) if item.sentence))
    if again:
        return Outcome(Verdict.AGAIN, again[0].obstacle, text, away=away, wait_s=wait_s)
    if person:
        return Outcome(Verdict.PERSON, person[0].obstacle, text)
    return Outcome(Verdict.THERE)
