"""Scans: one row per revision of a series, its state and its history; the only place that changes a state."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from appliance.errors import StoreError
from appliance.reasons import Reason, ReasonCode
from appliance.store.events import EventKind
from appliance.store.lifecycle import CLAIMABLE, EXPLAINED, TERMINAL, ScanState, check
from appliance.store.outbox import OutboxState
from appliance.store.scan_rows import ScanRow, Summary, TransitionRow, scan_row

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from appliance.store.database import Store

NO_LONGER_CONFIGURED = "no longer configured"
"""Why a thing is done that was never confirmed: its destination is gone."""

_EVENTS = {
    ScanState.REFUSED: EventKind.REFUSED,
    ScanState.FAILED: EventKind.FAILED,
    ScanState.PARKED: EventKind.PARKED,
}


class Scans:
    """The ``scans`` and ``transitions`` tables."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self,
        *,
        study_instance_uid: str,
        series_instance_uid: str,
        accession_number: str,
        modality: str,
        revision: int,
        instances: int,
        at: float,
    ) -> int:
        """Begin a revision of a series in the state ``receiving`` and return its id."""
        with self._store.atomic():
            now = time.time()
            row: dict[str, Any] = {
                "study_instance_uid": study_instance_uid,
                "series_instance_uid": series_instance_uid,
                "accession_number": accession_number,
                "modality": modality,
                "revision": revision,
                "state": ScanState.RECEIVING.value,
                "instances": instances,
                "created_at": now,
                "last_instance_at": at,
            }
            scan_id = self._store.insert("scans", row)
            self._remember(scan_id, None, ScanState.RECEIVING, "first instance", at=now)
        return scan_id

    def restore(self, row: dict[str, Any], *, at: float) -> None:
        """Put back a scan that its results folder describes; only :mod:`appliance.store.rebuild` does this."""
        with self._store.atomic():
            scan_id = self._store.insert("scans", row)
            self._remember(scan_id, None, ScanState(row["state"]), "restored from its results folder", at=at)

    def move(
        self,
        scan_id: int,
        to: ScanState,
        *,
        cause: str,
        reason: Reason | None = None,
        numbers: Mapping[str, float] | None = None,
        at: float | None = None,
    ) -> None:
        """Make one transition, with its line of history and its event, in one transaction.

        Parameters
        ----------
        scan_id
            Database id.
        to
            The next state.
        cause
            What made it so, in a few words for the history.
        reason
            Required for ``refused``, ``failed`` and ``parked``, and kept as the scan's reason.
        numbers
            Facts for the event of such a state.
        at
            Unix time; now by default.

        Raises
        ------
        StoreError
            There is no such scan, the transition is not allowed, or its reason is missing.
        """
        now = time.time() if at is None else at
        if to in EXPLAINED and reason is None:
            raise StoreError(f"Scan {scan_id} cannot become {to.value} without a reason.")
        with self._store.atomic():
            current = self.get(scan_id).state
            check(scan_id, current, to)
            changes: dict[str, Any] = {"state": to.value}
            if to is ScanState.COMPLETE and current is ScanState.RECEIVING:
                changes |= {"completion_reason": cause, "completed_at": now}
            explained = reason if to in EXPLAINED else None
            changes["reason_code"] = explained.code.value if explained else None
            changes["reason_text"] = explained.text if explained else None
            changes["finished_at"] = now if to in TERMINAL else None
            if to is ScanState.COMPLETE or to not in CLAIMABLE:
                changes |= {"lease_owner": None, "lease_deadline": None}
            names = ", ".join(f"{name} = ?" for name in changes)
            self._store.execute(f"UPDATE scans SET {names} WHERE id = ?", (*changes.values(), scan_id))
            self._remember(scan_id, current, to, cause, reason=reason, at=now)
            if to in _EVENTS and reason is not None:
                self._store.events.record(_EVENTS[to], scan_id=scan_id, reason=reason.code, numbers=numbers, at=now)

    def advance(self, scan_id: int, to: ScanState, *, cause: str, at: float | None = None) -> None:
        """Walk the main line up to a state, in one transaction; nothing when the scan is there already.

        Raises
        ------
        StoreError
            The scan is not on the main line before that state.
        """
        line = list(ScanState)[: list(ScanState).index(ScanState.DONE) + 1]
        with self._store.atomic():
            current = self.get(scan_id).state
            if current not in line or to not in line or line.index(current) > line.index(to):
                check(scan_id, current, to)
            for state in line[line.index(current) + 1 : line.index(to) + 1]:
                self.move(scan_id, state, cause=cause, at=at)

    def hand_over(
        self, scan_id: int, destinations: Iterable[str], *, hl7: Iterable[str] = (), at: float | None = None
    ) -> None:
        """Give a screened scan to delivery: an outbox entry for each destination, or ``done`` without any.

        Parameters
        ----------
        scan_id
            The scan.
        destinations
            Names of those that are sent its objects.
        hl7
            Names of those that are told its result in a message.
        at
            Unix time; now by default.
        """
        with self._store.atomic():
            scan = self.get(scan_id)
            self.move(scan_id, ScanState.DELIVERING, cause="results stored", at=at)
            for destination in destinations:
                self._store.outbox.put(
                    f"pacs/{destination}/{scan.folder}",
                    "pacs",
                    {"folder": scan.folder, "revision": scan.revision},
                    destination=destination,
                    scan_id=scan_id,
                    at=at,
                )
            for receiver in hl7:
                key, payload = f"hl7/{receiver}/{scan.folder}", {"scan": scan_id}
                self._store.outbox.put(key, "hl7", payload, destination=receiver, scan_id=scan_id, at=at)
            self.settle(scan_id, at=at)

    def withdraw(self, destinations: Collection[str], *, kind: str = "pacs", at: float | None = None) -> list[int]:
        """Wait for no destination that is none of these any more; parked scans that waited for nothing else go on.

        Parameters
        ----------
        destinations
            The names that there still are.
        kind
            Which entries are meant.
        at
            Unix time; now by default.

        Returns
        -------
        list of int
            Ids of the scans that waited for one.
        """
        with self._store.atomic():
            waited = sorted(self._store.outbox.withdraw(kind, destinations, NO_LONGER_CONFIGURED, at=at))
            for scan_id in waited:
                entries = self._store.outbox.of_scan(scan_id)
                parked = self.get(scan_id).state is ScanState.PARKED
                if parked and not any(entry.state is OutboxState.PARKED for entry in entries):
                    self.move(scan_id, ScanState.DELIVERING, cause=NO_LONGER_CONFIGURED, at=at)
        return waited

    def settle(self, scan_id: int, *, at: float | None = None) -> ScanState:
        """Finish a delivering scan when nothing waits in the outbox for it any more, and return its state.

        It becomes ``done`` when everything was confirmed or withdrawn, and ``parked`` when something needs a person.
        """
        with self._store.atomic():
            scan = self.get(scan_id)
            entries = self._store.outbox.of_scan(scan_id)
            if scan.state is not ScanState.DELIVERING or any(e.state is OutboxState.WAITING for e in entries):
                return scan.state
            parked = [entry for entry in entries if entry.state is OutboxState.PARKED]
            if parked:
                reason = Reason(ReasonCode.DELIVERY_PARKED, parked[0].reason or "")
                self.move(scan_id, ScanState.PARKED, cause="delivery parked", reason=reason, at=at)
                return ScanState.PARKED
            cause = NO_LONGER_CONFIGURED if entries else "no destinations"
            if any(entry.reason is None for entry in entries):
                cause = "delivered"
            self.move(scan_id, ScanState.DONE, cause=cause, at=at)
            return ScanState.DONE

    def retry(self, scan_id: int) -> None:
        """Take up a refused, failed or parked scan again because a person asked for it.

        Raises
        ------
        StoreError
            The scan is none of these, a later revision has taken its place, or images of it were deleted.
        """
        with self._store.atomic():
            scan = self.get(scan_id)
            if scan.state is ScanState.PARKED:
                for entry in self._store.outbox.of_scan(scan_id):
                    self._store.outbox.unpark(entry.key)
                self.move(scan_id, ScanState.DELIVERING, cause="a person asked for it")
                return
            check(scan_id, scan.state, ScanState.COMPLETE)
            self._check_still_whole(scan)
            self.move(scan_id, ScanState.COMPLETE, cause="a person asked for it")
            self._store.execute("UPDATE scans SET attempts = 0 WHERE id = ?", (scan_id,))

    def _check_still_whole(self, scan: ScanRow) -> None:
        later = self._select(
            "WHERE study_instance_uid = ? AND series_instance_uid = ? AND revision > ? ORDER BY revision DESC LIMIT 1",
            (scan.study_instance_uid, scan.series_instance_uid, scan.revision),
        )
        if later:
            raise StoreError(
                f"Scan {scan.id} is revision {scan.revision} of its series and revision {later[0].revision}, scan "
                f"{later[0].id}, has taken its place; ask for that one."
            )
        gone = scan.instances - sum(not item.pruned for item in self._store.instances.of_scan(scan.id))
        if gone > 0:
            raise StoreError(
                f"{gone} of the {scan.instances} images of scan {scan.id} were deleted (retention.pixel_days); "
                "send the whole series again first."
            )

    def get(self, scan_id: int) -> ScanRow:
        """Return one scan.

        Raises
        ------
        StoreError
            There is none with this id.
        """
        rows = self._select("WHERE id = ?", (scan_id,))
        if not rows:
            raise StoreError(f"There is no scan {scan_id}.")
        return rows[0]

    def find(self, reference: str | int) -> list[ScanRow]:
        """Return the scans that a person means, the newest revision first.

        Parameters
        ----------
        reference
            A database id, an accession number, or a Study, Series or SOP Instance UID; the first of these that names
            anything decides. ``id:`` or ``accession:`` before it says which is meant.

        Returns
        -------
        list of ScanRow
            Empty when nothing is meant by it.
        """
        text = str(reference).strip()
        if text.startswith("accession:"):
            return self._select("WHERE accession_number = ? ORDER BY id DESC", (text.removeprefix("accession:"),))
        only_id = text.startswith("id:")
        text = text.removeprefix("id:")
        # "007" is how somebody writes an accession number, never an id
        if text.isascii() and text.isdigit() and len(text) <= 18 and str(int(text)) == text:
            found = self._select("WHERE id = ?", (int(text),))
            if found:
                return found
        if only_id or not text:
            return []
        for clause in (
            "accession_number = ?",
            "study_instance_uid = ?",
            "series_instance_uid = ?",
            "id IN (SELECT scan_id FROM instances WHERE sop_instance_uid = ? AND disposition = 'used')",
        ):
            found = self._select(f"WHERE {clause} ORDER BY id DESC", (text,))
            if found:
                return found
        return []

    def in_state(self, *states: ScanState, limit: int = 1000) -> list[ScanRow]:
        """Return the scans in some states, oldest first."""
        marks = ", ".join("?" for _ in states)
        return self._select(f"WHERE state IN ({marks}) ORDER BY id LIMIT ?", (*states, limit))

    def same_study(self, scan: ScanRow) -> list[ScanRow]:
        """Return the study's other scans that are whole and were not refused, oldest first."""
        if not scan.study_instance_uid:
            return []
        unusable = (ScanState.RECEIVING, ScanState.REFUSED, ScanState.FAILED)
        marks = ", ".join("?" for _ in unusable)
        return self._select(
            f"WHERE study_instance_uid = ? AND id <> ? AND state NOT IN ({marks}) ORDER BY id",
            (scan.study_instance_uid, scan.id, *unusable),
        )

    def earlier_revisions(self, scan: ScanRow) -> list[ScanRow]:
        """Return the revisions of a scan's series before this one, the last one first."""
        return self._select(
            "WHERE study_instance_uid = ? AND series_instance_uid = ? AND revision < ? ORDER BY revision DESC",
            (scan.study_instance_uid, scan.series_instance_uid, scan.revision),
        )

    def done_since(self, at: float) -> list[ScanRow]:
        """Return the scans that became ``done`` at a time or later, Unix time."""
        return self._select("WHERE state = 'done' AND finished_at >= ? ORDER BY finished_at", (at,))

    def last(self, limit: int = 20) -> list[ScanRow]:
        """Return the newest scans, newest first."""
        return self._select("ORDER BY id DESC LIMIT ?", (limit,))

    def history(self, scan_id: int) -> list[TransitionRow]:
        """Return every step of a scan's life, oldest first."""
        rows = self._store.rows("SELECT * FROM transitions WHERE scan_id = ? ORDER BY id", (scan_id,))
        return [
            TransitionRow(
                from_state=ScanState(row["from_state"]) if row["from_state"] else None,
                to_state=ScanState(row["to_state"]),
                at=row["at"],
                cause=row["cause"],
                reason_code=ReasonCode(row["reason_code"]) if row["reason_code"] else None,
                reason_text=row["reason_text"],
            )
            for row in rows
        ]

    def open_associations(self, scan_id: int) -> int:
        """Return how many associations that brought something of a scan's series have not ended yet."""
        rows = self._store.rows(
            """
            SELECT count(DISTINCT a.name) AS number FROM instances i JOIN associations a ON a.name =
            i.association WHERE i.scan_id = ? AND a.closed_reason IS NULL AND a.pruned_at IS NULL
            """,
            (scan_id,),
        )
        return int(rows[0]["number"])

    def closing_reasons(self, scan_id: int) -> set[str]:
        """Return how the associations that brought something of a scan's series have ended."""
        rows = self._store.rows(
            """
            SELECT DISTINCT a.closed_reason AS reason FROM instances i JOIN associations a ON a.name =
            i.association WHERE i.scan_id = ? AND a.closed_reason IS NOT NULL
            """,
            (scan_id,),
        )
        return {row["reason"] for row in rows}

    def summary(self, *, last: int = 10, now: float | None = None) -> Summary:
        """Return what ``status`` shows of the queue."""
        moment = time.time() if now is None else now
        rows = self._store.rows(
            """
            SELECT state, count(*) AS number, min(coalesce(completed_at, created_at)) AS since,
                max(finished_at) AS finished FROM scans GROUP BY state
            """
        )
        counts = dict.fromkeys(ScanState, 0)
        oldest: dict[ScanState, float] = {}
        finished = [row["finished"] for row in rows if row["finished"] is not None]
        for row in rows:
            state = ScanState(row["state"])
            counts[state] = row["number"]
            if state not in TERMINAL:
                oldest[state] = max(0.0, moment - row["since"])
        return Summary(counts, oldest, max(finished, default=None), tuple(self.last(last)))

    def folders(self) -> set[str]:
        """Return the names that the results folders of all scans have or would have."""
        return {f"{row['id']}-r{row['revision']}" for row in self._store.rows("SELECT id, revision FROM scans")}

    def _remember(
        self,
        scan_id: int,
        current: ScanState | None,
        to: ScanState,
        cause: str,
        *,
        at: float,
        reason: Reason | None = None,
    ) -> None:
        row = {
            "scan_id": scan_id,
            "from_state": current.value if current else None,
            "to_state": to.value,
            "at": at,
            "cause": cause,
            "reason_code": reason.code.value if reason else None,
            "reason_text": reason.text if reason else None,
        }
        self._store.insert("transitions", row)

    def _select(self, clause: str, parameters: tuple[object, ...]) -> list[ScanRow]:
        rows = self._store.rows(f"SELECT * FROM scans {clause}", parameters)
        return [scan_row(row) for row in rows]
