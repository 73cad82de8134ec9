"""The spool: received instances on disk, written so that a power cut loses nothing acknowledged.

Layout, below the spool's root::

    associations/<YYYYMMDDTHHMMSS>-<random hex>/   CT instances of one association, mode 0700
        association.json                           who sent it; there before the first instance
        000001.dcm …                               instances in order of arrival
        closed.json                                how the association ended; absent while it is open
    aside/<same name>/                             everything that is not CT, same files
    receiver.lock                                  held by the one receiver that may write

Names carry nothing of the patient. A name that ends in ``.part`` is a file being written, never to be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypeVar

from appliance.durable import PART_SUFFIX, sync, write_all, write_durably
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")

_INSTANCE_SUFFIX = ".dcm"
_OPENED_NAME = "association.json"
_CLOSED_NAME = "closed.json"
_LOCK_NAME = "receiver.lock"


class CloseReason(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"
    TIMEOUT = "timeout"
    RECEIVER_RESTARTED = "receiver_restarted"


class Room(StrEnum):
    """The two halves of the spool."""

    ASSOCIATIONS = "associations"
    ASIDE = "aside"


class SpoolError(ApplianceError):
    """The spool cannot be used as it is."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What ``association.json`` says.

    Attributes
    ----------
    calling_ae_title, called_ae_title
        From the A-ASSOCIATE-RQ.
    peer_address
        IP address of the sender.
    opened
        UTC time in ISO 8601.
    receiver_pid
        Process that received it.
    """

    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    opened: str
    receiver_pid: int


@dataclass(frozen=True, slots=True)
class Closed:
    """What ``closed.json`` says.

    Attributes
    ----------
    reason
        How the association ended.
    time
        UTC time in ISO 8601, with its offset; whatever else stands in the file makes it a damaged one.
    instances
        Instances in this folder.
    """

    reason: CloseReason
    time: str
    instances: int


@dataclass(frozen=True, slots=True)
class SpooledAssociation:
    """One association as found on disk.

    Attributes
    ----------
    path
        Its folder.
    opened
        Who sent it, or ``None`` when that file is missing or damaged.
    closed
        How it ended, or ``None`` while it is open.
    instances
        Files in order of arrival.
    changed
        Seconds since the epoch of the last change in the folder, to tell how long it has been quiet.
    """

    path: Path
    opened: Opened | None
    closed: Closed | None
    instances: tuple[Path, ...]
    changed: float

    @property
    def name(self) -> str:
        """Name of the folder, the same in both rooms."""
        return self.path.name


# --- reading ------------------------------------------------------------------------------------------------


def read_association(path: Path) -> SpooledAssociation | None:
    """Return one association folder, or ``None`` when it is gone."""
    try:
        changed = path.stat().st_mtime
        # Read before the names, so that a closed association is never seen with instances missing.
        closed = _read_json(path / _CLOSED_NAME, _closed_from)
        instances = sorted(each for each in path.iterdir() if each.suffix == _INSTANCE_SUFFIX)
    except (FileNotFoundError, NotADirectoryError):
        return None
    opened = _read_json(path / _OPENED_NAME, _opened_from)
    return SpooledAssociation(path, opened, closed, tuple(instances), changed)


def list_set_aside(spool: Path) -> list[SpooledAssociation]:
    """Return the associations with set-aside objects, oldest first.

    Folders that vanish or are half written while this runs are left out or returned as far as they go.
    """
    try:
        folders = sorted((spool / Room.ASIDE).iterdir())
    except FileNotFoundError:
        return []
    found = (read_association(folder) for folder in folders)
    return [association for association in found if association is not None]


def _read_json(path: Path, build: Callable[[dict[str, Any]], _T]) -> _T | None:
    try:
        return build(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _opened_from(tree: dict[str, Any]) -> Opened:
    names = ("calling_ae_title", "called_ae_title", "peer_address", "opened")
    calling, called, address, opened = (str(tree[name]) for name in names)
    return Opened(calling, called, address, opened, int(tree["receiver_pid"]))


def _closed_from(tree: dict[str, Any]) -> Closed:
    closed_at = str(tree["time"])
    if datetime.fromisoformat(closed_at).tzinfo is None:
        raise ValueError("a time without offset could mean any hour")
    return Closed(CloseReason(tree["reason"]), closed_at, int(tree["instances"]))


# --- writing ------------------------------------------------------------------------------------------------


def new_association_name() -> str:
    """Return a folder name: UTC time, so that listings sort by age, and 64 random bits, so that none repeats."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}"


class AssociationFolder:
    """The writing side of one folder; used by one thread at a time.

    Parameters
    ----------
    room
        ``spool/associations`` or ``spool/aside``; made when missing.
    name
        From :func:`new_association_name`.
    opened
        Written to ``association.json`` before anything else.

    Raises
    ------
    OSError
        The folder cannot be made; nothing is left behind.
    """

    def __init__(self, room: Path, name: str, opened: Opened) -> None:
        self.path = room / name
        self.instances = 0
        self._number = 0
        self._directory = -1
        self.path.mkdir(mode=0o700)
        try:
            self._directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            sync(room)
            self._write(_OPENED_NAME, json.dumps(asdict(opened)).encode())
        except OSError:
            with contextlib.suppress(OSError):
                self._discard()
            raise

    def store(self, *parts: bytes) -> Path:
        """Write one instance so that it survives a power cut, and only then return.

        Parameters
        ----------
        *parts
            Consecutive bytes of the file.

        Returns
        -------
        Path
            The file, complete.

        Raises
        ------
        OSError
            It could not be made durable; nothing of it is left behind.
        """
        self._number += 1
        name = f"{self._number:06d}{_INSTANCE_SUFFIX}"
        self._write(name, *parts)
        self.instances += 1
        return self.path / name

    def close(self, reason: CloseReason) -> None:
        """Write ``closed.json``, or remove the folder when nothing was stored in it.

        Raises
        ------
        OSError
            It could not be written; call again later.
        """
        if self.instances == 0:
            self._discard()
            return
        closed = Closed(reason, _now(), self.instances)
        self._write(_CLOSED_NAME, json.dumps(asdict(closed)).encode())
        self._release()

    def _write(self, name: str, *parts: bytes) -> None:
        part = name + PART_SUFFIX
        renamed = False
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(part, flags, 0o600, dir_fd=self._directory)
            try:
                for data in parts:
                    write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(part, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            renamed = True
            os.fsync(self._directory)
        except BaseException:
            # The sender will be told of the failure and send again; a file it believes lost must not stay.
            for leftover in (name, part) if renamed else (part,):
                with contextlib.suppress(OSError):
                    os.unlink(leftover, dir_fd=self._directory)
            raise

    def _discard(self) -> None:
        for name in (_OPENED_NAME, _OPENED_NAME + PART_SUFFIX):
            (self.path / name).unlink(missing_ok=True)
        self.path.rmdir()
        self._release()

    def _release(self) -> None:
        descriptor, self._directory = self._directory, -1
        if descriptor >= 0:
            os.close(descriptor)


class Spool:
    """The writing side of the whole spool, for the one receiver that holds its lock.

    Parameters
    ----------
    root
        Made when missing.

    Attributes
    ----------
    unrecovered
        Folders of dead receivers that still have to be closed.

    Raises
    ------
    SpoolError
        Another receiver already writes here, or the folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unrecovered: list[Path] = []
        try:
            for folder in (root, root / Room.ASSOCIATIONS, root / Room.ASIDE):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync(folder.parent)
            self._lock = os.open(root / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(f"{root}: the spool cannot be made or opened: {error.strerror}") from error
        if not self._take_lock():
            os.close(self._lock)
            raise SpoolError(f"{root}: another receiver is already writing to this spool; stop it first")

    def open_folder(self, room: Room, name: str, opened: Opened) -> AssociationFolder:
        """Make the folder of an association that sends its first instance for this room."""
        return AssociationFolder(self.root / room, name, opened)

    def recover(self) -> int:
        """Close the associations of receivers that died, delete their unfinished files; return the number closed.

        A folder that a full or failing disk keeps from being closed stays in ``unrecovered``, so that it never keeps a
        receiver from starting.
        """
        self.unrecovered = [path for room in Room for path in sorted((self.root / room).iterdir())]
        return self.recover_rest()

    def recover_rest(self) -> int:
        """Try the folders in ``unrecovered`` again; return the number closed."""
        waiting, self.unrecovered = self.unrecovered, []
        recovered = 0
        for path in waiting:
            try:
                recovered += path.is_dir() and _recover_folder(path)
            except OSError:
                self.unrecovered.append(path)
        return recovered

    def close(self) -> None:
        """Give the lock back."""
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_lock(self) -> bool:
        # A predecessor that was just killed may need a moment to disappear.
        deadline = time.monotonic() + 2.0
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
            else:
                return True


def _recover_folder(path: Path) -> bool:
    """Delete unfinished files and close the folder; return whether it had still been open."""
    for leftover in path.glob(f"*{PART_SUFFIX}"):
        leftover.unlink(missing_ok=True)
    association = read_association(path)
    if association is None or association.closed is not None:
        return False
    if not association.instances:
        (path / _OPENED_NAME).unlink(missing_ok=True)
        (path / _CLOSED_NAME).unlink(missing_ok=True)
        path.rmdir()
        return False
    closed = Closed(CloseReason.RECEIVER_RESTARTED, _now(), len(association.instances))
    write_durably(path / _CLOSED_NAME, json.dumps(asdict(closed)).encode())
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
