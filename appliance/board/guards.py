"""What every request passes before a page sees it, and every answer before a browser does (ASGI middleware)."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = structlog.get_logger()

# RFC 9110, 7.2
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?")

MOST_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0

#: Nothing of another origin, nothing inline, nobody's frame (CSP 3); fetch and event streams only from the board.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}


class SafeAnswers:
    """Adds :data:`HEADERS` to every answer, and turns an unforeseen error into a sentence without a trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception:
            # The last resort: the board goes on for everybody else, and nothing of the error reaches the browser.
            _log.exception("page_failed", page=_kind(scope))
            if begun:
                raise
            await PlainTextResponse("The box could not make this page. Its log says why.", 500)(
                scope, receive, with_headers
            )


class KnownHost:
    """Refuses requests under a name that is not the board's, so that no other site's name can be bent to it.

    Parameters
    ----------
    app
        What is guarded.
    names
        Host names of the board. The address that the connection came in on is always right.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = {name.lower().rstrip(".") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not self._known(scope):
            answer = PlainTextResponse("The board is not known by this name; see board.host_names.", 421)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        named = Headers(scope=scope).getlist("host")
        if len(named) != 1:
            return False
        host = host_of(named[0])
        called = str((scope.get("server") or ("", 0))[0])
        return host in self._names or host == called or (host == "localhost" and is_loopback(called))


class SmallRequests:
    """Refuses bodies above :data:`MOST_BODY_BYTES` and those that do not arrive in time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, once its whole body is there."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
            await PlainTextResponse("Too much was sent.", 413)(scope, receive, send)
            return
        body = b""
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > MOST_BODY_BYTES:
                        await PlainTextResponse("Too much was sent.", 413)(scope, receive, send)
                        return
        except TimeoutError:
            await PlainTextResponse("The request did not arrive in time.", 408)(scope, receive, send)
            return
        whole = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(whole, None) or await receive()

        await self._app(scope, again, send)


def host_of(header: str) -> str:
    """Return the name or address in a Host header, lower case, without its port; empty where it is no such header."""
    found = _HOST.fullmatch(header.strip().lower())
    return (found["address"] or found["name"]).rstrip(".") if found else ""


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _kind(scope: Scope) -> str:
    """Return which page was asked for; a path may hold whatever a stranger writes, so only its route is named."""
    endpoint = scope.get("endpoint")
    return getattr(endpoint, "__name__", "none")
