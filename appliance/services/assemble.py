"""From instances in the spool to scans in the database: what belongs together, and when it is complete.

The spool is the truth and is never changed here; the database only indexes it in place. Everything can be stopped at
any line and begun again, also with an empty database.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from appliance.dicom import procedure_steps
from appliance.dicom.image.headers import UnreadableFileError, read_header
from appliance.dicom.spool import CloseReason, Room, read_association
from appliance.reasons import Reason, ReasonCode
from appliance.store.instances import InstanceIdentity, SpooledInstance
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

    from appliance.dicom.spool import SpooledAssociation
    from appliance.store.database import Store
    from appliance.store.scan_rows import ScanRow

_log = structlog.get_logger()

#: Why a series is complete when its scanner said so.
MPPS = "mpps"

#: Instances read between two looks at the rest of the work, and committed in one transaction.
BATCH = 100

_META_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"  # (0002,0000), always explicit VR little endian (PS3.10, 7.1)


@dataclass(slots=True)
class _Pending:
    """What one association still has to give in the pass at hand."""

    association: SpooledAssociation
    paths: deque[Path]


class Assembler:
    """Indexes the spool and decides when a series is complete.

    A series is complete when every association that brought something of it has ended and nothing of it has come for
    ``quiet_s``, or, whatever its associations do, when nothing of it has come for ``force_s``. Where the scanner has
    reported its procedure step as completed (PS3.4 Annex F) and named the series' images, these decide instead of
    ``quiet_s``: with all of them here the series is complete at once, and else it waits for them.

    Parameters
    ----------
    store
        The database.
    spool
        Root of the spool.
    quiet_s, force_s
        See above.
    """

    def __init__(self, store: Store, spool: Path, *, quiet_s: float, force_s: float) -> None:
        self._store = store
        self._spool = spool
        self._room = spool / Room.ASSOCIATIONS
        self._quiet_s = quiet_s
        self._force_s = force_s
        self._pending: deque[_Pending] = deque()
        self._known: dict[str, set[str]] = {}
        self._steps_seen: dict[Path, int] = {}
        self._complained: set[Path] = set()
        # When something of a series was last seen to come, on the clock that nobody sets.
        self._last_came: dict[int, float] = {}
        known = store.associations.all()
        self._indexed = {row.name for row in known if row.indexed}
        self._forget_vanished({row.name for row in known if not row.indexed})

    def index(self) -> bool:
        """Index the next batch.

        Returns
        -------
        bool
            Whether everything that lay in the spool when this pass began is indexed now.
        """
        if not self._pending:
            self._list()
        room_left = BATCH
        try:
            while self._pending and room_left > 0:
                room_left -= max(1, self._index_some(self._pending[0], room_left))
                if not self._pending[0].paths:
                    self._pending.popleft()
        except BaseException:
            self._pending.clear()  # what was taken out is found again by the next pass
            raise
        return not self._pending

    def complete(self) -> list[int]:
        """Complete the series that are; call it only when :meth:`index` has caught up.

        Returns
        -------
        list of int
            Ids of the scans that are complete now.
        """
        self._index_procedure_steps()
        completed = []
        for scan in self._store.scans.in_state(ScanState.RECEIVING):
            now = time.monotonic()
            since = self._last_came.setdefault(scan.id, now - max(0.0, time.time() - scan.last_instance_at))
            reason = self._completion(scan, now - since)
            if reason is not None:
                self._store.scans.move(scan.id, ScanState.COMPLETE, cause=reason)
                del self._last_came[scan.id]
                completed.append(scan.id)
                _log.info(
                    "series_complete", scan=scan.id, reason=reason, instances=scan.instances, revision=scan.revision
                )
        return completed

    def _completion(self, scan: ScanRow, quiet_s: float) -> str | None:
        if not self._store.scans.open_associations(scan.id):
            signal = self._store.procedure_steps.signal(scan.series_instance_uid)
            if signal.tells_when_complete:
                if not signal.missing:
                    return MPPS
            elif quiet_s >= self._quiet_s:
                ends = self._store.scans.closing_reasons(scan.id)
                return "released+quiet" if ends <= {CloseReason.RELEASED.value} else "aborted+quiet"
        return "forced" if quiet_s >= self._force_s else None

    def _index_procedure_steps(self) -> None:
        """Index what scanners have reported since the last look."""
        found = dict(procedure_steps.files(self._spool))
        self._steps_seen = {path: at for path, at in self._steps_seen.items() if path in found}
        for path, changed_at in found.items():
            if self._steps_seen.get(path) == changed_at:
                continue
            step = procedure_steps.read(path)
            if step is not None:
                self._store.procedure_steps.put(step)
            # A damaged one is looked at again when it changes; it is only a hint.
            self._steps_seen[path] = changed_at

    def _list(self) -> None:
        try:
            names = sorted(path.name for path in self._room.iterdir())
        except FileNotFoundError:
            names = []
        self._indexed.intersection_update(names)
        vanished = self._known.keys() - set(names)
        self._forget_vanished(vanished)
        for name in vanished:
            del self._known[name]
        for name in names:
            if name in self._indexed:
                continue
            association = read_association(self._room / name)
            if association is None or not association.instances:
                continue  # gone, or one that the receiver takes back when nothing comes
            if name not in self._known:
                caller = association.opened.calling_ae_title if association.opened is not None else None
                self._store.associations.see(name, at=time.time(), calling_ae_title=caller)
                self._known[name] = self._store.instances.names(name)
            known = self._known[name]
            new = deque(path for path in association.instances if path.name not in known)
            if new or association.closed is not None:
                self._pending.append(_Pending(association, new))

    def _index_some(self, pending: _Pending, limit: int) -> int:
        """Index the next instances of an association and, with its last one, how it ended, in one transaction."""
        name = pending.association.name
        taken = [pending.paths.popleft() for _ in range(min(limit, len(pending.paths)))]
        items = [item for item in map(self._read, taken) if item is not None]
        whole = self._known[name] | {item.name for item in items} >= {p.name for p in pending.association.instances}
        with self._store.atomic():
            touched = self._store.instances.add(name, items)
            if pending.association.closed is not None and not pending.paths:
                self._store.associations.close(name, pending.association.closed.reason.value, at=time.time())
                if whole:
                    self._store.associations.mark_indexed(name)
        for scan_id in touched:
            self._last_came.pop(scan_id, None)
        self._known[name].update(item.name for item in items)
        if pending.association.closed is not None and not pending.paths and whole:
            self._indexed.add(name)
            del self._known[name]
        return len(taken)

    def _read(self, path: Path) -> SpooledInstance | None:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                digest = dataset_digest(file)
        except FileNotFoundError:
            return None  # the receiver took it back, and told the sender so
        except OSError as error:
            if path not in self._complained:
                self._complained.add(path)
                _log.error(
                    "spooled_instance_not_read", association=path.parent.name, file=path.name, why=error.strerror
                )
            return None  # a disk that cannot be read now may be read later
        identity, problem = _identity(path)
        if problem is not None:
            _log.warning("instance_unreadable", association=path.parent.name, file=path.name, reason=problem.code.value)
        return SpooledInstance(
            name=path.name,
            identity=identity,
            problem=problem,
            bytes=status.st_size,
            digest=digest,
            received_at=min(status.st_mtime, time.time()),
        )

    def _forget_vanished(self, names: set[str]) -> None:
        for name in sorted(names):
            if not (self._room / name).exists():
                _log.warning("spooled_association_vanished", association=name)
                self._store.associations.mark_pruned(name, at=time.time())


def dataset_digest(file: BufferedReader) -> str:
    """Return ``sha256:…`` over a file's data set.

    Preamble and File Meta Information (PS3.10, 7.1) are left out: they name the sender and differ between two transfers
    of the same instance. A file without them is taken whole.
    """
    head = file.read(144)
    begins = 0
    if head[128:132] == b"DICM" and head[132:140] == _META_GROUP_LENGTH:
        begins = 144 + int.from_bytes(head[140:144], "little")
    file.seek(begins)
    return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _identity(path: Path) -> tuple[InstanceIdentity | None, Reason | None]:
    try:
        header = read_header(path)
    except UnreadableFileError as error:
        return None, error.reason
    if not header.sop_instance_uid or not header.series_instance_uid:
        text = "The instance has no SOP Instance UID or no Series Instance UID; send it again from its source."
        return None, Reason(ReasonCode.UNREADABLE_FILE, text)
    identity = InstanceIdentity(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        series_instance_uid=header.series_instance_uid,
        study_instance_uid=header.study_instance_uid,
        accession_number=header.accession_number,
        modality=header.modality,
    )
    return identity, None
