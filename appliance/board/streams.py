"""Server-sent events: each open page hears which version of the board is current, and that the box lives."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from appliance.board.watcher import Watcher

#: A page that has heard nothing for three of these says that it has lost the box.
BEAT_S = 5.0
MOST_STREAMS = 32


class Streams:
    """All open event streams; used in the event loop."""

    def __init__(self) -> None:
        self._wakers: dict[asyncio.Event, None] = {}
        self._closed: set[asyncio.Event] = set()

    @property
    def number(self) -> int:
        """How many pages are open."""
        return len(self._wakers)

    def open(self, watcher: Watcher, still_logged_in: Callable[[], bool]) -> StreamingResponse:
        """Return a stream for a page; beyond :data:`MOST_STREAMS` the oldest one ends and may come back.

        Parameters
        ----------
        watcher
            Knows the version.
        still_logged_in
            Asked at each beat.
        """
        while len(self._wakers) >= MOST_STREAMS:
            self._end(next(iter(self._wakers)))
        changed = asyncio.Event()
        self._wakers[changed] = None
        return StreamingResponse(
            self._lines(changed, watcher, still_logged_in),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    def close(self) -> None:
        """End all of them: the service stops."""
        for waker in tuple(self._wakers):
            self._end(waker)

    def _end(self, waker: asyncio.Event) -> None:
        self._wakers.pop(waker, None)
        self._closed.add(waker)
        waker.set()

    async def _lines(
        self, changed: asyncio.Event, watcher: Watcher, still_logged_in: Callable[[], bool]
    ) -> AsyncIterator[str]:
        watcher.subscribe(changed.set)
        try:
            yield "retry: 2000\n\n"
            while changed not in self._closed:
                if not still_logged_in():
                    yield "event: ended\ndata: \n\n"
                    return
                changed.clear()
                yield f"event: version\ndata: {watcher.version}\n\n"
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await changed.wait()
        finally:
            watcher.unsubscribe(changed.set)
            self._wakers.pop(changed, None)
            self._closed.discard(changed)
