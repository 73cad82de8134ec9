"""The last lines of the services' logs as journald keeps them, reduced to what may leave the box.

Of a line only its name, its level, the code of a reason, the number of a scan and plain numbers are taken. What
libraries log is sentences and is left out whole.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

from appliance.health.command_model import LogLevel, LogLine
from appliance.health.model import ServiceName
from appliance.reasons import ReasonCode

_TIMEOUT_S = 10.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_UNIT = re.compile(r"appliance-([a-z]+)\.service")
# Numbers under these names are said otherwise or could be anything.
_NOT_NUMBERS = {"scan", "pid", "port"}


def last_lines(limit: int) -> list[LogLine] | None:
    """Return the newest lines, oldest first; ``None`` where the journal cannot be read."""
    if shutil.which("journalctl") is None:
        return None
    command = ["journalctl", "--unit=appliance-*", "--output=json", f"--lines={limit}", "--no-pager", "--quiet"]
    try:
        told = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_S, check=True, stdin=subprocess.DEVNULL, text=True
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    lines = (_line(text) for text in told.stdout.splitlines())
    return [line for line in lines if line is not None]


def _line(text: str) -> LogLine | None:
    try:
        entry = json.loads(text)
        unit = _UNIT.fullmatch(str(entry["_SYSTEMD_UNIT"]))
        message = json.loads(entry["MESSAGE"])
        name, level = message["event"], LogLevel(message["level"])
        if unit is None or not isinstance(name, str) or not _NAME.fullmatch(name):
            return None
        return LogLine(
            at=datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, UTC),
            service=ServiceName(unit.group(1)),
            level=level,
            event=name,
            reason=_reason(message.get("reason")),
            scan=_scan(message.get("scan")),
            numbers=_numbers(message),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None  # another program's line, or a sentence


def _reason(word: object) -> ReasonCode | None:
    return ReasonCode(word) if isinstance(word, str) and word in set(ReasonCode) else None


def _scan(number: object) -> int | None:
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _numbers(message: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in message.items()
        if _NAME.fullmatch(name)
        and name not in _NOT_NUMBERS
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < 1e9  # a longer number could be an identifier
    }
