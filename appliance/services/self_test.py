"""A short-lived child of the work service that runs every pack on its test vectors and says how many passed.

It is apart from the child that screens, so that a scan never waits for it, and it dies with its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import structlog

from appliance.errors import ConfigurationError, InferenceError, PackError
from appliance.services.tether import tie_to_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.config import Settings
    from appliance.store.database import Store

_log = structlog.get_logger()

_NICENESS = 10
_WITHIN_S = 600.0
_RESULT_BYTES = 4096


class SelfTester:
    """Does the self-tests that were asked for, one after the other; every call returns at once.

    Parameters
    ----------
    store
        The work service's own.
    settings
        Handed to the child.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._read = -1
        self._number = 0
        self._began_s = 0.0

    def step(self) -> None:
        """Begin what was asked for, or see whether what was begun has ended."""
        if self._process is None:
            asked = self._store.self_tests.open()
            if asked is not None:
                self._begin(asked.id)
            return
        code = self._process.poll()
        if code is None and time.monotonic() - self._began_s > _WITHIN_S:
            self._process.kill()
            code = self._process.wait()
        if code is not None:
            passed, failed = self._result(code)
            self._store.self_tests.end(self._number, passed=passed, failed=failed)
            _log.info("self_test_ended", passed=passed, failed=failed)

    def close(self) -> None:
        """End the child; the next service begins the self-test anew."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            os.close(self._read)
            self._process = None

    def _begin(self, number: int) -> None:
        self._store.self_tests.begin(number)
        self._number, self._began_s = number, time.monotonic()
        self._read, write = os.pipe()
        try:
            command = [sys.executable, "-m", "appliance.services.self_test", "--parent", str(os.getpid())]
            self._process = subprocess.Popen(
                [*command, "--line", str(write)],
                stdin=subprocess.PIPE,
                stdout=2,  # what libraries print goes where the log goes
                pass_fds=(write,),
            )
            if self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError), self._process.stdin as line:
                    line.write(self._settings.model_dump_json().encode())
        finally:
            os.close(write)

    def _result(self, code: int) -> tuple[int, int]:
        text = os.read(self._read, _RESULT_BYTES)
        os.close(self._read)
        self._process = None
        try:
            told = json.loads(text)
            return int(told["passed"]), int(told["failed"])
        except (ValueError, KeyError, TypeError):
            _log.error("self_test_lost", exit_code=code)
            return 0, 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Test every pack in use."""
    parser = argparse.ArgumentParser(prog="self_test", description="Started by the work service only.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--line", type=int, required=True)
    options = parser.parse_args(arguments)
    if not tie_to_parent(options.parent, signal.SIGKILL):
        return
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    from appliance import logs
    from appliance.config import Settings

    settings = Settings.model_validate_json(sys.stdin.read())
    logs.configure(settings.box.log_level, settings.box.log_format)
    passed, failed = _test(settings)
    os.write(options.line, json.dumps({"passed": passed, "failed": failed}).encode())


def _test(settings: Settings) -> tuple[int, int]:
    from appliance.packs.registry import ALL_TASKS, available
    from appliance.packs.rules import Rules
    from appliance.packs.selftest import self_test

    passed = failed = 0
    try:
        packs = available(Rules.from_settings(settings), tasks=ALL_TASKS)
    except (PackError, ConfigurationError, OSError) as error:
        _log.error("packs_not_read", why=str(error))
        return 0, 1
    for pack in packs:
        try:
            good = all(item.passed for item in self_test(pack, threads=settings.work.threads))
        except (PackError, InferenceError) as error:
            _log.error("self_test_failed", pack=pack.name, version=pack.version, why=str(error))
            good = False
        passed, failed = (passed + 1, failed) if good else (passed, failed + 1)
    return passed, failed


if __name__ == "__main__":
    main()
