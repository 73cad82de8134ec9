"""Spooled instances: which scan each belongs to, and why one is not used.

The rules of assembly that must hold under any interleaving are here, inside the transaction: the first
instance with a SOP Instance UID is the one that counts, unless its scan was refused and it comes again with another
content; and what arrives after a revision completed opens the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.reasons import Reason, ReasonCode
from appliance.store.events import EventKind
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.store.database import Store


class Disposition(StrEnum):
    """What became of a spooled instance."""

    USED = "used"
    DUPLICATE = "duplicate"
    CONFLICTING = "conflicting"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class InstanceIdentity:
    """What the header says about where an instance belongs."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    accession_number: str
    modality: str


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """One complete file in the spool.

    Attributes
    ----------
    name
        File name inside its association's folder.
    identity
        ``None`` when the header cannot be read.
    problem
        Why not; given exactly when the identity is not.
    bytes
        Size of the file.
    digest
        ``sha256:…`` over the dataset, without the preamble and the file meta information, which may differ
        between two transfers of the same instance.
    received_at
        Unix time.
    """

    name: str
    identity: InstanceIdentity | None
    problem: Reason | None
    bytes: int
    digest: str
    received_at: float

    def __post_init__(self) -> None:
        if (self.identity is None) == (self.problem is None):
            raise ValueError("a spooled instance has either an identity or a problem")


@dataclass(frozen=True, slots=True)
class UsedInstance:
    """An instance that a scan is made of.

    Attributes
    ----------
    sop_instance_uid, sop_class_uid, digest, bytes, received_at
        See :class:`SpooledInstance`.
    association, name
        Where it lies in the spool.
    revision
        The revision that it came with.
    pruned
        Whether retention has deleted it.
    """

    sop_instance_uid: str
    sop_class_uid: str
    association: str
    name: str
    digest: str
    bytes: int
    received_at: float
    revision: int
    pruned: bool

    @property
    def path(self) -> str:
        """Path below the spool."""
        return f"associations/{self.association}/{self.name}"


class Instances:
    """The ``instances`` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, association: str, spooled: Iterable[SpooledInstance]) -> list[int]:
        """Index instances in one transaction; those already indexed change nothing.

        Returns
        -------
        list of int
            Identifiers of the scans that are receiving and got something, also when it was only a duplicate.
        """
        touched: dict[int, None] = {}
        with self._store.atomic():
            known = self.names(association)
            for item in spooled:
                if item.name in known:
                    continue
                known.add(item.name)
                scan_id = self._add(association, item)
                if scan_id is not None:
                    touched[scan_id] = None
        return list(touched)

    def names(self, association: str) -> set[str]:
        """Return the names of an association's files that the database knows."""
        rows = self._store.rows("SELECT name FROM instances WHERE association = ?", (association,))
        return {row["name"] for row in rows}

    def of_scan(self, scan_id: int) -> list[UsedInstance]:
        """Return what a scan is made of: the instances of its own and of all earlier revisions.

        Where retention has deleted an instance that came a second time, the second file stands in for it.
        """
        rows = self._store.rows(
            """
            SELECT i.sop_instance_uid, i.sop_class_uid, i.digest, i.bytes, i.received_at, own.revision,
                coalesce(again.association, i.association) AS association, coalesce(again.name, i.name) AS name,
                a.pruned_at IS NOT NULL AND again.id IS NULL AS pruned
            FROM scans s
            JOIN scans own ON own.study_instance_uid = s.study_instance_uid
                AND own.series_instance_uid = s.series_instance_uid AND own.revision <= s.revision
            JOIN instances i ON i.scan_id = own.id AND i.disposition = 'used'
            JOIN associations a ON a.name = i.association
            LEFT JOIN instances again ON a.pruned_at IS NOT NULL AND again.id = (
                SELECT d.id FROM instances d JOIN associations da ON da.name = d.association
                WHERE d.scan_id = i.scan_id AND d.sop_instance_uid = i.sop_instance_uid
                    AND d.disposition = 'duplicate' AND da.pruned_at IS NULL LIMIT 1)
            WHERE s.id = ? ORDER BY i.id
            """,
            (scan_id,),
        )
        return [
            UsedInstance(
                sop_instance_uid=row["sop_instance_uid"],
                sop_class_uid=row["sop_class_uid"],
                association=row["association"],
                name=row["name"],
                digest=row["digest"],
                bytes=row["bytes"],
                received_at=row["received_at"],
                revision=row["revision"],
                pruned=bool(row["pruned"]),
            )
            for row in rows
        ]

    def restore(self, scan_id: int, used: UsedInstance) -> None:
        """Put back an instance that a results folder names; only :mod:`appliance.store.rebuild` does this."""
        with self._store.atomic():
            self._store.associations.see(used.association, at=used.received_at)
            if used.pruned:
                self._store.associations.mark_pruned(used.association, at=used.received_at)
            if self._store.rows(
                "SELECT 1 FROM instances WHERE sop_instance_uid = ? AND disposition = 'used'",
                (used.sop_instance_uid,),
            ):
                return  # an earlier revision has brought it back
            self._store.insert(
                "instances",
                {
                    "association": used.association,
                    "name": used.name,
                    "disposition": Disposition.USED.value,
                    "scan_id": scan_id,
                    "sop_instance_uid": used.sop_instance_uid,
                    "sop_class_uid": used.sop_class_uid,
                    "bytes": used.bytes,
                    "digest": used.digest,
                    "received_at": used.received_at,
                },
            )

    def _add(self, association: str, item: SpooledInstance) -> int | None:
        if item.identity is None:
            self._insert(association, item, Disposition.UNREADABLE, None, item.problem)
            reason = item.problem.code if item.problem else None
            self._store.events.record(EventKind.UNREADABLE_INSTANCE, reason=reason)
            return None
        first = self._store.rows(
            """
            SELECT i.id, i.scan_id, i.digest, s.state, s.study_instance_uid, s.series_instance_uid
            FROM instances i JOIN scans s ON s.id = i.scan_id
            WHERE i.sop_instance_uid = ? AND i.disposition = 'used'
            """,
            (item.identity.sop_instance_uid,),
        )
        if not first:
            return self._use(association, item, item.identity)
        known = first[0]
        series = (item.identity.study_instance_uid, item.identity.series_instance_uid)
        corrected = item.digest != known["digest"] and known["state"] == ScanState.REFUSED
        if corrected and series == (known["study_instance_uid"], known["series_instance_uid"]):
            return self._use(association, item, item.identity, instead_of=known["id"])
        return self._add_again(association, item, known["scan_id"], known["digest"])

    def _use(
        self, association: str, item: SpooledInstance, identity: InstanceIdentity, *, instead_of: int | None = None
    ) -> int:
        """Make an instance part of the revision that receives, if need be instead of one of a refused revision."""
        scan_id = self._receiving(identity, item.received_at)
        if instead_of is not None:
            text = "The series was refused and this instance came again with another content; the later one is used."
            self._store.execute(
                "UPDATE instances SET disposition = ?, reason_code = ?, reason_text = ? WHERE id = ?",
                (Disposition.CONFLICTING.value, ReasonCode.CONFLICTING_DUPLICATES.value, text, instead_of),
            )
        self._insert(association, item, Disposition.USED, scan_id, None)
        self._store.execute(
            """
            UPDATE scans SET instances = instances + ?, last_instance_at = max(last_instance_at, ?),
                accession_number = CASE WHEN accession_number = '' THEN ? ELSE accession_number END
            WHERE id = ?
            """,
            # The one that was replaced is among those that the revision began with.
            (1 if instead_of is None else 0, item.received_at, identity.accession_number, scan_id),
        )
        return scan_id

    def _add_again(self, association: str, item: SpooledInstance, scan_id: int, digest: str) -> int | None:
        if item.digest == digest:
            self._insert(association, item, Disposition.DUPLICATE, scan_id, None)
        else:
            reason = Reason(
                ReasonCode.CONFLICTING_DUPLICATES,
                "An instance with this SOP Instance UID and another content came earlier; that one is used.",
            )
            self._insert(association, item, Disposition.CONFLICTING, scan_id, reason)
            self._store.events.record(EventKind.CONFLICTING_DUPLICATE, scan_id=scan_id, reason=reason.code)
        # A series that is being sent a second time is not quiet.
        changed = self._store.execute(
            """
            UPDATE scans SET last_instance_at = max(last_instance_at, ?) WHERE id = ? AND state = 'receiving'
            """,
            (item.received_at, scan_id),
        )
        return scan_id if changed else None

    def _receiving(self, identity: InstanceIdentity, at: float) -> int:
        latest = self._store.rows(
            """
            SELECT id, revision, state FROM scans
            WHERE study_instance_uid = ? AND series_instance_uid = ? ORDER BY revision DESC LIMIT 1
            """,
            (identity.study_instance_uid, identity.series_instance_uid),
        )
        if latest and latest[0]["state"] == ScanState.RECEIVING:
            return int(latest[0]["id"])
        scan_id = self._store.scans.create(
            study_instance_uid=identity.study_instance_uid,
            series_instance_uid=identity.series_instance_uid,
            accession_number=identity.accession_number,
            modality=identity.modality,
            revision=latest[0]["revision"] + 1 if latest else 1,
            # A later revision holds everything that came before it, as far as it is still known.
            instances=len(self.of_scan(latest[0]["id"])) if latest else 0,
            at=at,
        )
        if latest:
            self._store.events.record(
                EventKind.LATE_INSTANCES, scan_id=scan_id, numbers={"revision": latest[0]["revision"] + 1}
            )
        return scan_id

    def _insert(
        self,
        association: str,
        item: SpooledInstance,
        disposition: Disposition,
        scan_id: int | None,
        reason: Reason | None,
    ) -> None:
        identity = item.identity
        self._store.insert(
            "instances",
            {
                "association": association,
                "name": item.name,
                "disposition": disposition.value,
                "reason_code": reason.code.value if reason else None,
                "reason_text": reason.text if reason else None,
                "scan_id": scan_id,
                "sop_instance_uid": identity.sop_instance_uid if identity else None,
                "sop_class_uid": identity.sop_class_uid if identity else None,
                "bytes": item.bytes,
                "digest": item.digest,
                "received_at": item.received_at,
            },
        )
