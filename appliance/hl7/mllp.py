"""The Minimal Lower Layer Protocol (HL7 Transport Specification: MLLP, Release 1): one message out, its answer in."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.foreign_text import one_line
from appliance.hl7.acknowledgement import Acknowledgement, read_acknowledgement
from appliance.tls import client_context

if TYPE_CHECKING:
    import threading

    from appliance.tls import TlsFiles

START_BLOCK, END_BLOCK = b"\x0b", b"\x1c\r"

_LOOK_INTERVAL_S = 0.2
_LONGEST_ANSWER_BYTES = 1 << 20


class Trouble(StrEnum):
    """Why there is no answer to this message."""

    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    BROKEN_OFF = "broken_off"
    TIME_OUT = "time_out"
    OTHER_MESSAGE = "other_message"
    NO_HL7 = "no_hl7"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes
    ----------
    acknowledgement
        The answer to the message.
    trouble, detail
        Why there is none, for a program and in the words of the system.
    """

    acknowledgement: Acknowledgement | None
    trouble: Trouble | None = None
    detail: str = ""


def exchange(
    text: bytes,
    control_id: str,
    *,
    host: str,
    port: int,
    encoding: str,
    tls: TlsFiles | None = None,
    timeout_s: float = 30.0,
    stop: threading.Event | None = None,
) -> Reply:
    """Send a message over a connection of its own and wait for the answer to it.

    An answer to another message is no answer. An accept acknowledgement counts: the receiver has then taken
    responsibility for the message (Section 2.9.3), and the application's own answer was not asked for.

    Parameters
    ----------
    text
        The message, encoded.
    control_id
        Its MSH-10.
    host, port
        Where the receiver listens.
    encoding
        Python's name of the encoding that answers are read in.
    tls
        Our TLS files; ``None`` speaks plain TCP.
    timeout_s
        For connecting, and for the answer.
    stop
        Once it is set no answer is waited for.

    Raises
    ------
    ConfigurationError
        The TLS files cannot be used.
    """
    context = None if tls is None else client_context(tls, compare_host_name=False)
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        return Reply(None, Trouble.UNREACHABLE, one_line(error.strerror or "no answer"))
    with connection:
        try:
            wrapped = connection if context is None else context.wrap_socket(connection, server_hostname=host)
        except OSError as error:
            said = getattr(error, "verify_message", None) or getattr(error, "reason", None) or "TLS was refused"
            return Reply(None, Trouble.CERTIFICATE, one_line(str(said)))
        with wrapped:
            try:
                wrapped.sendall(START_BLOCK + text + END_BLOCK)
                return _wait(wrapped, control_id, encoding, time.monotonic() + timeout_s, stop)
            except TimeoutError:
                return Reply(None, Trouble.TIME_OUT)
            except OSError as error:
                return Reply(None, Trouble.BROKEN_OFF, one_line(error.strerror or ""))


def _wait(
    connection: socket.socket, control_id: str, encoding: str, deadline: float, stop: threading.Event | None
) -> Reply:
    connection.settimeout(_LOOK_INTERVAL_S)
    trouble = Trouble.TIME_OUT
    heard = b""
    while time.monotonic() < deadline and not (stop is not None and stop.is_set()):
        piece: bytes | None = None
        with suppress(TimeoutError, ssl.SSLWantReadError):
            piece = connection.recv(1 << 16)
        if piece == b"":
            return Reply(None, Trouble.BROKEN_OFF if trouble is Trouble.TIME_OUT else trouble)
        heard += piece or b""
        while (end := heard.find(END_BLOCK)) >= 0:
            frame, heard = heard[:end], heard[end + len(END_BLOCK) :]
            answer = read_acknowledgement(frame.rpartition(START_BLOCK)[2].decode(encoding, "replace"))
            if answer is not None and answer.control_id in {control_id, ""}:
                return Reply(answer)
            trouble = Trouble.NO_HL7 if answer is None else Trouble.OTHER_MESSAGE
        if len(heard) > _LONGEST_ANSWER_BYTES:
            return Reply(None, Trouble.NO_HL7)
    return Reply(None, trouble)
