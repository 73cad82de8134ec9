"""How long it takes from an alert in the database to its card in a real browser, and what the board needs meanwhile.

A real ``appliance board``, a headless Chromium on the same machine, one alert at a time. Begun is the moment before the
transaction that raises the alert; shown is when the card is in the page, by the clock that both share.

Run as ``python tests/benchmarks/bench_board.py``; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.board.browsers import Browser
from tests.board.room import Room
from tests.machine import wait_until

OBSERVE = """
new MutationObserver(() => {
  for (const card of document.querySelectorAll(".card")) card.dataset.shown ??= Date.now();
}).observe(document.body, { childList: true, subtree: true });
"""


def delays_s(room: Room, browser: Browser, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        scan = room.add_scan("A1")
        time.sleep(1.5)  # what the scan itself changes is on the page by then
        begun = time.time()
        (alert,) = room.raise_alert(scan)
        css = f"return document.querySelector('.card[data-key=\"{scan}\"]')?.dataset.shown"
        shown = wait_until(lambda css=css: browser.run(css), "the card")
        found.append(int(shown) / 1000.0 - begun)
        with room.store() as store:
            store.alerts.acknowledge(alert, "benchmark")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        room = Room(Path(folder))
        try:
            room.add_scan("A0")
            board = room.start()
            browser = Browser(board.url, Path(folder) / "browser")
            try:
                browser.log_in()
                browser.run(OBSERVE)
                process = psutil.Process(board.process.pid)
                process.cpu_percent(None)
                delays = delays_s(room, browser, rounds)
                time.sleep(20)
                process.cpu_percent(None)
                time.sleep(20)
                idle = process.cpu_percent(None)
                resident = process.memory_info().rss / 2**20
            finally:
                browser.driver.quit()
        finally:
            room.close()
    machine = f"{platform.processor() or 'x86-64'}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}"
    print(f"### The alert board ({machine})\n")
    print("| what | measured |\n|---|---|")
    print(f"| alert raised to its card in the browser, {rounds} times: median | {statistics.median(delays):.2f} s |")
    print(f"| the slowest of them | {max(delays):.2f} s |")
    print(f"| resident memory of the board | {resident:.0f} MiB |")
    print(f"| processor while one page is open and nothing happens | {idle:.1f} % of one core |")


if __name__ == "__main__":
    main()
