"""The disk keeper: deletes received images when their time has come, and early when the disk runs short.

Only images of finished scans and set-aside objects are ever deleted, whole associations at a time, oldest first;
results stay, and the images of a failed scan keep their time whatever happens. When nothing may be deleted any more and
the disk is still short, the DICOM port's own reserve refuses new scans. What scanners have reported and asked is
forgotten after a month.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from appliance.dicom import procedure_steps, spool
from appliance.durable import free_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.config import RetentionSettings
    from appliance.store.database import Store

log = structlog.get_logger()

_DAY_S = 86400.0
_MIB = 1024 * 1024
MESSAGES_KEPT_S = 30 * _DAY_S
"""So long a procedure step may be changed by its scanner, and a storage commitment that was asked is known."""
# A folder is moved here first, in one step, so that nobody ever reads half of an association.
_GOING = "going"


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep deleted.

    Attributes
    ----------
    associations
        Folders with images of finished scans.
    set_aside
        Folders with set-aside objects.
    early
        How many of both went before their time because the disk ran short.
    """

    associations: int = 0
    set_aside: int = 0
    early: int = 0


class DiskKeeper:
    """Keeps the spool within its retention and the disk above its watermark.

    Parameters
    ----------
    spool_root
        The spool.
    retention
        How long things are kept.
    free_bytes
        Free space of a folder's file system; another one in tests.
    """

    def __init__(
        self,
        spool_root: Path,
        retention: RetentionSettings,
        free_bytes: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._spool = spool_root
        self._retention = retention
        self._free_bytes = free_bytes

    def short(self) -> bool:
        """Whether less space is free than the soft watermark."""
        return self._spool.exists() and self._free_bytes(self._spool) < self._retention.soft_free_mib * _MIB

    def sweep(self, store: Store, *, now: float | None = None) -> Swept:
        """Delete what is due, then what may go early while the disk is short.

        Raises
        ------
        StoreError
            The database cannot be used.
        OSError
            A folder cannot be deleted.
        """
        moment = time.time() if now is None else now
        self._finish_deleting()
        # The file first: a row without one is harmless, a file without its row would be indexed again.
        procedure_steps.forget(self._spool, changed_before=moment - MESSAGES_KEPT_S)
        store.procedure_steps.forget(changed_before=moment - MESSAGES_KEPT_S)
        store.commitment_requests.forget(finished_before=moment - MESSAGES_KEPT_S)
        associations = self._prune(store, moment, early=False)
        set_aside = self._drop_aside(moment - self._retention.set_aside_days * _DAY_S, early=False)
        early_aside = self._drop_aside(moment, early=True)
        early_associations = self._prune(store, moment, early=True)
        swept = Swept(associations + early_associations, set_aside + early_aside, early_aside + early_associations)
        if swept != Swept():
            log.info("disk_swept", associations=swept.associations, set_aside=swept.set_aside, early=swept.early)
        return swept

    def _prune(self, store: Store, now: float, *, early: bool) -> int:
        number = 0
        if early and not self.short():
            return number
        due = now - self._retention.pixel_days * _DAY_S
        for name in store.associations.prunable(finished_before=now if early else due, failed_before=due):
            if early and not self.short():
                break
            self._delete(self._spool / spool.Room.ASSOCIATIONS / name)
            # After the deletion: what is lost in between is found again by the next sweep.
            store.associations.mark_pruned(name, at=now)
            number += 1
        return number

    def _drop_aside(self, closed_before: float, *, early: bool) -> int:
        number = 0
        if early and not self.short():
            return number
        for association in spool.list_set_aside(self._spool):
            if early and not self.short():
                break
            if association.closed is None:
                continue
            if datetime.fromisoformat(association.closed.time).timestamp() < closed_before:
                self._delete(association.path)
                number += 1
        return number

    def _delete(self, folder: Path) -> None:
        going = self._spool / _GOING
        going.mkdir(mode=0o700, exist_ok=True)
        try:
            # One association may have a folder in both rooms.
            folder.rename(going / f"{folder.parent.name}-{folder.name}")
        except FileNotFoundError:
            return
        self._finish_deleting()

    def _finish_deleting(self) -> None:
        going = self._spool / _GOING
        if going.exists():
            for folder in list(going.iterdir()):
                shutil.rmtree(folder)
