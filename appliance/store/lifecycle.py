"""A scan's life as data: which state may follow which, and nothing else decides it.

Everything that moves a scan goes through :func:`check`, so that a state that this table does not allow cannot
be stored.
"""

from __future__ import annotations

from enum import StrEnum

from appliance.errors import StoreError


class ScanState(StrEnum):
    """Where a scan stands."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
    PLANNED = "planned"
    SCREENING = "screening"
    SCREENED = "screened"
    DELIVERING = "delivering"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    PARKED = "parked"


#: What may follow what. ``planned`` and ``screening`` go back to ``complete`` when their worker is lost or
#: stopped; ``refused`` and ``failed`` are left only when a person asks for it, ``parked`` also when
#: its destination was mended or the configuration names it no more.
TRANSITIONS: dict[ScanState, frozenset[ScanState]] = {
    ScanState.RECEIVING: frozenset({ScanState.COMPLETE}),
    ScanState.COMPLETE: frozenset({ScanState.PLANNED, ScanState.REFUSED, ScanState.FAILED}),
    ScanState.PLANNED: frozenset({ScanState.SCREENING, ScanState.COMPLETE, ScanState.REFUSED, ScanState.FAILED}),
    ScanState.SCREENING: frozenset({ScanState.SCREENED, ScanState.COMPLETE, ScanState.REFUSED, ScanState.FAILED}),
    ScanState.SCREENED: frozenset({ScanState.DELIVERING}),
    ScanState.DELIVERING: frozenset({ScanState.DONE, ScanState.PARKED}),
    ScanState.DONE: frozenset(),
    ScanState.REFUSED: frozenset({ScanState.COMPLETE}),
    ScanState.FAILED: frozenset({ScanState.COMPLETE}),
    ScanState.PARKED: frozenset({ScanState.DELIVERING}),
}

#: States in which a scan waits for nothing but a person.
TERMINAL = frozenset({ScanState.DONE, ScanState.REFUSED, ScanState.FAILED, ScanState.PARKED})

#: States in which a worker may hold the scan; a lease exists only here.
CLAIMABLE = frozenset({ScanState.COMPLETE, ScanState.PLANNED, ScanState.SCREENING})

#: States that must say why.
EXPLAINED = frozenset({ScanState.REFUSED, ScanState.FAILED, ScanState.PARKED})


class TransitionError(StoreError):
    """The table does not allow a transition."""


def check(scan_id: int, current: ScanState, following: ScanState) -> None:
    """Allow a transition or refuse it.

    Raises
    ------
    TransitionError
        The table does not allow this transition.
    """
    if following not in TRANSITIONS[current]:
        allowed = ", ".join(sorted(TRANSITIONS[current])) or "nothing"
        raise TransitionError(
            f"Scan {scan_id} is {current.value} and cannot become {following.value}; it may become {allowed}."
        )
