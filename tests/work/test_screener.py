"""The child process: its protocol, and that it ends when it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from appliance.services.screener_process import ScreenerLostError, ScreenerProcess
from tests.work.conftest import instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.config import Settings


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., ScreenerProcess]]:
    children: list[ScreenerProcess] = []

    def make(screen_with: str = "tests.work.stubs:screen") -> ScreenerProcess:
        children.append(ScreenerProcess(settings, screen_with=screen_with))
        return children[-1]

    yield make
    for child in children:
        child.kill()


def listen(child: ScreenerProcess, *ends: str) -> list[dict[str, Any]]:
    """Return what the child says, up to one of some events."""
    heard: list[dict[str, Any]] = []
    while child.ended() is None:
        heard += child.messages(0.2)
        if heard and heard[-1]["event"] in ends:
            return heard
    return heard + child.messages(0.0)


def screen(child: ScreenerProcess, folder: Path, behaviour: str = "A1") -> list[dict[str, Any]]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    path = folder / "1.dcm"
    path.write_bytes(instance("1.1", 1, accession=behaviour))
    if not child.ready:
        listen(child, "ready")
    child.screen(7, [path], out, 2)
    return listen(child, "result", "refused", "error", "unable")


def test_stages_then_a_result(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    heard = screen(start(), tmp_path)
    assert [m.get("stage", m["event"]) for m in heard] == [
        "reading",
        "planned",
        "organ map",
        "screening",
        "writing",
        "result",
    ]
    assert {m["job"] for m in heard} == {7}
    assert (tmp_path / "out" / "report.json").is_file()


def test_what_is_printed_does_not_get_between(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    heard = screen(start(), tmp_path, "PRINT")
    assert [m["event"] for m in heard] == ["stage"] * 5 + ["result"]


def test_a_refusal_carries_its_reason(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    end = screen(start(), tmp_path, "REFUSE")[-1]
    assert (end["event"], end["code"], end["text"]) == ("refused", "localizer", "A localizer is not a volume.")


def test_an_error_says_where_but_not_what_it_quotes(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    end = screen(start(), tmp_path, "ERROR")[-1]
    assert (end["event"], end["error"]) == ("error", "ValueError")
    assert "stubs.py" in end["where"][-1]
    assert "Zhang" not in str(end)


def test_a_bad_pack_is_the_boxs_fault(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    end = screen(start(), tmp_path, "PACK")[-1]
    assert (end["event"], end["error"]) == ("unable", "PackError")
    assert "install it again" in end["text"]


def test_one_child_serves_many_scans(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    child = start()
    for number, behaviour in enumerate(["A1", "ERROR", "REFUSE", "A1"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        screen(child, folder, behaviour)
    assert child.jobs == 4
    assert child.ended() is None


def test_a_crash_ends_the_child_with_its_signal(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    child = start()
    screen(child, tmp_path, "CRASH")
    assert child.ended() == -signal.SIGSEGV


def test_a_long_job_is_taken_whole(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    child = start()
    listen(child, "ready")
    paths = [tmp_path / f"{'x' * 200}{number}" for number in range(5000)]
    child.screen(1, paths, tmp_path, 1)
    assert listen(child, "error")[-1]["error"] == "UnreadableFileError"


def test_a_child_that_ended_takes_nothing(start: Callable[..., ScreenerProcess], tmp_path: Path) -> None:
    child = start()
    listen(child, "ready")
    os.kill(child.pid, signal.SIGKILL)
    while child.ended() is None:
        time.sleep(0.01)
    with pytest.raises(ScreenerLostError):
        child.screen(1, [], tmp_path, 1)


def test_one_that_does_not_take_its_settings_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(_: ScreenerProcess, line: bytes) -> None:
        raise ScreenerLostError("The screening process has ended.")

    monkeypatch.setattr(ScreenerProcess, "_send", lose)
    before = psutil.Process().num_fds(), psutil.Process().children()
    with pytest.raises(ScreenerLostError):
        ScreenerProcess(settings)
    assert (psutil.Process().num_fds(), psutil.Process().children()) == before


def test_stopping_lets_it_end_by_itself(start: Callable[..., ScreenerProcess]) -> None:
    child = start()
    listen(child, "ready")
    child.stop()
    assert child.ended() == 0


def test_signals_to_the_whole_group_leave_it_to_the_parent(
    start: Callable[..., ScreenerProcess], tmp_path: Path
) -> None:
    child = start()
    listen(child, "ready")
    os.kill(child.pid, signal.SIGTERM)
    os.kill(child.pid, signal.SIGINT)
    assert screen(child, tmp_path)[-1]["event"] == "result"


def test_what_it_has_started_counts_and_ends_with_it(
    start: Callable[..., ScreenerProcess], tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    child = start()
    listen(child, "ready")
    out = tmp_path / "out"
    out.mkdir()
    path = tmp_path / "1.dcm"
    path.write_bytes(instance("1.1", 1, accession="FAMILY"))
    child.screen(1, [path], out, 1)
    until(lambda: child.resident_mib() > 300.0)
    grandchild = psutil.Process(int((out / "pid").read_text()))
    child.kill()
    until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_receiving_comes_first(start: Callable[..., ScreenerProcess]) -> None:
    child = start()
    listen(child, "ready")
    assert psutil.Process(child.pid).nice() > psutil.Process().nice()


def test_it_dies_with_its_parent(settings: Settings, until: Callable[[Callable[[], bool]], None]) -> None:
    script = (
        "import sys, time\n"
        "from appliance.config import Settings\n"
        "from appliance.services.screener_process import ScreenerProcess\n"
        "child = ScreenerProcess(Settings(), screen_with='tests.work.stubs:screen')\n"
        "while not child.ready: child.messages(1)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_an_unknown_screening_never_becomes_ready(start: Callable[..., ScreenerProcess]) -> None:
    child = start("tests.work.stubs:missing")
    assert listen(child, "ready") == []
    assert child.ended() not in {None, 0}
    assert not child.ready
