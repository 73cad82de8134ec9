"""Several senders at once, and stopping in the middle of them."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from appliance.dicom.network.sender import SendReport, send
from appliance.dicom.spool import CloseReason
from tests.receive.conftest import CALLED, SENDER, data_set_bytes, eventually, list_associations, make_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from appliance.dicom.network.receiver import Receiver


def deliver(receiver: Receiver, paths: list[Path], on_progress: Callable[[int, int], None] | None = None) -> SendReport:
    return send(
        paths,
        host="127.0.0.1",
        port=receiver.port,
        called_ae=CALLED,
        calling_ae=SENDER,
        timeout_s=10,
        on_progress=on_progress,
    )


def test_associations_stay_apart(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    jobs = [make_series(tmp_path / str(number), 15, size=32 * 1024) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda paths: deliver(receiver, paths), jobs))
    assert all(report.ok for report in reports)
    eventually(lambda: all(each.closed for each in list_associations(spool)))
    found = [[data_set_bytes(path) for path in each.instances] for each in list_associations(spool)]
    assert sorted(found) == sorted([data_set_bytes(path) for path in paths] for paths in jobs)


def test_every_association_has_its_own_folder(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "ct", 2)
    for _ in range(5):
        deliver(receiver, paths)
    assert len(list_associations(spool)) == 5


def test_statistics_add_up(receiver: Receiver, tmp_path: Path) -> None:
    jobs = [make_series(tmp_path / str(number), 10) for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda paths: deliver(receiver, paths), jobs))
    eventually(lambda: receiver.statistics.associations_open == 0)
    assert (receiver.statistics.associations, receiver.statistics.instances) == (3, 30)


def test_stopping_ends_associations_and_keeps_what_was_acknowledged(
    receiver: Receiver, spool: Path, tmp_path: Path
) -> None:
    paths = make_series(tmp_path / "ct", 400, size=64 * 1024)
    some_are_sent = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(deliver, receiver, paths, lambda done, _: done >= 5 and some_are_sent.set())
        assert some_are_sent.wait(20)
        receiver.stop(grace_s=0.2)
        report = future.result()
    acknowledged = [each.path for each in report.results if each.status == 0]
    (found,) = list_associations(spool)
    assert 5 <= len(acknowledged) < len(paths)
    assert found.closed is not None
    assert found.closed.reason is CloseReason.ABORTED
    stored = [data_set_bytes(path) for path in found.instances]
    assert stored[: len(acknowledged)] == [data_set_bytes(path) for path in acknowledged]


def test_stop_and_start_again(start_receiver: Callable[..., Receiver], spool: Path, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "ct", 2)
    for _ in range(2):
        receiver = start_receiver()
        assert deliver(receiver, paths).ok
        receiver.stop()
    assert [len(each.instances) for each in list_associations(spool)] == [2, 2]


def test_a_thread_that_cannot_be_started_costs_one_connection_only(
    start_receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = start_receiver(maximum_associations=1)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "process_request_thread" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(60):
            with socket.create_connection(("127.0.0.1", receiver.port), 5) as connection:
                assert connection.recv(1) == b""
    assert receiver.check_self()


def test_no_threads_are_left(start_receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    before = threading.active_count()
    receiver = start_receiver()
    deliver(receiver, make_series(tmp_path / "ct", 2))
    receiver.stop()
    eventually(lambda: threading.active_count() <= before)
