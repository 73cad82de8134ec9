"""The password is kept as a hash that only the service can read."""

import json
import stat
import subprocess
import sys

import pytest

from appliance.board.passwords import PasswordHash, read_password, write_password
from appliance.errors import ConfigurationError


def test_the_right_password_and_no_other(tmp_path):
    file = tmp_path / "password"
    write_password(file, "扫描室的密码 2026", tmp_path)
    kept = read_password(file)
    assert kept.matches("扫描室的密码 2026")
    assert not kept.matches("扫描室的密码 2027")
    assert not kept.matches("")
    assert not kept.matches("x" * 1000)


def test_composed_and_decomposed_letters_are_the_same_password():
    assert PasswordHash.of("M\u00fcnchen-1").matches("Mu\u0308nchen-1")


def test_the_file_is_private_and_holds_no_password(tmp_path):
    file = tmp_path / "new" / "password"
    write_password(file, "correct horse", tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "correct horse" not in file.read_text()
    assert file.read_text().startswith("scrypt$")


def test_the_same_password_is_hashed_differently_each_time():
    assert PasswordHash.of("correct horse").digest != PasswordHash.of("correct horse").digest


@pytest.mark.parametrize("password", ["", "1234567", "x" * 129])
def test_refuses_what_is_too_short_or_too_long(tmp_path, password):
    with pytest.raises(ConfigurationError, match="8 to 128 characters"):
        write_password(tmp_path / "password", password, tmp_path)
    assert not (tmp_path / "password").exists()


def test_refuses_a_file_that_others_may_read(tmp_path):
    file = tmp_path / "password"
    write_password(file, "correct horse", tmp_path)
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_password(file)


@pytest.mark.parametrize(
    "content",
    ["correct horse", "scrypt$x", "scrypt$1048576$8$1$AAAA$AAAA", "md5$32768$8$1$AAAA$AAAA", "scrypt$1$1$1$?$?"],
)
def test_refuses_what_is_not_a_hash_of_ours(tmp_path, content):
    file = tmp_path / "password"
    file.write_text(content + "\n")
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match="board-password"):
        read_password(file)


def command(*arguments: str, given: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "appliance", "board-password", *arguments],
        input=given, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_writes_the_configured_file(tmp_path):
    file, configuration = tmp_path / "password", tmp_path / "box.toml"
    configuration.write_text(
        f"[box]\nstate_directory = {json.dumps(str(tmp_path))}\n[board]\npassword_file = {json.dumps(str(file))}\n"
    )
    done = command("--config", str(configuration), given="correct horse\n")
    assert done.returncode == 0, done.stderr
    assert read_password(file).matches("correct horse")
    assert "correct horse" not in done.stdout + done.stderr


def test_the_command_needs_a_file(tmp_path):
    (tmp_path / "box.toml").write_text("")
    done = command("--config", str(tmp_path / "box.toml"), given="correct horse\n")
    assert done.returncode == 2
    assert "--out" in done.stderr
