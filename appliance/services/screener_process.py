"""The parent's side of the screening child: starting it, talking to it, watching it, ending it.

Each child has pipes of its own that end with it, so that killing one can leave nothing locked for the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil

from appliance.errors import ApplianceError
from appliance.services.screener import SCREEN_SERIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.config import Settings

_MIB = 1024.0 * 1024.0
_SEND_WITHIN_S = 10.0
_STOP_WITHIN_S = 2.0
_READ_BYTES = 65536
_MEASURE_INTERVAL_S = 0.5


class ScreenerLostError(ApplianceError):
    """The child does not listen any more."""


class ScreenerProcess:
    """One child; start it from a thread that lives as long as it should.

    Parameters
    ----------
    settings
        Handed to the child.
    screen_with
        ``module:function`` that screens; another one than the appliance's own in tests only.

    Raises
    ------
    ScreenerLostError
        It ended, or does not listen, before it was told its settings; nothing of it is left.

    Attributes
    ----------
    ready
        Whether the child has loaded what it needs and waits for jobs.
    jobs
        How many it was given.
    """

    def __init__(self, settings: Settings, *, screen_with: str = SCREEN_SERIES) -> None:
        self.ready = False
        self.jobs = 0
        self._started = time.monotonic()
        self._measured_at = 0.0
        self._resident_mib = 0.0
        self._buffer = b""
        self._read, write = os.pipe()
        try:
            os.set_blocking(self._read, False)
            command = [sys.executable, "-m", "appliance.services.screener", "--parent", str(os.getpid())]
            self._process = subprocess.Popen(
                [*command, "--line", str(write), "--screen-with", screen_with],
                stdin=subprocess.PIPE,
                stdout=2,  # what libraries print goes where the log goes
                pass_fds=(write,),
            )
        except OSError:
            os.close(self._read)
            raise
        finally:
            os.close(write)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
        try:
            self._send(settings.model_dump_json().encode())
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def screen(
        self,
        job: int,
        paths: Sequence[Path],
        out: Path,
        revision: int,
        others: Sequence[Sequence[Path]] = (),
        predecessor: Path | None = None,
    ) -> None:
        """Give it one series, where the study has others theirs to choose from, and the results of its last revision.

        Raises
        ------
        ScreenerLostError
            It does not take it.
        """
        self.jobs += 1
        content: dict[str, Any] = {
            "job": job,
            "paths": [str(path) for path in paths],
            "out": str(out),
            "revision": revision,
        }
        if predecessor is not None:
            content["predecessor"] = str(predecessor)
        if others:
            content["others"] = [[str(path) for path in series] for series in others]
        self._send(json.dumps(content).encode())

    def messages(self, timeout_s: float) -> list[dict[str, Any]]:
        """Wait for what it says, and return it; nothing when it said nothing in time."""
        readable, _, _ = select.select([self._read], [], [], timeout_s)
        if not readable:
            return []
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._read, _READ_BYTES):
                self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        messages = [json.loads(line) for line in lines]
        self.ready = self.ready or any(message["event"] == "ready" for message in messages)
        return messages

    def ended(self) -> int | None:
        """Return its exit code, or minus its signal, or ``None`` while it runs."""
        return self._process.poll()

    def resident_mib(self) -> float:
        """Return the resident size of it and of the processes it has started, MiB; 0 when it has ended.

        Looking costs some milliseconds, so an answer is good for half a second.
        """
        now = time.monotonic()
        if now - self._measured_at >= _MEASURE_INTERVAL_S:
            self._measured_at = now
            self._resident_mib = sum(map(_resident_mib, self._family()))
        return self._resident_mib

    def stop(self) -> None:
        """Let it end by itself, and end it when it does not."""
        self._close_input()
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._close()

    def kill(self) -> None:
        """End it and what it has started now."""
        family = self._family()
        self._process.kill()
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._close_input()
        self._close()

    def _family(self) -> list[psutil.Process]:
        if self.ended() is not None:
            return []  # its number may be another process's by now
        try:
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        except psutil.Error:
            return []

    def _close(self) -> None:
        self._process.wait()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def _close_input(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _send(self, line: bytes) -> None:
        if self._process.stdin is None:
            raise ScreenerLostError("The screening process has no input.")
        descriptor = self._process.stdin.fileno()
        rest = memoryview(line + b"\n")
        deadline = time.monotonic() + _SEND_WITHIN_S
        try:
            while rest:
                if not select.select([], [descriptor], [], max(0.0, deadline - time.monotonic()))[1]:
                    raise ScreenerLostError("The screening process does not listen.")
                with contextlib.suppress(BlockingIOError):
                    rest = rest[os.write(descriptor, rest) :]
        except (BrokenPipeError, ValueError) as error:
            raise ScreenerLostError("The screening process has ended.") from error


def _resident_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / _MIB
    except psutil.Error:
        return 0.0
