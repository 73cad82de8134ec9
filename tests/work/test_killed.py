"""SIGKILL of the real worker, and of its child, at random moments; afterwards nothing is lost and nothing is twice."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from appliance.services.lifecycle import read_heartbeat
from appliance.store.database import open_database
from appliance.store.instances import Disposition
from appliance.store.lifecycle import TERMINAL, ScanState
from tests.store.samples import dispositions
from tests.work.killed_worker import work

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from appliance.config import Settings
    from tests.work.conftest import Scanner

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.work.killed_worker"])


def _start(settings: Settings) -> BaseProcess:
    process = _context.Process(target=work, args=(str(settings.box.state_directory),))
    process.start()
    return process


def _send_something(scanner: Scanner, number: int) -> dict[str, int]:
    """Send a new series, and now and then something of an earlier one; return how many instances each has now."""
    scanner.send(f"1.{number}", 3)
    if number % 3 == 2:
        scanner.send(f"1.{number - 2}", 4)  # what was sent before, and one more
        return {f"1.{number}": 3, f"1.{number - 2}": 4}
    return {f"1.{number}": 3}


def _kill_at_random(settings: Settings, scanner: Scanner, kills: int, rng: random.Random) -> dict[str, int]:
    sent: dict[str, int] = {}
    for number in range(kills):
        worker = _start(settings)
        time.sleep(rng.uniform(0.0, 0.3))
        sent |= _send_something(scanner, number)
        if number % 2:
            heartbeat = _at_work(settings, worker)
            time.sleep(rng.uniform(0.0, 0.2))
            if number % 4 == 3 and heartbeat is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(heartbeat["child_pid"], signal.SIGKILL)
                time.sleep(rng.uniform(0.0, 0.2))
        else:
            time.sleep(rng.uniform(0.0, 0.9))
        worker.kill()
        worker.join()
    return sent


def _at_work(settings: Settings, worker: BaseProcess) -> dict[str, Any] | None:
    """Wait until the worker has a scan at hand, but not for ever: there may be none left."""
    deadline = time.monotonic() + 3.0
    while time.monotonic() < deadline:
        heartbeat = read_heartbeat(settings.box.state_directory, "work")
        if heartbeat and heartbeat["pid"] == worker.pid and heartbeat["scan"] is not None:
            return heartbeat
        time.sleep(0.005)
    return None


def _let_it_finish(settings: Settings, sent: dict[str, int], until: Callable[[Callable[[], bool]], None]) -> None:
    worker = _start(settings)

    def all_ended() -> bool:
        with open_database(settings.box.database) as store:
            counts = store.scans.summary(last=0).counts
            used = dispositions(store).get(Disposition.USED, 0)
        ended = sum(counts[state] for state in TERMINAL)
        return used == sum(sent.values()) and ended == sum(counts.values())

    until(lambda: settings.box.database.exists() and all_ended())
    worker.terminate()
    worker.join()
    assert worker.exitcode == 0


def _check(settings: Settings, sent: dict[str, int]) -> None:
    latest: dict[str, list[str]] = {}
    with open_database(settings.box.database) as store:
        scans = store.scans.last(1000)
        for scan in sorted(scans, key=lambda scan: scan.revision):
            steps = [line.to_state for line in store.scans.history(scan.id)]
            assert scan.state is ScanState.DONE
            assert collections.Counter(steps)[ScanState.DONE] == 1
            assert collections.Counter(steps)[ScanState.SCREENED] == 1
            result = store.results.get(scan.id)
            assert result is not None
            assert result.report["instances"] == sorted(i.sop_instance_uid for i in store.instances.of_scan(scan.id))
            latest[scan.series_instance_uid] = result.report["instances"]
        assert store.rows("SELECT count(*) AS n FROM measurements")[0]["n"] == len(scans)
        folders = sorted(path.name for path in settings.box.results.iterdir())
        assert folders == sorted(scan.folder for scan in scans)
    assert latest == {
        series: sorted(f"{series}.{number}" for number in range(1, count + 1)) for series, count in sent.items()
    }


def _kill_and_check(
    settings: Settings, scanner: Scanner, until: Callable[[Callable[[], bool]], None], kills: int, seed: int
) -> None:
    sent = _kill_at_random(settings, scanner, kills, random.Random(seed))
    _let_it_finish(settings, sent, until)
    _check(settings, sent)


def test_fifteen_kills(settings: Settings, scanner: Scanner, until: Callable[[Callable[[], bool]], None]) -> None:
    _kill_and_check(settings, scanner, until, 15, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_forty_kills(
    settings: Settings, scanner: Scanner, until: Callable[[Callable[[], bool]], None], seed: int
) -> None:
    _kill_and_check(settings, scanner, until, 40, seed)


def _cut(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@pytest.mark.slow
def test_kills_and_a_lost_database(
    settings: Settings, scanner: Scanner, until: Callable[[Callable[[], bool]], None]
) -> None:
    rng = random.Random(6)
    sent: dict[str, int] = {}
    sent |= _kill_at_random(settings, scanner, 10, rng)
    _cut(settings.box.database)
    _let_it_finish(settings, sent, until)
    latest: dict[str, int] = {}
    with open_database(settings.box.database) as store:
        for scan in sorted(store.scans.last(1000), key=lambda scan: scan.revision):
            assert scan.state is ScanState.DONE
            latest[scan.series_instance_uid] = scan.instances
    assert latest == sent
