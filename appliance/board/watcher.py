"""Looks at the database once a second and wakes every browser when something has changed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from appliance.board.overview import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.board.overview import Overview, Reader

_log = structlog.get_logger()

INTERVAL_S = 1.0
#: Heartbeats, the disk and ages change without the database.
AT_LEAST_EVERY_S = 5.0
#: A reading takes milliseconds; after this the database does not answer.
STUCK_AFTER_S = 8.0


class Watcher:
    """One thread that reads, and the event loop's view of what it read.

    Parameters
    ----------
    reader
        Reads everything.
    database
        The SQLite file; while it and its log are untouched it is not read again.
    """

    def __init__(self, reader: Reader, database: Path) -> None:
        self.reader = reader
        self._files = (database, database.with_name(database.name + "-wal"))
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._began_s: float | None = None
        self._read_at_s = 0.0
        self._hurry = threading.Event()
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakers: set[Callable[[], None]] = set()
        self._asked: set[tuple[float, asyncio.Event]] = set()
        self._thread = threading.Thread(target=self._run, name="board-watcher", daemon=True)
        self.latest: Overview = reader.read()
        self._version = 1

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; changes are told in this loop."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a database that does not answer is not waited for."""
        self._stopped.set()
        self._hurry.set()
        self._thread.join(2.0)

    @property
    def stuck(self) -> bool:
        """Whether the database has let the reading wait for long."""
        began_s = self._began_s
        return began_s is not None and time.monotonic() - began_s > STUCK_AFTER_S

    @property
    def version(self) -> str:
        """Changes whenever the page does."""
        return f"{self._version}{'-stuck' if self.stuck else ''}"

    def overview(self) -> Overview:
        """Return what was read last, and that it is old where it is."""
        return replace(self.latest, trouble=Trouble.UNREADABLE) if self.stuck else self.latest

    async def read_again(self, patience_s: float) -> None:
        """Read at once, because something was just written, and wait for that; not for a database that hangs."""
        if self._loop is None:
            self._take(self.reader.read())
            return
        done = asyncio.Event()
        asked = (time.monotonic(), done)
        self._asked.add(asked)
        self._hurry.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await done.wait()
        self._asked.discard(asked)

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call this, in the loop, after each change."""
        self._wakers.add(wake)

    def unsubscribe(self, wake: Callable[[], None]) -> None:
        """Do not call it any more."""
        self._wakers.discard(wake)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._hurry.wait(INTERVAL_S)
            if self._stopped.is_set():
                return
            hurried = self._hurry.is_set()
            self._hurry.clear()
            self._began_s = time.monotonic()
            self._round(hurried=hurried)
            self._began_s = None

    def _round(self, *, hurried: bool) -> None:
        seen = tuple(map(_fingerprint, self._files))
        if not hurried and seen == self._seen and time.monotonic() - self._read_at_s < AT_LEAST_EVERY_S:
            return
        self._seen, self._read_at_s = seen, time.monotonic()
        try:
            overview = self.reader.read()
        except Exception as error:  # noqa: BLE001  # not swallowed
            # The board must say that it is blind, and go on looking.
            _log.error("board_not_read", error=type(error).__name__)
            overview = replace(self.latest, trouble=Trouble.UNREADABLE)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, overview, self._read_at_s)

    def _tell(self, overview: Overview, began_s: float) -> None:
        self._take(overview)
        for asked_s, done in self._asked:
            if asked_s <= began_s:
                done.set()

    def _take(self, overview: Overview) -> None:
        changed = not overview.same_as(self.latest)
        self.latest = overview
        if changed:
            self._version += 1
            for wake in tuple(self._wakers):
                wake()


def _fingerprint(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size
