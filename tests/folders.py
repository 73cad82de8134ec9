"""What ``make test`` runs: every folder of tests in a process of its own, two at a time where there are two cores.

What OpenVINO, codecs and brokers leave behind in a process must not decide the next folder's tests. A folder's output
is printed when it has ended; what failed is said once more at the end, where it is looked for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
AT_A_TIME = 2
# These take longest, so they begin first.
FIRST = ("screenings", "alerts", "work", "delivery", "health", "board")
NO_TESTS = 5
_COUNTS = re.compile(r"(\d+) (passed|failed|error|skipped)")


class Ended(NamedTuple):
    """How one folder's tests ended."""

    name: str
    status: int
    seconds: float
    output: str

    def counts(self) -> dict[str, int]:
        """Return how many passed, failed, were skipped, by pytest's closing line."""
        closing = self.output.rstrip().rsplit("\n", 1)[-1]
        return {word: int(number) for number, word in _COUNTS.findall(closing)}


def main(options: list[str]) -> int:
    """Run the folders, with further options for pytest; 0 when all passed."""
    names = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    order = [name for name in FIRST if name in names] + sorted(names.difference(FIRST))
    printing = threading.Lock()

    def run(name: str) -> Ended:
        ended = _run(name, options)
        with printing:
            print(ended.output, flush=True)
        return ended

    with ThreadPoolExecutor(min(AT_A_TIME, os.cpu_count() or 1)) as pool:
        results = list(pool.map(run, order))
    return _sum_up(results)


def _run(name: str, options: list[str]) -> Ended:
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        command = [sys.executable, "-m", "pytest", f"tests/{name}", *options]
        status = subprocess.call(command, cwd=TESTS.parent, stdout=output, stderr=subprocess.STDOUT)
        output.seek(0)
        return Ended(name, status, time.monotonic() - began, output.read())


def _sum_up(results: list[Ended]) -> int:
    print("folder            minutes  passed  skipped")
    for ended in results:
        counts = ended.counts()
        print(
            f"{ended.name:<16} {ended.seconds / 60:8.1f} {counts.get('passed', 0):7d} {counts.get('skipped', 0):8d}"
            + ("" if ended.status in {0, NO_TESTS} else f"  FAILED (exit {ended.status})")
        )
    bad = [ended for ended in results if ended.status not in {0, NO_TESTS}]
    for ended in bad:
        for line in ended.output.splitlines():
            if line.startswith(("FAILED ", "ERROR ")):
                print(line)
    totals = {word: sum(ended.counts().get(word, 0) for ended in results) for word in ("passed", "failed", "skipped")}
    failed = max(totals["failed"], len(bad))
    print(f"{totals['passed']} passed, {failed} failed, {totals['skipped']} skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
