"""The board's pages and what they do (Starlette)."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import structlog
from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from appliance.board import words
from appliance.board.guards import KnownHost, SafeAnswers, SmallRequests
from appliance.board.names import clean_name
from appliance.board.overview import Trouble
from appliance.board.pages import STATIC, Pages
from appliance.board.passwords import read_password
from appliance.board.paths import numbers_of, path_of
from appliance.errors import ConfigurationError, StoreError
from appliance.store.database import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from starlette.requests import Request

    from appliance.board.overview import Reader, ScanView
    from appliance.board.sessions import Session, Sessions
    from appliance.board.streams import Streams
    from appliance.board.throttle import Throttle
    from appliance.board.watcher import Watcher
    from appliance.board.words import Language
    from appliance.store.outbox import OutboxEntry


_log = structlog.get_logger()
_T = TypeVar("_T")
_MOST_FIELDS = 8
_LANGUAGE_COOKIE = "board-language"
_YEAR_S = 365 * 86400
#: How long a page waits for the database before it says that it cannot be shown.
_PATIENCE_S = 5.0
_READ_AGAIN_S = 2.0


@dataclass(slots=True)
class Board:
    """What the pages work with.

    Attributes
    ----------
    pages, watcher, reader, sessions, throttle, streams
        The parts.
    database, results
        The SQLite file; the folder with the results' folders.
    password_file
        ``None`` where a certificate is enough.
    secure
        Whether browsers come by HTTPS.
    host_names
        Names of the board, besides its address.
    language
        Until somebody chooses another one.
    people
        Names that are proposed.
    """

    pages: Pages
    watcher: Watcher
    reader: Reader
    sessions: Sessions
    throttle: Throttle
    streams: Streams
    database: Path
    results: Path
    password_file: Path | None
    secure: bool
    host_names: tuple[str, ...]
    language: Language
    people: tuple[str, ...]
    # Each try takes 32 MiB and a tenth of a second of a core.
    password_tries: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))
    # Threads that wait for the database; a locked one must not use up the pool that files are read in.
    database_threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))

    @property
    def cookie(self) -> str:
        """Name of the session's cookie; the prefix makes browsers insist on HTTPS (RFC 6265bis)."""
        return "__Host-board" if self.secure else "board"

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/", self.first_page),
            Route("/help", self.help_page),
            Route("/login", self.login_page, methods=["GET"]),
            Route("/login", self.log_in, methods=["POST"]),
            Route("/logout", self.log_out, methods=["POST"]),
            Route("/language", self.choose_language, methods=["POST"]),
            Route("/acknowledge", self.acknowledge, methods=["POST"]),
            Route("/scans/{scan:row}", self.scan_page),
            Route("/scans/{scan:row}/pictures/{number:row}", self.picture),
            Route("/events", self.events),
        ]
        files = StaticFiles(directory=STATIC)
        application = Starlette(
            routes=routes,
            middleware=[
                Middleware(SafeAnswers),
                Middleware(KnownHost, names=self.host_names),
                Middleware(SmallRequests),
            ],
            exception_handlers={404: self._nothing_here, 405: self._nothing_here},
        )
        application.mount("/static", files, name="static")
        return application

    # --- pages ------------------------------------------------------------------------------------------------

    async def first_page(self, request: Request) -> Response:
        """Show alerts, scans and the box."""
        session = self._session(request)
        if session is None:
            return self._to_login(request)
        return self._board(request, session)

    async def help_page(self, request: Request) -> Response:
        """Say what everything means."""
        session = self._session(request)
        if session is None:
            return self._to_login(request)
        return self._page(request, "help.html", session)

    async def scan_page(self, request: Request) -> Response:
        """Show one scan."""
        session = self._session(request)
        if session is None:
            return self._to_login(request)
        number = request.path_params["scan"]
        try:
            scan, deliveries = await self._ask(lambda: self._read_scan(number))
        except (StoreError, TimeoutError):
            return self._page(request, "message.html", session, status=503, message="cannot_be_shown")
        if scan is None:
            return self._page(request, "message.html", session, status=404, message="nothing_here")
        return self._page(request, "scan.html", session, scan=scan, deliveries=deliveries)

    async def picture(self, request: Request) -> Response:
        """Send a key image: the n-th file that the database names for a scan, and nothing else."""
        if self._session(request) is None:
            return PlainTextResponse("Log in first.", 401)
        scan, number = request.path_params["scan"], request.path_params["number"]
        try:
            path = await self._ask(lambda: self._picture_path(scan, number))
        except (StoreError, TimeoutError):
            return PlainTextResponse("This cannot be shown now.", 503)
        if path is None:
            return PlainTextResponse("There is no such picture.", 404)
        return FileResponse(path, media_type="image/png")

    async def events(self, request: Request) -> Response:
        """Tell a browser whenever the page has changed (server-sent events)."""
        session = self._session(request)
        if session is None:
            return PlainTextResponse("Log in first.", 401)
        token = request.cookies[self.cookie]
        answer = self.streams.open(self.watcher, lambda: self.sessions.find(token, self._password_stamp()) is not None)
        return answer or PlainTextResponse("Too many pages are open.", 503, {"Retry-After": "30"})

    async def _nothing_here(self, request: Request, _error: Exception) -> Response:
        session = self._session(request)
        if session is None:
            return self._to_login(request) if request.method == "GET" else PlainTextResponse("Log in first.", 401)
        return self._page(request, "message.html", session, status=404, message="nothing_here")

    # --- what is sent to the board ----------------------------------------------------------------------------

    async def login_page(self, request: Request) -> Response:
        """Ask for the password."""
        if self._session(request) is not None:
            return RedirectResponse("/", 303)
        return self._login(request)

    async def log_in(self, request: Request) -> Response:
        """Compare the password and open a session."""
        form = await self._form(request)
        if form is None:
            return self._login(request, problem="page_old", status=403)
        address = request.client.host if request.client else ""
        wait_s = self.throttle.wait_s(address)
        if wait_s > 0:
            return self._login(request, problem="wait", seconds=int(wait_s) + 1, status=429)
        if self.password_file is None:
            return RedirectResponse("/", 303)
        stamp = self._password_stamp()
        try:
            password = read_password(self.password_file)
        except ConfigurationError as error:
            _log.error("password_not_read", why=str(error))
            return self._login(request, problem="no_password_yet", status=503)
        matches = await to_thread.run_sync(password.matches, form.get("password", ""), limiter=self.password_tries)
        if not matches:
            self.throttle.failed(address)
            _log.warning("login_refused", address=address)
            return self._login(request, problem="wrong_password", status=401)
        self.throttle.succeeded(address)
        answer = RedirectResponse("/", 303)
        self._give_cookie(answer, self.sessions.open(stamp))
        return answer

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        if await self._form(request) is None:
            return PlainTextResponse(words.say("page_old", self._language(request)), 403)
        self.sessions.close(request.cookies.get(self.cookie, ""))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(self.cookie, secure=self.secure, httponly=True, samesite="strict")
        return answer

    async def choose_language(self, request: Request) -> Response:
        """Remember a language in the browser."""
        form = await self._form(request)
        if form is None:
            return PlainTextResponse(words.say("page_old", self._language(request)), 403)
        answer = RedirectResponse(path_of(form.get("back", "/")), 303)
        if form.get("language") in words.LANGUAGES:
            answer.set_cookie(
                _LANGUAGE_COOKIE,
                form["language"],
                max_age=_YEAR_S,
                secure=self.secure,
                httponly=True,
                samesite="strict",
            )
        return answer

    async def acknowledge(self, request: Request) -> Response:
        """Record that somebody has seen alerts."""
        session = self._session(request)
        if session is None:
            return self._to_login(request)
        form = await self._form(request)
        if form is None:
            return self._page(request, "message.html", session, status=403, message="page_old")
        name = clean_name(form.get("name", ""))
        alerts = numbers_of(form.get("alerts", ""))
        if not alerts:
            return self._page(request, "message.html", session, status=400, message="nothing_here")
        if not name:
            return self._board(request, session, problem="name_needed", status=422)
        self.sessions.rename(session, name)
        try:
            recorded = await self._ask(lambda: self._record(alerts, name))
        except (StoreError, TimeoutError) as error:
            _log.error("acknowledgement_not_recorded", error=type(error).__name__)
            return self._board(request, session, problem="not_recorded", status=503)
        await self.watcher.read_again(_READ_AGAIN_S)
        _log.info("acknowledged", alerts=list(alerts), new=recorded)
        return RedirectResponse(f"/?told={'now' if recorded else 'before'}", 303)

    # --- parts ------------------------------------------------------------------------------------------------

    def _board(
        self, request: Request, session: Session, *, problem: str | None = None, status: int | None = None
    ) -> Response:
        overview = self.watcher.overview()
        told = {"now": "acknowledged_now", "before": "acknowledged_before"}.get(request.query_params.get("told", ""))
        if status is None:
            status = 503 if overview.trouble is Trouble.UNREADABLE else 200
        return self._page(request, "board.html", session, status=status, overview=overview, problem=problem, told=told)

    def _page(self, request: Request, template: str, session: Session, *, status: int = 200, **values: Any) -> Response:
        overview = self.watcher.overview()
        token = request.scope.get("board.token") or request.cookies.get(self.cookie, "")
        html = self.pages.render(
            template,
            self._language(request),
            **(
                {
                    "form_token": self.sessions.form_token(token),
                    "session": session,
                    "people": self.people,
                    "path": request.url.path if request.method == "GET" else "/",
                    "version": self.watcher.version,
                    "with_password": self.password_file is not None,
                    "overview": overview,
                }
                | values
            ),
        )
        answer = HTMLResponse(html, status)
        if "board.token" in request.scope:
            self._give_cookie(answer, request.scope["board.token"])
        return answer

    def _login(self, request: Request, *, problem: str | None = None, seconds: int = 0, status: int = 200) -> Response:
        token = request.cookies.get(self.cookie, "")
        fresh = not token
        token = token or secrets.token_urlsafe(32)
        html = self.pages.render(
            "login.html",
            self._language(request),
            form_token=self.sessions.form_token(token),
            problem=problem,
            seconds=seconds,
            path="/login",
        )
        answer = HTMLResponse(html, status)
        if fresh:
            self._give_cookie(answer, token)
        if seconds:
            answer.headers["Retry-After"] = str(seconds)
        return answer

    def _to_login(self, request: Request) -> Response:
        # A page that is open asks again by itself and must learn that it is logged out, whatever it asked for.
        return RedirectResponse("/login", 303 if request.method != "HEAD" else 302)

    def _session(self, request: Request) -> Session | None:
        """Return who asks; where a certificate is enough, whoever asks."""
        token = request.cookies.get(self.cookie, "")
        stamp = self._password_stamp()
        session = self.sessions.find(token, stamp) if token else None
        if session is None and self.password_file is None:
            token = self.sessions.open(stamp)
            request.scope["board.token"] = token
            session = self.sessions.find(token, stamp)
        return session

    def _password_stamp(self) -> str:
        """Return which password is in force, so that a new one ends every session."""
        if self.password_file is None:
            return "certificate"
        try:
            found = self.password_file.stat()
        except OSError:
            return "none"
        return f"{found.st_mtime_ns}-{found.st_size}"

    async def _form(self, request: Request) -> Mapping[str, str] | None:
        """Return a form that one of our own pages has sent, else nothing."""
        if not self._same_origin(request):
            return None
        async with request.form(max_files=0, max_fields=_MOST_FIELDS) as form:
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
        token = request.cookies.get(self.cookie, "")
        return fields if self.sessions.form_is_ours(token, fields.get("form_token", "")) else None

    def _same_origin(self, request: Request) -> bool:
        """Compare what browsers say of where a form comes from; those that say nothing still need its token."""
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return False
        origin = request.headers.get("origin")
        if origin is None:
            return True
        scheme, _, rest = origin.partition("://")
        return scheme == ("https" if self.secure else "http") and rest == request.headers.get("host", "")

    def _language(self, request: Request) -> Language:
        chosen = request.cookies.get(_LANGUAGE_COOKIE)
        return next((language for language in words.LANGUAGES if language == chosen), self.language)

    def _give_cookie(self, answer: Response, token: str) -> None:
        answer.set_cookie(self.cookie, token, secure=self.secure, httponly=True, samesite="strict", path="/")

    # --- the database -----------------------------------------------------------------------------------------

    async def _ask(self, question: Callable[[], _T]) -> _T:
        """Ask the database in a thread; the page does not wait for it longer than :data:`_PATIENCE_S`."""
        async with asyncio.timeout(_PATIENCE_S):
            return await to_thread.run_sync(question, abandon_on_cancel=True, limiter=self.database_threads)

    def _read_scan(self, number: int) -> tuple[ScanView | None, list[OutboxEntry]]:
        with open_database(self.database, read_only=True) as store:
            rows = store.scans.find(f"id:{number}")
            if not rows:
                return None, []
            return self.reader.scan(store, rows[0]), store.outbox.of_scan(rows[0].id)

    def _picture_path(self, scan: int, number: int) -> Path | None:
        with open_database(self.database, read_only=True) as store:
            found = store.results.get(scan)
        if found is None or not 0 <= number < len(found.key_images):
            return None
        root = self.results.resolve()
        path = (root / found.folder / found.key_images[number]).resolve()
        inside = path.is_relative_to(root / found.folder) and path.suffix == ".png"
        return path if inside and path.is_file() else None

    def _record(self, alerts: tuple[int, ...], name: str) -> int:
        with open_database(self.database, check=False) as store:
            return sum(store.alerts.acknowledge(alert, name) for alert in alerts)
