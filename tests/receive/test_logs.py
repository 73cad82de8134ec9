"""What log lines show, and above all what they do not."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from appliance import logs
from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("pydicom", "pynetdicom", "py.warnings")}
    yield
    root.handlers, root.level = before
    logging.captureWarnings(capture=False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()


def line(level: str = "info", **fields: Any) -> dict[str, Any]:
    """Log one event as JSON and return it read back."""
    stream = io.StringIO()
    logs.configure(level, "json", stream)  # type: ignore[arg-type]
    structlog.get_logger().info("event", **fields)
    return dict(json.loads(stream.getvalue()))


def test_a_line_has_event_level_and_time() -> None:
    assert {"event", "level", "timestamp", "instances"} == set(line(instances=3))


@pytest.mark.parametrize("key", sorted(logs.PATIENT_KEYS))
@pytest.mark.parametrize("level", ["info", "debug"])
def test_patient_keys_are_hidden_at_every_level(key: str, level: str) -> None:
    assert line(level, **{key: "Wang^Wei"})[key] == logs.REDACTED


def test_uids_are_dropped() -> None:
    assert "series_instance_uid" not in line(series_instance_uid="1.2.3", sop_instance_uids=["1.2.3"])


def test_uids_are_kept_at_debug() -> None:
    assert line("debug", series_instance_uid="1.2.3")["series_instance_uid"] == "1.2.3"


def test_nested_values_are_hidden_too() -> None:
    assert line(scan={"patient_id": "42", "study_instance_uid": "1.2", "slices": 3})["scan"] == {
        "patient_id": logs.REDACTED,
        "slices": 3,
    }


def test_bound_context_is_hidden_too() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    structlog.get_logger().bind(patient_name="Wang^Wei").info("event")
    assert "Wang" not in stream.getvalue()


def test_tracebacks_do_not_quote() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    from_a_header = "Wang^Wei"
    try:
        int(from_a_header)
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError" in stream.getvalue()
    assert "Wang" not in stream.getvalue()


def test_our_own_sentences_are_kept() -> None:
    stream = io.StringIO()
    logs.configure("info", "text", stream)
    structlog.get_logger().error("failed", exc_info=ConfigurationError("write the port as a number"))
    assert "write the port as a number" in stream.getvalue()


@pytest.mark.parametrize("name", ["pydicom", "pynetdicom.association"])
def test_libraries_that_quote_are_silent(name: str) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger(name).error("Invalid value 'Wang^Wei'")
    assert stream.getvalue() == ""


def test_warnings_that_quote_are_silent() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("Invalid value 'Wang^Wei'", stacklevel=1)
    assert stream.getvalue() == ""


def test_other_libraries_warn_in_the_same_shape() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger("some.library").warning("slow %s", "disk")
    logging.getLogger("some.library").info("chatter")
    (only,) = stream.getvalue().splitlines()
    assert json.loads(only)["event"] == "slow disk"


def test_level_is_kept() -> None:
    stream = io.StringIO()
    logs.configure("warning", "json", stream)
    structlog.get_logger().info("event")
    assert stream.getvalue() == ""


def test_a_pipe_gets_json() -> None:
    stream = io.StringIO()
    logs.configure("info", "auto", stream)
    structlog.get_logger().info("event")
    assert json.loads(stream.getvalue())["event"] == "event"


def test_a_terminal_gets_text() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logs.configure("info", "auto", stream)
    structlog.get_logger().info("event")
    assert not stream.getvalue().startswith("{")


def test_a_pipe_that_ends_on_a_terminal_gets_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.LOG_FORMAT_VARIABLE, "text")
    stream = io.StringIO()
    logs.configure("info", "auto", stream)
    structlog.get_logger().info("event")
    assert not stream.getvalue().startswith("{")


def test_import_is_cheap() -> None:
    script = "import sys, appliance.logs; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydicom", "pynetdicom", "numpy", "pydantic"} & set(modules)
