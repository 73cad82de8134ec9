"""Finishes the scans whose deliveries are settled, and lets go of destinations that are no longer configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from appliance.store.deliveries import KIND
from appliance.store.lifecycle import ScanState
from appliance.store.scans import NO_LONGER_CONFIGURED

if TYPE_CHECKING:
    from collections.abc import Collection

    from appliance.store.database import Store

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settled:
    """What one round did.

    Attributes
    ----------
    done, parked
        Scans that became so.
    """

    done: int = 0
    parked: int = 0

    def __add__(self, other: Settled) -> Settled:
        return Settled(self.done + other.done, self.parked + other.parked)


def let_go(store: Store, destinations: Collection[str], *, kind: str = KIND) -> None:
    """Wait no more for destinations that were taken out of the configuration.

    Call it once, when the service starts: what is put in later may be for a destination that a service with a newer
    configuration knows already.

    Parameters
    ----------
    store
        The database.
    destinations
        Names of the configured destinations.
    kind
        Which outbox entries are meant.

    Raises
    ------
    StoreError
        The database cannot be used.
    """
    for scan_id in store.scans.withdraw(destinations, kind=kind):
        log.warning("delivery_let_go", scan=scan_id, why=NO_LONGER_CONFIGURED)


def settle(store: Store) -> Settled:
    """Finish every scan for which nothing waits any more.

    It may be interrupted at any line and called again: each scan's step is one transaction.

    Raises
    ------
    StoreError
        The database cannot be used.
    """
    states = [store.scans.settle(scan_id) for scan_id in store.deliveries.unsettled()]
    return Settled(done=states.count(ScanState.DONE), parked=states.count(ScanState.PARKED))
