"""`appliance board` as a service, by itself and under `appliance serve`."""

import subprocess
import sys

import psutil
import pytest

from appliance.commands import doctor
from appliance.commands.doctor import Check, Verdict
from appliance.config import load
from appliance.errors import ConfigurationError
from appliance.health.model import ServiceName, ServiceState
from appliance.health.probes import services
from appliance.services.lifecycle import read_heartbeat
from appliance.services.serve import BOARD, SERVICES, commands
from tests.machine import wait_until

from .room import configure


def board(configuration) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "appliance", "board", "--config", str(configuration)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_where_no_board_is_configured_it_ends_well(tmp_path):
    file = tmp_path / "box.toml"
    file.write_text(f'[box]\nstate_directory = "{tmp_path}"\n')
    done = board(file)
    assert done.returncode == 0
    assert "board_not_configured" in done.stderr


def test_serve_starts_it_only_where_it_is_configured():
    assert set(commands(None)) == set(SERVICES)
    assert set(commands(None, board=True)) == {*SERVICES, BOARD}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda room: room.password_file.unlink(), "cannot be read"),
        (lambda room: room.password_file.chmod(0o644), "chmod 600"),
        (lambda room: room.password_file.write_text("plain\n"), "board-password"),
    ],
)
def test_a_password_file_that_does_not_do_is_told_in_a_sentence(room, spoil, why):
    spoil(room)
    done = board(configure(room, {}))
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told_in_a_sentence(room):
    first = room.start()
    done = board(configure(room, {"port": first.port}))
    assert done.returncode == 2
    assert f"127.0.0.1 port {first.port} cannot be opened" in done.stderr


def examine(room) -> Check:
    (found,) = doctor._board(load(room.configuration))
    return found


def test_the_doctor_says_how_the_board_is(room, visit):
    room.add_scan()
    room.configuration = configure(room, {})
    assert examine(room).verdict is Verdict.PROBLEM
    board = room.start()
    assert "nobody sees an alert" in examine(room).text
    with visit(board).client.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        wait_until(lambda: board.heartbeat().get("pages"), "the page in the heartbeat")
        assert examine(room).verdict is Verdict.OK
    room.password_file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        examine(room)


def test_health_counts_the_board_only_where_it_is_configured(room):
    run = room.state / "run"
    assert ServiceName.BOARD not in {service.name for service in services(run, silent_after_s=60)}
    (found,) = [s for s in services(run, silent_after_s=60, board=True) if s.name is ServiceName.BOARD]
    assert found.state is ServiceState.ABSENT
    room.start()
    (found,) = [s for s in services(run, silent_after_s=60, board=True) if s.name is ServiceName.BOARD]
    assert found.state is ServiceState.ALIVE


@pytest.mark.slow
def test_a_board_that_is_killed_comes_back_and_the_others_do_not_notice(room):
    file = configure(room, {})
    file.write_text(file.read_text().replace("[receive]\n", '[receive]\nport = 0\naddress = "127.0.0.1"\n'))
    for name in (*SERVICES, BOARD):
        (room.state / f"run/{name}.json").unlink(missing_ok=True)

    def pids() -> dict[str, int]:
        return {name: (read_heartbeat(room.state, name) or {}).get("pid", 0) for name in (*SERVICES, BOARD)}

    with (room.folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "appliance", "serve", "--config", str(file)], stdout=log, stderr=log
        )
    try:
        before = wait_until(lambda: pids() if all(pids().values()) else None, "five heartbeats")
        psutil.Process(before[BOARD]).kill()
        wait_until(lambda: pids()[BOARD] not in {0, before[BOARD]}, "the board again")
        assert {name: pids()[name] for name in SERVICES} == {name: before[name] for name in SERVICES}
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
