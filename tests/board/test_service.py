"""`appliance board` as a service, by itself and under `appliance serve`."""

import subprocess
import sys

import pytest

from appliance.services.serve import BOARD, SERVICES, commands

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
