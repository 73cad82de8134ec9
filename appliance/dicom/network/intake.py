"""One association on the receiving side: each instance goes to disk and is acknowledged only then."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from appliance.dicom.network.raw_dataset import MalformedDatasetError, SopClassMismatchError, file_header, glance
from appliance.dicom.network.storage_service import (
    CANNOT_UNDERSTAND,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
    StoreAnswer,
    StoreRequest,
)
from appliance.dicom.network.transfer_syntaxes import is_ct_class
from appliance.dicom.spool import AssociationFolder, CloseReason, Opened, Room, Spool, new_association_name

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one instance may cost.

    Attributes
    ----------
    reserve_bytes
        Free space that must remain after an instance is written.
    instance_bytes
        Largest data set accepted.
    free_bytes
        Returns the free bytes of the spool's file system.
    """

    reserve_bytes: int
    instance_bytes: int
    free_bytes: Callable[[], int]


class Tally:
    """Counts over all associations of a receiver, safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.associations = 0
        self.associations_refused = 0
        self.instances = 0
        self.set_aside = 0
        self.failed = 0
        self.bytes = 0
        self.last_error_status: int | None = None

    def add(self, **amounts: int) -> None:
        """Increase counts by name."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def failure(self, status: int) -> None:
        """Count an instance that was answered with ``status``."""
        with self._lock:
            self.failed += 1
            self.last_error_status = status


class Intake:
    """Everything an accepted association needs to store what it is sent.

    Parameters
    ----------
    spool
        Where it goes.
    limits
        What it may cost.
    tally
        Where it is counted.
    calling_ae_title, called_ae_title, peer_address
        Who sends.
    """

    def __init__(
        self,
        spool: Spool,
        limits: Limits,
        tally: Tally,
        *,
        calling_ae_title: str,
        called_ae_title: str,
        peer_address: str,
    ) -> None:
        self.name = new_association_name()
        self.started = time.monotonic()
        self.verification_only = False
        self.stored = 0
        self.failed = 0
        self.bytes = 0
        self._spool = spool
        self._limits = limits
        self._tally = tally
        self._folders: dict[Room, AssociationFolder] = {}
        self._opened = Opened(
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title,
            peer_address=peer_address,
            opened=datetime.now(UTC).isoformat(timespec="milliseconds"),
            receiver_pid=os.getpid(),
        )

    @property
    def peer(self) -> dict[str, str]:
        """Who sends, as fields of a log line."""
        return {"peer": self._opened.calling_ae_title, "address": self._opened.peer_address}

    def store(self, request: StoreRequest) -> StoreAnswer:
        """Serve one C-STORE request (PS3.4 Annex B): success only once the instance is durable."""
        try:
            self._store(request)
        except _RefusedError as refusal:
            return self.refuse(refusal.status, refusal.comment)
        except OSError as error:
            _log.error("instance_not_stored", **self.peer, error=error.strerror, errno=error.errno)
            return self.refuse(OUT_OF_RESOURCES, _disk_comment(error))
        except Exception:  # noqa: BLE001  # logged with its traceback and answered
            # A defect here must not take the association and its other instances with it.
            _log.exception("instance_not_stored", **self.peer)
            return self.refuse(PROCESSING_FAILURE, "The receiver failed; its log tells why")
        return StoreAnswer(SUCCESS)

    def refuse(self, status: int, comment: str) -> StoreAnswer:
        """Count and log an instance that is not stored, and return its status with a readable Error Comment."""
        self.failed += 1
        self._tally.failure(status)
        _log.warning("instance_refused", **self.peer, status=f"0x{status:04X}", comment=comment)
        return StoreAnswer(status, comment)

    def close(self, reason: CloseReason) -> bool:
        """Close the folders; return ``False`` when that has to be tried again (a full disk)."""
        done = True
        for room, folder in list(self._folders.items()):
            try:
                folder.close(reason)
            except OSError as error:
                _log.error("association_not_closed", **self.peer, error=error.strerror)
                done = False
            else:
                del self._folders[room]
        return done

    def _store(self, request: StoreRequest) -> None:
        if self.verification_only:
            raise _RefusedError(PROCESSING_FAILURE, "This caller may only verify the connection")
        if request.data is None:
            limit_mib = self._limits.instance_bytes >> 20
            raise _RefusedError(OUT_OF_RESOURCES, f"The instance is larger than the {limit_mib} MiB allowed here")
        data, sop_class, sop_instance = request.data, request.sop_class_uid, request.sop_instance_uid
        transfer_syntax = request.transfer_syntax_uid
        try:
            glance(data, transfer_syntax, sop_class, sop_instance)
        except SopClassMismatchError as error:
            raise _RefusedError(DATA_SET_DOES_NOT_MATCH_SOP_CLASS, str(error)) from error
        except MalformedDatasetError as error:
            raise _RefusedError(CANNOT_UNDERSTAND, str(error)) from error
        header = file_header(transfer_syntax, sop_class, sop_instance, self._opened.calling_ae_title)
        if self._limits.free_bytes() - len(data) - len(header) < self._limits.reserve_bytes:
            raise _RefusedError(OUT_OF_RESOURCES, "The receiver's disk is nearly full; send again later")
        room = Room.ASSOCIATIONS if is_ct_class(sop_class) else Room.ASIDE
        self._folder(room).store(header, data)
        self.stored += 1
        self.bytes += len(data)
        self._tally.add(instances=1, bytes=len(data), set_aside=int(room is Room.ASIDE))
        _log.debug("instance_stored", **self.peer, room=room.value, sop_instance_uid=sop_instance)

    def _folder(self, room: Room) -> AssociationFolder:
        folder = self._folders.get(room)
        if folder is None:
            folder = self._spool.open_folder(room, self.name, self._opened)
            self._folders[room] = folder
        return folder


class _RefusedError(Exception):
    """An instance is answered with this status and comment."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


def _disk_comment(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The receiver's disk is full; send again later"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "The receiver may not write to its disk; call its service"
    return "The receiver's disk failed; call its service"
