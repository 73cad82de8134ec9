"""Slows down whoever guesses passwords, without ever shutting out the room for longer than a minute."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FREE_TRIES = 5
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 60.0
FORGET_AFTER_S = 900.0
#: Wrong passwords a minute from everywhere, before addresses that never logged in have to wait.
ALL_TRIES_A_MINUTE = 60
_MOST_ADDRESSES = 1024


@dataclass(slots=True)
class _Record:
    failures: int = 0
    last_s: float = 0.0
    free_at_s: float = 0.0
    trusted: bool = False


class Throttle:
    """Counts wrong passwords by address.

    The first :data:`FREE_TRIES` cost nothing; then each doubles the wait, up to :data:`LONGEST_WAIT_S`. Where many
    addresses guess together, only those that have logged in before are still let try, so that the room's own PC is.

    Parameters
    ----------
    clock
        Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._tokens = float(ALL_TRIES_A_MINUTE)
        self._tokens_at_s = clock()

    def wait_s(self, address: str) -> float:
        """Return how long an address has to wait before its next try; 0 when it may try now."""
        now_s = self._clock()
        record = self._records.get(_network(address))
        own_s = max(0.0, record.free_at_s - now_s) if record is not None else 0.0
        if record is not None and record.trusted:
            return own_s
        self._refill(now_s)
        shared_s = 0.0 if self._tokens >= 1.0 else (1.0 - self._tokens) * 60.0 / ALL_TRIES_A_MINUTE
        return max(own_s, shared_s)

    def failed(self, address: str) -> None:
        """Note a wrong password."""
        now_s = self._clock()
        record = self._record(address)
        if now_s - record.last_s > FORGET_AFTER_S:
            record.failures = 0
        record.failures += 1
        record.last_s = now_s
        over = record.failures - FREE_TRIES
        if over >= 0:
            record.free_at_s = now_s + min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(over, 16))
        if not record.trusted:
            self._refill(now_s)
            self._tokens = max(0.0, self._tokens - 1.0)

    def succeeded(self, address: str) -> None:
        """Note the right password."""
        record = self._record(address)
        record.failures, record.free_at_s, record.trusted = 0, 0.0, True

    def _record(self, address: str) -> _Record:
        network = _network(address)
        record = self._records.setdefault(network, _Record())
        self._records.move_to_end(network)
        while len(self._records) > _MOST_ADDRESSES:
            guesser = next((name for name, item in self._records.items() if not item.trusted), None)
            del self._records[guesser if guesser is not None else next(iter(self._records))]
        return record

    def _refill(self, now_s: float) -> None:
        gained = (now_s - self._tokens_at_s) * ALL_TRIES_A_MINUTE / 60.0
        self._tokens = min(float(ALL_TRIES_A_MINUTE), self._tokens + gained)
        self._tokens_at_s = now_s


def _network(address: str) -> str:
    """Return what one machine can call from: an IPv4 address, or the /64 that an IPv6 host chooses addresses in."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
