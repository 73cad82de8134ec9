"""The board's port: one process, one event loop, few connections (uvicorn)."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Iterator

    from starlette.types import ASGIApp

MOST_CONNECTIONS = 128
#: A browser opens six at once.
MOST_CONNECTIONS_OF_ONE = 24
FIRST_REQUEST_S = 15.0
_KEEP_ALIVE_S = 30
_MOST_HEADER_BYTES = 16 * 1024
_GRACE_S = 3
_BACKLOG = 64


class _Protocol(H11Protocol):
    """HTTP/1.1 that drops who opens too many connections, or opens one and says nothing."""

    _open: ClassVar[Counter[str]] = Counter()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        self._open[self._peer] += 1
        self._patience = self.loop.call_later(FIRST_REQUEST_S, self._drop_the_silent)
        if self._open[self._peer] > MOST_CONNECTIONS_OF_ONE:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._patience.cancel()
        self._open[self._peer] -= 1
        if not self._open[self._peer]:
            del self._open[self._peer]
        super().connection_lost(exc)

    def _drop_the_silent(self) -> None:
        if not self.cycle:
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the service has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def listen(address: str, port: int) -> socket.socket:
    """Open the board's port, on this address only.

    Raises
    ------
    ConfigurationError
        It cannot be opened.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise ConfigurationError(
            f"board: {address} port {port} cannot be opened: {error.strerror}; check board.address and board.port"
        ) from error
    return opened


def server(application: ASGIApp, context: ssl.SSLContext | None) -> Server:
    """Return the server of an application.

    Parameters
    ----------
    application
        The pages.
    context
        For HTTPS; ``None`` for HTTP.
    """
    options: dict[str, Any] = {
        "http": _Protocol,
        "ws": "none",
        "lifespan": "off",
        "loop": "asyncio",
        "log_config": None,
        "access_log": False,  # who looked at which scan is not written down
        "server_header": False,
        "date_header": True,
        "proxy_headers": False,  # nothing stands before it that could be believed
        "limit_concurrency": MOST_CONNECTIONS,
        "timeout_keep_alive": _KEEP_ALIVE_S,
        "timeout_graceful_shutdown": _GRACE_S,
        "h11_max_incomplete_event_size": _MOST_HEADER_BYTES,
    }
    config = uvicorn.Config(application, **options)
    config.load()
    config.ssl = context
    return Server(config)
