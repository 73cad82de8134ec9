"""The receive service as a process: its sign of life, systemd's protocol, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from appliance.config import Settings
from appliance.dicom.network.sender import send
from appliance.services import lifecycle, receive, systemd
from tests.receive.conftest import CALLED, PEER, SENDER, eventually, list_associations, make_series

if TYPE_CHECKING:
    from pathlib import Path


def settings(state: Path, **changes: Any) -> Settings:
    section = {"address": "127.0.0.1", "port": 0, "disk_reserve_mib": 0, "peers": [PEER], **changes}
    return Settings.model_validate({"box": {"state_directory": state}, "receive": section})


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Listen as systemd does."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield listener


@pytest.fixture
def running(tmp_path: Path) -> Any:
    """Run the service's loop in this process."""
    stop = threading.Event()
    thread = threading.Thread(target=receive.run, args=(settings(tmp_path / "state"), stop))
    thread.start()
    yield tmp_path / "state"
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_sign_of_life_names_the_port(running: Path, tmp_path: Path) -> None:
    beat = eventually(lambda: lifecycle.read_heartbeat(running, "receive"))
    assert beat["pid"] == os.getpid()
    report = send(
        make_series(tmp_path / "ct", 2), host="127.0.0.1", port=beat["port"], called_ae=CALLED, calling_ae=SENDER
    )
    assert report.ok


def test_sign_of_life_counts(running: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = eventually(lambda: lifecycle.read_heartbeat(running, "receive"))
    send(make_series(tmp_path / "ct", 2), host="127.0.0.1", port=beat["port"], called_ae=CALLED, calling_ae=SENDER)
    fields = {"associations", "instances", "set_aside", "failed", "bytes", "last_error_status", "answering", "time"}
    assert fields <= set(beat)
    assert eventually(lambda: lifecycle.read_heartbeat(running, "receive")["instances"] == 2)


def test_systemd_is_told(tmp_path: Path, manager: socket.socket) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=receive.run, args=(settings(tmp_path / "state"), stop))
    thread.start()
    assert manager.recv(1000).startswith(b"READY=1\nSTATUS=Listening on port ")
    stop.set()
    assert manager.recv(1000) == b"STOPPING=1"
    thread.join()


def test_watchdog_is_fed_by_an_answered_echo(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "500000")
    stop = threading.Event()
    thread = threading.Thread(target=receive.run, args=(settings(tmp_path / "state"), stop))
    thread.start()
    assert manager.recv(1000).startswith(b"READY=1")
    assert manager.recv(1000) == b"WATCHDOG=1"
    stop.set()
    thread.join()


def test_watchdog_starves_when_the_port_does_not_answer(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setattr("appliance.dicom.network.receiver.Receiver.check_self", lambda _: False)
    stop = threading.Event()
    thread = threading.Thread(target=receive.run, args=(settings(tmp_path / "state"), stop))
    thread.start()
    assert manager.recv(1000).startswith(b"READY=1")
    manager.settimeout(0.5)
    with pytest.raises(TimeoutError):
        manager.recv(1000)
    stop.set()
    thread.join()


def test_without_systemd_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")


def test_an_absent_manager_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not systemd.notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected"),
    [("30000000", None, 30.0), ("", None, None), ("x", None, None), ("0", None, None), ("1000000", "1", None)],
)
def test_watchdog_interval(
    microseconds: str, pid: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert systemd.watchdog_interval_s() == expected


def test_sigterm_ends_the_process_cleanly(tmp_path: Path) -> None:
    state = tmp_path / "state"
    configuration = tmp_path / "appliance.toml"
    configuration.write_text(
        f"[box]\nstate_directory = {json.dumps(str(state))}\n[receive]\naddress = '127.0.0.1'\nport = 0\n"
        f"disk_reserve_mib = 0\npeers = [{{ ae_title = '{SENDER}', address = '127.0.0.1' }}]\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance", "receive", "--config", str(configuration)],
        stderr=subprocess.PIPE,
        text=True,
    )
    beat = eventually(lambda: lifecycle.read_heartbeat(state, "receive"), 30)
    paths = make_series(tmp_path / "ct", 3, PatientName="Secret^Name", PatientID="SECRET-ID")
    assert send(paths, host="127.0.0.1", port=beat["port"], called_ae=CALLED, calling_ae=SENDER).ok
    eventually(lambda: list_associations(state / "spool")[0].closed)
    process.send_signal(signal.SIGTERM)
    _, lines = process.communicate(timeout=20)
    assert process.returncode == 0
    assert lifecycle.read_heartbeat(state, "receive") is None
    assert '"instances": 3' in lines
    assert "secret" not in lines.lower()
    assert "1.2.826" not in lines  # the root of the UIDs that the files carry


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_damaged_sign_of_life_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "receive.json").write_text(content)
    assert lifecycle.read_heartbeat(tmp_path, "receive") is None


def test_signals_set_the_event() -> None:
    # In a process of its own: once OpenVINO has used AMX in a process, the frame of a signal no longer fits the small
    # stack on which pytest's faulthandler has signals delivered, and the kernel ends the process.
    code = (
        "import os, signal, sys; from appliance.services.lifecycle import stop_event_on_signals; "
        "stop = stop_event_on_signals(); assert not stop.is_set(); "
        "os.kill(os.getpid(), signal.SIGTERM); sys.exit(0 if stop.wait(5) else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
