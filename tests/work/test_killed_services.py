"""Receiver and worker killed at random while a scanner sends: what was acknowledged is screened, and once."""

from __future__ import annotations

import multiprocessing
import random
import threading
from typing import TYPE_CHECKING

import pytest

from appliance.dicom.network.sender import send
from appliance.services.lifecycle import read_heartbeat
from appliance.store.database import open_database
from appliance.store.lifecycle import TERMINAL, ScanState
from tests.store.samples import measured
from tests.work.conftest import instance
from tests.work.killed_worker import SENDER, receive, work

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from appliance.config import Settings

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.work.killed_worker"])


class Box:
    """Both services of one state directory, each in a process that may be killed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.processes: dict[str, BaseProcess] = {}

    def start(self, name: str) -> None:
        target = {"receive": receive, "work": work}[name]
        self.processes[name] = _context.Process(target=target, args=(str(self.settings.box.state_directory),))
        self.processes[name].start()

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].join()

    def listens(self) -> bool:
        heartbeat = read_heartbeat(self.settings.box.state_directory, "receive")
        return heartbeat is not None and heartbeat["pid"] == self.processes["receive"].pid

    def acknowledges(self, files: list[Path]) -> set[str]:
        """Send as a scanner does, and return the SOP Instance UIDs that were acknowledged."""
        heartbeat = read_heartbeat(self.settings.box.state_directory, "receive")
        assert heartbeat is not None
        report = send(
            files, host="127.0.0.1", port=heartbeat["port"], called_ae="APPLIANCE", calling_ae=SENDER, timeout_s=5.0
        )
        return {result.path.stem for result in report.results if result.status == 0x0000}

    def all_ended(self) -> bool:
        with open_database(self.settings.box.database) as store:
            counts = store.scans.summary(last=0).counts
            known = {row.name for row in store.associations.all() if row.indexed}
        spooled = {path.name for path in (self.settings.box.spool / "associations").iterdir()}
        return spooled <= known and sum(counts[state] for state in TERMINAL) == sum(counts.values())


def _series(folder: Path, number: int) -> list[Path]:
    files = [folder / f"1.{number}.{image}.dcm" for image in range(1, 31)]
    for image, path in enumerate(files, start=1):
        path.write_bytes(instance(f"1.{number}", image))
    return files


def _latest(settings: Settings) -> dict[str, set[str]]:
    """Return what the last result of each series was made of, having checked that each scan has one."""
    latest: dict[str, set[str]] = {}
    with open_database(settings.box.database) as store:
        scans = store.scans.last(1000)
        for scan in sorted(scans, key=lambda scan: scan.revision):
            result = store.results.get(scan.id)
            assert scan.state is ScanState.DONE
            assert result is not None
            latest[scan.series_instance_uid] = set(result.report["instances"])
        assert len(measured(store, "laa950_percent")) == len(scans)
    return latest


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost(
    settings: Settings, tmp_path: Path, until: Callable[[Callable[[], bool]], None], seed: int
) -> None:
    rng = random.Random(seed)
    box = Box(settings)
    box.start("receive")
    box.start("work")
    acknowledged: set[str] = set()
    for number in range(20):
        until(box.listens)
        victim = rng.choice(["receive", "work"])
        kill = threading.Timer(rng.uniform(0.0, 0.4), box.processes[victim].kill)
        kill.start()
        acknowledged |= box.acknowledges(_series(tmp_path, number))
        kill.join()
        box.kill(victim)
        box.start(victim)
    until(box.listens)
    until(box.all_ended)
    latest = _latest(settings)
    for name in box.processes:
        box.processes[name].terminate()
        box.processes[name].join()
    assert acknowledged <= set().union(*latest.values())
    assert len(acknowledged) > 30
