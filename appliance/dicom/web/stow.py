"""Storing DICOM files by STOW-RS (PS3.18 Section 10.5, RAD-108): what was answered, and for which instance.

A request is streamed from the files, so that its size costs no memory, with its length announced, because some servers
take no other. Redirects are not followed: an address that moved is a setting to correct, and credentials go nowhere
else.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from appliance.foreign_text import one_line
from appliance.secret_files import read_secret
from appliance.tls import https_context

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import httpx

_CHUNK_BYTES = 1 << 18
_LONGEST_ANSWER_BYTES = 4 << 20
_ANSWERS_WITH_INSTANCES = frozenset({200, 202, 409})

# Attributes of the Store Instances Response Module (PS3.18 Annex I.2), as the DICOM JSON Model names them.
_REFERENCED_SOP_SEQUENCE = "00081199"
_FAILED_SOP_SEQUENCE = "00081198"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_FAILURE_REASON = "00081197"


class Trouble(StrEnum):
    """Why there was no answer."""

    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    BROKEN_OFF = "broken_off"
    TIME_OUT = "time_out"
    FILE = "file"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a DICOMweb service.

    Attributes
    ----------
    url
        Its root; ``/studies`` is put after it.
    username
        For basic authentication (RFC 7617); ``None`` shows a bearer token (RFC 6750), or nothing.
    secret_file
        Private file with the password or the token.
    certificate, private_key
        PEM files that this box shows when it is asked for a certificate.
    trusted
        PEM file with the authorities that the server must chain to; ``None`` takes the operating system's.
    timeout_s
        For connecting, for each piece sent, and for the answer.
    """

    url: str
    username: str | None = None
    secret_file: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    trusted: Path | None = None
    timeout_s: float = 60.0

    def client(self) -> httpx.Client:
        """Return a client that shows these credentials; no proxy and no ``.netrc`` of the environment is used.

        Raises
        ------
        ConfigurationError
            A file is missing, others may read a secret, or certificates cannot be used.
        """
        import httpx

        headers = {"Accept": "application/dicom+json"}
        auth = None
        if self.secret_file is not None and self.username is not None:
            auth = httpx.BasicAuth(self.username, read_secret(self.secret_file))
        elif self.secret_file is not None:
            headers["Authorization"] = f"Bearer {read_secret(self.secret_file)}"
        verify = https_context(self.trusted, self.certificate, self.private_key)
        return httpx.Client(
            headers=headers, auth=auth, verify=verify, timeout=self.timeout_s, follow_redirects=False, trust_env=False
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes
    ----------
    status
        HTTP status, ``None`` when there was no answer.
    trouble, detail
        Why there was none, for a program and in the words of the system.
    stored
        SOP Instance UIDs that the server says it has.
    failed
        SOP Instance UIDs that it says it has not, each with its Failure Reason (0008,1197); 0 where it gave none.
    location
        Where it redirects to, as one line.
    retry_after_s
        How long it wants to be left alone; 0 when it did not say.
    """

    status: int | None
    trouble: Trouble | None = None
    detail: str = ""
    stored: frozenset[str] = frozenset()
    failed: dict[str, int] = field(default_factory=dict)
    location: str = ""
    retry_after_s: float = 0.0


def store(client: httpx.Client, url: str, paths: Sequence[Path], stop: threading.Event) -> Answer:
    """Send files in one request and read what became of each.

    Parameters
    ----------
    client
        From :meth:`Access.client`.
    url
        The service's root.
    paths
        DICOM files (PS3.10), sent as they are.
    stop
        Once it is set the request is given up at its next piece.

    Returns
    -------
    Answer
        Nothing is raised for what the network, the server or a file does wrong.
    """
    import httpx

    boundary = secrets.token_hex(16)
    try:
        body = _Body(paths, boundary, stop)
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(body.length()),
        }
        with client.stream("POST", f"{url}/studies", content=iter(body), headers=headers) as response:
            return _answer(response, _read(response, client.timeout.read or 60.0))
    except _StoppedError:
        return Answer(None, Trouble.STOPPED)
    except (_FileError, OSError) as error:
        return Answer(None, Trouble.FILE, getattr(error, "strerror", None) or str(error))
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        return _no_answer(error)


class _StoppedError(Exception):
    """The service ends."""


class _FileError(Exception):
    """A file was not what it had been when its length was taken."""


class _Body:
    """A multipart/related body (RFC 2387) over files."""

    def __init__(self, paths: Sequence[Path], boundary: str, stop: threading.Event) -> None:
        self._heads = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()] * len(paths)
        self._end = f"--{boundary}--\r\n".encode()
        self._paths = paths
        self._sizes = [path.stat().st_size for path in paths]
        self._stop = stop

    def length(self) -> int:
        return sum(map(len, self._heads)) + sum(self._sizes) + 2 * len(self._paths) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for head, path, size in zip(self._heads, self._paths, self._sizes, strict=True):
            yield head
            sent = 0
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    if self._stop.is_set():
                        raise _StoppedError
                    sent += len(chunk)
                    yield chunk
            if sent != size:
                raise _FileError(f"{path.name} changed while it was sent")
            yield b"\r\n"
        yield self._end


def _read(response: httpx.Response, timeout_s: float) -> bytes:
    """Read an answer that is neither endless nor endlessly slow; what is beyond that is not JSON and says nothing."""
    deadline = time.monotonic() + timeout_s
    text = b""
    for chunk in response.iter_bytes(_CHUNK_BYTES):
        text += chunk
        if len(text) > _LONGEST_ANSWER_BYTES or time.monotonic() > deadline:
            break
    return text


def _answer(response: httpx.Response, text: bytes) -> Answer:
    status = response.status_code
    stored, failed = instances(text) if status in _ANSWERS_WITH_INSTANCES else (frozenset[str](), {})
    return Answer(
        status,
        stored=stored,
        failed=failed,
        location=one_line(response.headers.get("Location", "")) if response.has_redirect_location else "",
        retry_after_s=_retry_after(response.headers.get("Retry-After", "")),
    )


def instances(text: bytes) -> tuple[frozenset[str], dict[str, int]]:
    """Read a Store Instances Response (PS3.18 Section 10.5.3.2) in the DICOM JSON Model.

    Parameters
    ----------
    text
        The payload; anything else than such a response says nothing of any instance.

    Returns
    -------
    stored, failed
        SOP Instance UIDs that are stored, and those that are not with their Failure Reason. One that is named in both
        is not.
    """
    try:
        tree = json.loads(text)
        tree = tree[0] if isinstance(tree, list) and tree else tree
        failed = {
            str(_value(item, _REFERENCED_SOP_INSTANCE_UID)): int(_value(item, _FAILURE_REASON) or 0)
            for item in _items(tree, _FAILED_SOP_SEQUENCE)
        }
        stored = {str(_value(item, _REFERENCED_SOP_INSTANCE_UID)) for item in _items(tree, _REFERENCED_SOP_SEQUENCE)}
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return frozenset(), {}
    return frozenset(stored - failed.keys()), failed


def _items(tree: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return list((tree.get(tag) or {}).get("Value") or ())


def _value(item: dict[str, Any], tag: str) -> Any:
    values = (item.get(tag) or {}).get("Value") or (None,)
    return values[0]


def _retry_after(text: str) -> float:
    """Return a wait in seconds (RFC 9110 Section 10.2.3); 0 where there is none or it cannot be read."""
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _no_answer(error: Exception) -> Answer:
    import httpx

    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return Answer(None, Trouble.UNREACHABLE)
    if isinstance(error, httpx.TimeoutException):
        return Answer(None, Trouble.TIME_OUT)
    if isinstance(error, httpx.ConnectError):
        return Answer(None, *_why_not_connected(error))
    return Answer(None, Trouble.BROKEN_OFF, one_line(str(error)))


def _why_not_connected(error: httpx.ConnectError) -> tuple[Trouble, str]:
    import ssl

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Trouble.CERTIFICATE, one_line(cause.verify_message)
        if isinstance(cause, ssl.SSLError):
            return Trouble.CERTIFICATE, one_line(cause.reason or "")
        cause = cause.__cause__ or cause.__context__
    return Trouble.UNREACHABLE, ""
