"""The ``board`` service: the alert board, for the PC in the scanner room.

It reads what the others have stored and writes only who has seen an alert; when it is down, nothing else is.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from appliance.errors import StoreError
from appliance.services import systemd
from appliance.services.lifecycle import Heartbeat

if TYPE_CHECKING:
    import threading

    from appliance.board.app import Board
    from appliance.board.overview import Reader
    from appliance.board.watcher import Watcher
    from appliance.config import BoardSettings, Settings

_log = structlog.get_logger()

_ROUND_S = 0.2
_BEAT_S = 2.0


def run(settings: Settings, stop: threading.Event) -> None:
    """Serve the board until ``stop`` is set; at once over where no board is configured.

    Parameters
    ----------
    settings
        The whole configuration.
    stop
        Ends the service.

    Raises
    ------
    ConfigurationError
        The port, a certificate or the password file cannot be used.
    """
    if settings.board is None:
        # For a service manager this is a good start and a good end: there is nothing to serve.
        systemd.notify("READY=1\nSTATUS=no board is configured")
        _log.info("board_not_configured")
        return
    asyncio.run(_serve(settings, settings.board, stop))


async def _serve(settings: Settings, own: BoardSettings, stop: threading.Event) -> None:
    from appliance.board.passwords import read_password
    from appliance.board.server import listen, server
    from appliance.board.watcher import Watcher
    from appliance.tls import page_context

    if own.password_file is not None:
        read_password(own.password_file)
    context = page_context(own.tls.certificate, own.tls.private_key, own.tls.trusted) if own.tls else None
    _mend_database(settings)
    watcher = Watcher(reader_of(settings, own), settings.box.database)
    board = board_of(settings, own, watcher)
    heartbeat = Heartbeat(settings.box.state_directory, "board")
    with listen(own.address, own.port) as opened:
        port = opened.getsockname()[1]
        serving = server(board.application(), context)
        watcher.start(asyncio.get_running_loop())
        task = asyncio.create_task(serving.serve(sockets=[opened]))
        _log.info("board_listens", address=own.address, port=port, https=context is not None)
        systemd.notify("READY=1")
        try:
            await _look_after(task, heartbeat, watcher, board, port, stop)
        finally:
            systemd.notify("STOPPING=1")
            board.streams.close()
            serving.should_exit = True
            await task
            watcher.stop()
            heartbeat.end()


async def _look_after(
    task: asyncio.Task[None], heartbeat: Heartbeat, watcher: Watcher, board: Board, port: int, stop: threading.Event
) -> None:
    next_beat_s = 0.0
    while not stop.is_set() and not task.done():
        now_s = time.monotonic()
        if now_s >= next_beat_s:
            next_beat_s = now_s + _BEAT_S
            try:
                heartbeat.beat(port=port, pages=board.streams.number, database=watcher.overview().trouble is None)
            except OSError as error:
                _log.error("heartbeat_not_written", error=error.strerror)
            systemd.notify("WATCHDOG=1")
        await asyncio.sleep(_ROUND_S)


def _mend_database(settings: Settings) -> None:
    """Take the steps of a new release, where the board is the first service to start; others may do it as well."""
    from appliance.store.database import open_database

    if not settings.box.database.exists():
        return
    try:
        open_database(settings.box.database, check=False).close()
    except StoreError as error:
        # The board says so on its page, to the people who need to know.
        _log.error("database_not_opened", why=str(error))


def reader_of(settings: Settings, own: BoardSettings) -> Reader:
    """Return what reads the board's contents."""
    from appliance.board.overview import Reader

    return Reader(
        state_directory=settings.box.state_directory,
        database=settings.box.database,
        results=settings.box.results,
        scans=own.scans,
        patient_names=own.show_patient_name,
        stalled_after_s=settings.health.stalled_after_s,
        low_mib=settings.retention.soft_free_mib,
        full_mib=settings.receive.disk_reserve_mib,
    )


def board_of(settings: Settings, own: BoardSettings, watcher: Watcher) -> Board:
    """Return the pages with everything that they work with."""
    from appliance.board.app import Board
    from appliance.board.pages import Pages
    from appliance.board.sessions import Sessions
    from appliance.board.streams import Streams
    from appliance.board.throttle import Throttle

    deliver = settings.deliver
    return Board(
        pages=Pages(settings.box.name, has_destinations=bool(deliver.destinations or deliver.dicomweb)),
        watcher=watcher,
        reader=watcher.reader,
        sessions=Sessions(settings.box.state_directory / "board" / "sessions.json", own.session_hours * 3600.0),
        throttle=Throttle(),
        streams=Streams(),
        database=settings.box.database,
        results=settings.box.results,
        password_file=own.password_file,
        secure=own.tls is not None,
        host_names=own.host_names,
        language=own.language,
        people=own.people,
    )
