"""Leases: which worker holds which scan, so that the next one takes up what a killed one held."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.reasons import Reason, ReasonCode
from appliance.store.events import EventKind
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.store.database import Store
    from appliance.store.scan_rows import ScanRow


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named so that another process with the same id, or another boot, cannot be taken for it.

    Attributes
    ----------
    boot_id
        The kernel's name for this boot.
    pid
        Process id.
    start_ticks
        When the process started, in clock ticks since boot.
    """

    boot_id: str
    pid: int
    start_ticks: int

    @classmethod
    def current(cls) -> Owner:
        """Return this process."""
        return cls(_boot_id(), os.getpid(), process_start_ticks(os.getpid()) or 0)

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Read what :meth:`__str__` wrote."""
        boot_id, pid, ticks = text.split("/")
        return cls(boot_id, int(pid), int(ticks))

    def alive(self) -> bool:
        """Return whether this process still runs."""
        return self.boot_id == _boot_id() and process_start_ticks(self.pid) == self.start_ticks

    def __str__(self) -> str:
        return f"{self.boot_id}/{self.pid}/{self.start_ticks}"


class Leases:
    """The lease columns of the ``scans`` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, owner: Owner, *, seconds: float, now: float | None = None) -> ScanRow | None:
        """Take the scan that waited longest of those tried least often, so that a poisoned one waits last.

        Returns
        -------
        ScanRow or None
            ``None`` when no scan waits.
        """
        moment = time.time() if now is None else now
        with self._store.atomic():
            rows = self._store.rows(
                """
                SELECT id FROM scans WHERE state = ? AND lease_owner IS NULL
                ORDER BY attempts, completed_at, id LIMIT 1
                """,
                (ScanState.COMPLETE.value,),
            )
            if not rows:
                return None
            scan_id = int(rows[0]["id"])
            self._store.execute(
                "UPDATE scans SET attempts = attempts + 1, lease_owner = ?, lease_deadline = ? WHERE id = ?",
                (str(owner), moment + seconds, scan_id),
            )
            return self._store.scans.get(scan_id)

    def renew(self, scan_id: int, owner: Owner, *, seconds: float, now: float | None = None) -> bool:
        """Give a sign of life; return whether the lease is still this owner's."""
        moment = time.time() if now is None else now
        with self._store.atomic():
            changed = self._store.execute(
                "UPDATE scans SET lease_deadline = ? WHERE id = ? AND lease_owner = ?",
                (moment + seconds, scan_id, str(owner)),
            )
        return changed > 0

    def release(self, scan_id: int, *, cause: str) -> None:
        """Give a scan back without counting the attempt: it was not the scan's fault."""
        with self._store.atomic():
            scan = self._store.scans.get(scan_id)
            if scan.lease_owner is None:
                return
            self._back(scan, cause, None)
            self._store.execute("UPDATE scans SET attempts = max(attempts - 1, 0) WHERE id = ?", (scan_id,))

    def lose(
        self,
        scan_id: int,
        reason: Reason,
        *,
        attempts: int,
        numbers: Mapping[str, float] | None = None,
    ) -> ScanState:
        """Record a lost attempt: the scan waits again, or it has failed when that was its last one.

        Parameters
        ----------
        scan_id
            A scan with a lease.
        reason
            Why the attempt was lost.
        attempts
            How many attempts a scan has.
        numbers
            Facts for the event.

        Returns
        -------
        ScanState
            What the scan is now.
        """
        with self._store.atomic():
            scan = self._store.scans.get(scan_id)
            if scan.lease_owner is None:
                return scan.state
            facts = {"attempt": float(scan.attempts), **(numbers or {})}
            self._store.events.record(EventKind.ATTEMPT_LOST, scan_id=scan_id, reason=reason.code, numbers=facts)
            if scan.attempts < attempts:
                self._back(scan, "attempt lost", reason)
                return ScanState.COMPLETE
            final = Reason(
                ReasonCode.ATTEMPTS_EXHAUSTED,
                f"{scan.attempts} attempts were lost; the last one ({reason.code.value}): {reason.text}",
            )
            self._store.scans.move(scan_id, ScanState.FAILED, cause=reason.code.value, reason=final, numbers=facts)
            return ScanState.FAILED

    def held(self) -> list[ScanRow]:
        """Return the scans that somebody holds, oldest first."""
        rows = self._store.rows("SELECT id FROM scans WHERE lease_owner IS NOT NULL ORDER BY id")
        return [self._store.scans.get(row["id"]) for row in rows]

    def take_back(self, *, attempts: int, keep: int | None = None, now: float | None = None) -> list[int]:
        """Take scans back from workers that are dead or have not given a sign of life in time.

        Parameters
        ----------
        attempts
            How many attempts a scan has.
        keep
            Id of the scan that the asking worker has at hand: it knows better than the clock.
        now
            Unix time.

        Returns
        -------
        list of int
            Their ids.
        """
        moment = time.time() if now is None else now
        taken = []
        with self._store.atomic():
            for row in self._store.rows(
                "SELECT id, lease_owner, lease_deadline FROM scans WHERE lease_owner IS NOT NULL ORDER BY id"
            ):
                owner = Owner.parse(row["lease_owner"])
                if row["id"] == keep or (owner.alive() and row["lease_deadline"] > moment):
                    continue
                text = "The worker that held the scan was ended before it finished."
                self.lose(row["id"], Reason(ReasonCode.WORKER_LOST, text), attempts=attempts)
                taken.append(int(row["id"]))
        return taken

    def _back(self, scan: ScanRow, cause: str, reason: Reason | None) -> None:
        if scan.state is ScanState.COMPLETE:
            self._store.execute("UPDATE scans SET lease_owner = NULL, lease_deadline = NULL WHERE id = ?", (scan.id,))
        else:
            self._store.scans.move(scan.id, ScanState.COMPLETE, cause=cause, reason=reason)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def process_start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; ``None`` when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold spaces; after it come the state and, as the twentieth, the start time.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
