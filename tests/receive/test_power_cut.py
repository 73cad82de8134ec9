"""A receiver killed at any moment loses nothing that it acknowledged."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from appliance.dicom.network.sender import send
from appliance.dicom.spool import CloseReason, Spool
from tests.receive.conftest import CALLED, SENDER, data_set_bytes, eventually, list_associations, make_series

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SENDERS = 2


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_series(tmp_path_factory.mktemp("images"), 150, size=64 * 1024)


@contextlib.contextmanager
def service(state: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run ``appliance receive`` as a process of its own."""
    settings = state.parent / "appliance.toml"
    settings.write_text(
        f"[box]\nstate_directory = {json.dumps(str(state))}\n[receive]\naddress = '127.0.0.1'\nport = 0\n"
        f"disk_reserve_mib = 0\npeers = [{{ ae_title = '{SENDER}', address = '127.0.0.1' }}]\n"
    )
    heartbeat = state / "run" / "receive.json"
    heartbeat.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance", "receive", "--config", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(heartbeat.exists, 120)
        yield process, int(json.loads(heartbeat.read_text())["port"])
    finally:
        process.kill()
        process.wait()


def kill_while_sending(state: Path, images: list[Path], after_s: float) -> list[Path]:
    """Send on several associations, kill the receiver, and return the files that were acknowledged."""
    acknowledged: list[Path] = []

    def deliver(paths: list[Path], port: int) -> None:
        report = send(paths, host="127.0.0.1", port=port, called_ae=CALLED, calling_ae=SENDER, timeout_s=10)
        acknowledged.extend(each.path for each in report.results if each.status == 0)

    with service(state) as (process, port):
        threads = [threading.Thread(target=deliver, args=(images[n::SENDERS], port)) for n in range(SENDERS)]
        for thread in threads:
            thread.start()
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    return acknowledged


def check_killed_at_random(tmp_path: Path, images: list[Path], times: int) -> None:
    state = tmp_path / "state"
    pick = random.Random(20)
    interrupted = 0
    expected: dict[bytes, int] = {}
    for _ in range(times):
        acknowledged = kill_while_sending(state, images, pick.uniform(0.05, 0.6))
        interrupted += len(acknowledged) < len(images)
        for path in acknowledged:
            content = data_set_bytes(path)
            expected[content] = expected.get(content, 0) + 1
    with Spool(state / "spool") as spool:
        spool.recover()
    found: dict[bytes, int] = {}
    for association in list_associations(state / "spool"):
        assert association.closed is not None
        for path in association.instances:
            content = data_set_bytes(path)
            found[content] = found.get(content, 0) + 1
    assert interrupted > times // 2, "the receiver was killed too late to show anything"
    # An instance may be there without its acknowledgement having arrived, never the other way round.
    assert all(found.get(content, 0) >= count for content, count in expected.items())
    assert set(found) <= {data_set_bytes(path) for path in images}, "a file is not what was sent"
    assert not list(state.rglob("*.part"))


@pytest.mark.slow
def test_killed_at_random(tmp_path: Path, images: list[Path]) -> None:
    check_killed_at_random(tmp_path, images, times=10)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_random_many_times(tmp_path: Path, images: list[Path]) -> None:
    check_killed_at_random(tmp_path, images, times=40)


def test_a_restart_closes_what_was_open(tmp_path: Path, images: list[Path]) -> None:
    state = tmp_path / "state"
    kill_while_sending(state, images, 0.3)
    with service(state):
        associations = list_associations(state / "spool")
    assert associations
    assert {each.closed.reason for each in associations} == {CloseReason.RECEIVER_RESTARTED}
