"""What happens when the database file is damaged: find out, be alone, move it aside."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def damage(path: Path) -> str | None:
    """Return what ``quick_check`` finds wrong with a file, ``None`` for a sound, empty or absent one.

    The file is read through SQLite only: opening and closing it here would drop the POSIX locks that another connection
    of this process holds on it.

    Raises
    ------
    sqlite3.Error
        The file cannot be read at all, which says nothing about its content.
    """
    if not path.exists():
        # A log without its database is what a cut in the middle of a move leaves behind.
        return "the write-ahead log has no database" if path.with_name(path.name + "-wal").exists() else None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("PRAGMA busy_timeout = 30000")
            lines = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return str(error)
        raise
    return None if lines == ["ok"] else "; ".join(lines)


def move_aside(path: Path) -> Path:
    """Rename a damaged database with its log, and return where it is now.

    The database goes first: SQLite throws away a log that it finds beside an empty database, but would trust
    one that it finds beside a sound older one.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


class FileLock:
    """A lock that everybody who has the database open shares, and that recovery needs alone.

    The kernel drops it when its process ends, however it ends.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def try_alone(self) -> bool:
        """Take the lock alone if nobody else holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def alone_within(self, seconds: float) -> bool:
        """Try for some time to take the lock alone."""
        deadline = time.monotonic() + seconds
        while not self.try_alone():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        return True

    def share(self) -> None:
        """Hold the lock together with others; waits while somebody repairs."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go of the lock."""
        os.close(self._descriptor)
