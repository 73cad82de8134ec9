"""Storage commitment that others ask of this box: what for, what it says of each instance, whether they were told."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from appliance.dicom.commitment_spool import ReferencedInstance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from appliance.dicom.commitment_spool import CommitmentRequest
    from appliance.store.database import Store

_AT_ONCE = 500


class RequestState(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"
    DECIDED = "decided"
    REPORTED = "reported"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class CommitmentRequestRow:
    """One request.

    Attributes
    ----------
    name
        Of the port's file that it came in.
    peer_ae_title, peer_address
        Who asked, from which IP address.
    transaction_uid
        As asked.
    instances
        What for; each with its failure once it is decided.
    state
        Where it stands.
    attempts, reason
        How often the report was sent, and why it did not arrive, as a sentence.
    received_at, next_try_at
        Unix time.
    """

    name: str
    peer_ae_title: str
    peer_address: str
    transaction_uid: str
    instances: tuple[ReferencedInstance, ...]
    state: RequestState
    attempts: int
    reason: str | None
    received_at: float
    next_try_at: float


@dataclass(frozen=True, slots=True)
class AskingPeer:
    """A peer that has asked for storage commitment lately.

    Attributes
    ----------
    ae_title
        Its AE title.
    waiting, reported, given_up
        Its requests that are not reported yet, are reported, or whose report could not be given to it.
    reason
        The latest sentence of a report that could not be given.
    """

    ae_title: str
    waiting: int
    reported: int
    given_up: int
    reason: str | None


class CommitmentRequests:
    """The ``commitment_requests`` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, request: CommitmentRequest, *, duplicate_failure: int) -> str | None:
        """Store a request; one that is there already changes nothing.

        A request that repeats one whose report is still owed takes its place, because its association is the newer one.
        Where the same transaction is asked for other instances, everything of the later request fails.

        Parameters
        ----------
        request
            As the port received it.
        duplicate_failure
            The failure reason for that.

        Returns
        -------
        str or None
            The name of the request whose place it took.
        """
        instances = request.instances
        replaced: str | None = None
        state = RequestState.WAITING
        with self._store.atomic():
            if self._select("WHERE name = ?", (request.name,)):
                return None
            for owed in self._select(
                "WHERE transaction_uid = ? AND peer_ae_title = ? AND state IN ('waiting', 'decided')",
                (request.transaction_uid, request.peer_ae_title),
            ):
                if _same(owed.instances, request.instances):
                    replaced = owed.name
                    self._store.execute("DELETE FROM commitment_requests WHERE name = ?", (owed.name,))
                else:
                    instances = tuple(replace(item, failure=duplicate_failure) for item in request.instances)
                    state = RequestState.DECIDED
            row = {
                "name": request.name,
                "peer_ae_title": request.peer_ae_title,
                "peer_address": request.peer_address,
                "transaction_uid": request.transaction_uid,
                "instances": _encoded(instances),
                "state": state.value,
                "received_at": request.received_at,
                "next_try_at": request.received_at,
            }
            self._store.insert("commitment_requests", row)
        return replaced

    def waiting(self) -> list[CommitmentRequestRow]:
        """Return the requests that nothing is decided of, oldest first."""
        return self._select("WHERE state = 'waiting' ORDER BY id")

    def decide(self, name: str, instances: Sequence[ReferencedInstance], *, report_at: float) -> None:
        """Record what is reported of each instance, and when that is sent on an association of its own.

        Parameters
        ----------
        name
            The request's.
        instances
            Each with its failure, or without one when it is committed.
        report_at
            Unix time.
        """
        self._update(
            name, "state = 'decided', instances = ?, next_try_at = ?", (_encoded(instances), report_at), "waiting"
        )

    def due(self, now: float, *, longest_wait_s: float) -> list[CommitmentRequestRow]:
        """Return what may be reported now, the longest due first.

        Parameters
        ----------
        now
            Unix time.
        longest_wait_s
            What would wait longer than this is due as well: the clock was set back.
        """
        return self._select(
            "WHERE state = 'decided' AND (next_try_at <= ? OR next_try_at > ?) ORDER BY next_try_at LIMIT 20",
            (now, now + longest_wait_s),
        )

    def put_off(self, name: str, *, retry_at: float, reason: str | None = None) -> None:
        """Try to report later; with a reason it counts as a failed attempt."""
        self._update(
            name,
            "attempts = attempts + ?, reason = coalesce(?, reason), next_try_at = ?",
            (int(reason is not None), reason, retry_at),
            "decided",
        )

    def finish(self, name: str, state: RequestState, *, reason: str | None = None, at: float | None = None) -> None:
        """Record that the report was taken, or that nobody takes it, with the reason."""
        self._update(
            name,
            "state = ?, reason = ?, finished_at = ?",
            (state.value, reason, time.time() if at is None else at),
            "decided",
        )

    def held(self, sop_instance_uids: Iterable[str]) -> dict[str, str]:
        """Return the SOP Class UID of each of these instances whose file is still on this box."""
        wanted = list(sop_instance_uids)
        found: dict[str, str] = {}
        for begin in range(0, len(wanted), _AT_ONCE):
            part = wanted[begin : begin + _AT_ONCE]
            rows = self._store.rows(
                f"""
                SELECT i.sop_instance_uid AS uid, i.sop_class_uid AS class FROM instances i
                JOIN associations a ON a.name = i.association
                WHERE i.disposition = 'used' AND i.sop_instance_uid IN ({", ".join("?" for _ in part)})
                    AND (a.pruned_at IS NULL OR EXISTS (
                        SELECT 1 FROM instances d JOIN associations da ON da.name = d.association
                        WHERE d.scan_id = i.scan_id AND d.sop_instance_uid = i.sop_instance_uid
                            AND d.disposition = 'duplicate' AND da.pruned_at IS NULL))
                """,
                part,
            )
            found |= {row["uid"]: row["class"] for row in rows}
        return found

    def peers(self, *, since: float) -> list[AskingPeer]:
        """Return who has asked since a time, Unix seconds, by AE title."""
        rows = self._store.rows(
            """
            SELECT peer_ae_title AS title, sum(state IN ('waiting', 'decided')) AS waiting,
                sum(state = 'reported') AS reported, sum(state = 'given_up') AS given_up,
                (SELECT reason FROM commitment_requests last WHERE last.peer_ae_title = r.peer_ae_title
                    AND last.reason IS NOT NULL ORDER BY last.id DESC LIMIT 1) AS reason
            FROM commitment_requests r WHERE received_at >= ? GROUP BY peer_ae_title ORDER BY peer_ae_title
            """,
            (since,),
        )
        return [
            AskingPeer(row["title"], row["waiting"], row["reported"], row["given_up"], row["reason"]) for row in rows
        ]

    def forget(self, *, finished_before: float) -> int:
        """Delete the requests that were done with before a time, Unix seconds; return how many."""
        with self._store.atomic():
            return self._store.execute("DELETE FROM commitment_requests WHERE finished_at < ?", (finished_before,))

    def get(self, name: str) -> CommitmentRequestRow | None:
        """Return one request."""
        found = self._select("WHERE name = ?", (name,))
        return found[0] if found else None

    def _update(self, name: str, change: str, values: tuple[object, ...], state: str) -> None:
        with self._store.atomic():
            self._store.execute(
                f"UPDATE commitment_requests SET {change} WHERE name = ? AND state = ?", (*values, name, state)
            )

    def _select(self, clause: str, parameters: tuple[object, ...] = ()) -> list[CommitmentRequestRow]:
        rows = self._store.rows(f"SELECT * FROM commitment_requests {clause}", parameters)
        return [_row(row) for row in rows]


def _encoded(instances: Iterable[ReferencedInstance]) -> str:
    return json.dumps([asdict(item) for item in instances])


def _same(some: Iterable[ReferencedInstance], others: Iterable[ReferencedInstance]) -> bool:
    return {item.sop_instance_uid for item in some} == {item.sop_instance_uid for item in others}


def _row(row: dict[str, Any]) -> CommitmentRequestRow:
    return CommitmentRequestRow(
        name=row["name"],
        peer_ae_title=row["peer_ae_title"],
        peer_address=row["peer_address"],
        transaction_uid=row["transaction_uid"],
        instances=tuple(ReferencedInstance(**item) for item in json.loads(row["instances"])),
        state=RequestState(row["state"]),
        attempts=row["attempts"],
        reason=row["reason"],
        received_at=row["received_at"],
        next_try_at=row["next_try_at"],
    )
