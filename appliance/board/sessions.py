"""Who is logged in: random tokens whose hashes are kept on disk, so that a power cut does not log the room out."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import structlog

from appliance.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = structlog.get_logger()

MOST_SESSIONS = 64
#: However much it is used, a session ends after this.
LONGEST_LIFE_S = 30 * 86400.0
# The file need not know each use to the second.
_SAVE_EVERY_S = 300.0
_TOKEN_BYTES = 32


@dataclass(slots=True)
class Session:
    """One browser that is logged in.

    Attributes
    ----------
    began_at, used_at
        Unix time.
    password
        Which password it was opened with; another one ends it.
    name
        Whose name its next acknowledgement will bear.
    """

    began_at: float
    used_at: float
    password: str
    name: str = ""


class Sessions:
    """All of them; used from one thread.

    Parameters
    ----------
    path
        File with the hashes of the tokens, mode 0600.
    idle_s
        Seconds without use after which one ends.
    clock
        Unix time.
    """

    def __init__(self, path: Path, idle_s: float, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._idle_s = idle_s
        self._clock = clock
        self._saved_at = 0.0
        self._key = secrets.token_bytes(_TOKEN_BYTES)
        self._sessions: dict[str, Session] = {}
        self._load()

    def open(self, password: str) -> str:
        """Begin a session and return its token; beyond :data:`MOST_SESSIONS` the one unused longest ends."""
        now = self._clock()
        self._drop_ended(now)
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda name: self._sessions[name].used_at)]
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._sessions[_hashed(token)] = Session(now, now, password)
        self._save()
        return token

    def find(self, token: str, password: str) -> Session | None:
        """Return the session of a token that is still good, and count this as its use.

        Parameters
        ----------
        token
            From the cookie.
        password
            Which password is in force.
        """
        session = self._sessions.get(_hashed(token))
        if session is None:
            return None
        now = self._clock()
        if session.password != password or self._ended(session, now):
            self.close(token)
            return None
        session.used_at = now
        if now - self._saved_at > _SAVE_EVERY_S:
            self._save()
        return session

    def rename(self, session: Session, name: str) -> None:
        """Remember the name that somebody acknowledged with."""
        if session.name != name:
            session.name = name
            self._save()

    def close(self, token: str) -> None:
        """End a session."""
        if self._sessions.pop(_hashed(token), None) is not None:
            self._save()

    def form_token(self, token: str) -> str:
        """Return what a form of the page with this cookie carries, so that no other site can send one."""
        return hmac.new(self._key, token.encode(), hashlib.sha256).hexdigest()

    def form_is_ours(self, token: str, sent: str) -> bool:
        """Whether a form came from a page that this cookie was given to."""
        return bool(token) and hmac.compare_digest(self.form_token(token).encode(), sent.encode())

    def _ended(self, session: Session, now: float) -> bool:
        return now - session.used_at > self._idle_s or now - session.began_at > LONGEST_LIFE_S

    def _drop_ended(self, now: float) -> None:
        for name in [name for name, session in self._sessions.items() if self._ended(session, now)]:
            del self._sessions[name]

    def _load(self) -> None:
        try:
            content = json.loads(self._path.read_bytes())
            self._key = bytes.fromhex(content["key"])
            self._sessions = {name: Session(**item) for name, item in content["sessions"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Nobody is logged in then; that is safe, and the next login writes a good file.
            _log.warning("sessions_not_read", error=type(error).__name__)

    def _save(self) -> None:
        self._saved_at = self._clock()
        content = {
            "key": self._key.hex(),
            "sessions": {name: asdict(session) for name, session in self._sessions.items()},
        }
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path, json.dumps(content).encode())
        except OSError as error:
            _log.error("sessions_not_saved", error=error.strerror)


def _hashed(token: str) -> str:
    # Whoever reads the file cannot make a cookie of it; the token is random, so one round is enough.
    return hashlib.sha256(token.encode()).hexdigest()
