"""Log lines for people and for the journal, without anything that identifies a patient at the default level."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Literal

import structlog

from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from typing import TextIO

LOG_FORMAT_VARIABLE = "APPLIANCE_LOG_FORMAT"
"""Set by ``appliance serve``, whose services write to a pipe that ends on a terminal; decides where "auto" stands."""

REDACTED = "…"

PATIENT_KEYS = frozenset(
    {
        "accession",
        "accession_number",
        "address_of_patient",
        "birth_date",
        "institution_name",
        "issuer_of_patient_id",
        "operators_name",
        "other_patient_ids",
        "patient",
        "patient_address",
        "patient_age",
        "patient_birth_date",
        "patient_comments",
        "patient_id",
        "patient_name",
        "patient_sex",
        "patients_name",
        "performing_physician_name",
        "physician",
        "protocol_name",
        "referring_physician_name",
        "requested_procedure_id",
        "series_description",
        "study_date",
        "study_description",
        "study_id",
        "study_time",
    }
)
"""Keys whose values are never written, at any level."""

_QUIET_LIBRARIES = {
    # They report what peers and files do wrong, quoting them; our own lines say the same without the quotation.
    "pynetdicom": logging.CRITICAL,
    "pydicom": logging.CRITICAL,
    "py.warnings": logging.CRITICAL,
}


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    log_format: Literal["auto", "text", "json"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Set up structlog and the standard library's logging for this process.

    Parameters
    ----------
    level
        Least severe line written. Only ``debug`` shows UIDs, the text of unforeseen exceptions, and
        warnings of libraries, all of which may quote a header.
    log_format
        ``text`` for people, ``json`` for the journal, ``auto`` by what ``stream`` is.
    stream
        Where lines go; standard error when ``None``.
    """
    stream = sys.stderr if stream is None else stream
    number = getattr(logging, level.upper())
    text = _is_text(log_format, stream)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    shared += [redact_at_debug] if number <= logging.DEBUG else [redact, bare_exception]
    last: list[Any]
    if text:
        colours = stream.isatty() and "NO_COLOR" not in os.environ
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
        last = [renderer]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    structlog.configure(
        processors=shared + last,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _route_libraries(stream, shared, last, debug=number <= logging.DEBUG)


def redact(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Hide the values of keys that identify a patient, and drop UIDs (structlog processor)."""
    return _redacted(event, keep_uids=False)


def redact_at_debug(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Hide the values of keys that identify a patient, and keep UIDs (structlog processor)."""
    return _redacted(event, keep_uids=True)


def bare_exception(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Render a traceback without the exception's own text, which may quote a header (structlog processor)."""
    given = event.pop("exc_info", None)
    if not given:
        return event
    if isinstance(given, BaseException):
        error: BaseException | None = given
    else:
        error = given[1] if isinstance(given, tuple) else sys.exc_info()[1]
    if error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__))
        text = f": {error}" if isinstance(error, ApplianceError) else ""
        event["exception"] = f"Traceback (most recent call last):\n{frames}{type(error).__name__}{text}"
    return event


def _redacted(tree: dict[str, Any], *, keep_uids: bool) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for key, value in tree.items():
        if key in PATIENT_KEYS:
            clean[key] = REDACTED
        elif key.endswith(("_uid", "_uids")) and not keep_uids:
            continue
        else:
            clean[key] = _redacted(value, keep_uids=keep_uids) if isinstance(value, dict) else value
    return clean


def _is_text(log_format: str, stream: TextIO) -> bool:
    if log_format == "auto":
        log_format = os.environ.get(LOG_FORMAT_VARIABLE, "")
    if log_format in {"text", "json"}:
        return log_format == "text"
    return stream.isatty()


def _route_libraries(stream: TextIO, shared: list[Any], last: list[Any], *, debug: bool) -> None:
    """Write what libraries log at warning and above in the same shape as our own lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    for name, quiet in _QUIET_LIBRARIES.items():
        logging.getLogger(name).setLevel(logging.WARNING if debug else quiet)
