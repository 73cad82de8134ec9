"""The units are read by systemd itself, in a root that holds nothing else."""

import configparser
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.board.passwords import write_password

UNITS = Path(__file__).parents[2] / "systemd"
SERVICES = ["receive", "work", "deliver", "health", "board"]
NEEDED_TARGETS = ["sysinit", "basic", "shutdown", "network", "multi-user"]
# systemd-analyze security counts from 0 (nothing can go wrong) to 100; below 20 it says "OK" or "SAFE".
EXPOSURE_THRESHOLD = 20

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def root(tmp_path):
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for path in UNITS.iterdir():
        if path.suffix in {".service", ".target"}:
            shutil.copy(path, units)
        elif path.name.endswith(".service.d"):
            shutil.copytree(path, units / path.name)
    for name in NEEDED_TARGETS:
        (units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    program = tmp_path / "opt/appliance/bin/appliance"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


def verify(root: Path) -> str:
    # It returns 0 for a misspelt key and only says so; any output is a fault.
    units = ["appliance.target", *(f"appliance-{service}.service" for service in SERVICES)]
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", *units], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr + (f"code {done.returncode}" if done.returncode else "")


def settings(service: str) -> str:
    common = (UNITS / "appliance-.service.d/10-common.conf").read_text()
    return common + (UNITS / f"appliance-{service}.service").read_text()


@analyze
def test_systemd_has_nothing_to_say(root):
    assert verify(root) == ""


@analyze
@pytest.mark.parametrize("file", ["appliance-work.service", "appliance-.service.d/10-common.conf"])
def test_a_misspelt_key_would_be_seen(root, file):
    unit = root / "usr/lib/systemd/system" / file
    unit.write_text(unit.read_text().replace("[Service]\n", "[Service]\nNoNewPrivilege=yes\n"))
    assert "NoNewPrivilege" in verify(root)


@analyze
@pytest.mark.parametrize("file", sorted(path.name for path in UNITS.glob("*.conf") if "sysusers" not in path.name))
def test_systemd_has_nothing_to_say_of_a_drop_in(root, file):
    text = (UNITS / file).read_text()
    place = root / text.splitlines()[0].split()[3].lstrip("/")
    assert place.name == file
    place.parent.mkdir(parents=True)
    place.write_text(text)
    assert verify(root) == ""


@analyze
@pytest.mark.parametrize("service", SERVICES)
def test_the_exposure_is_low(root, service):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--root={root}", f"--threshold={EXPOSURE_THRESHOLD}",
         "--no-pager", f"appliance-{service}.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_only_work_may_make_memory_executable(service):
    assert f"MemoryDenyWriteExecute={'no' if service == 'work' else 'yes'}" in settings(service)


@pytest.mark.parametrize("service", SERVICES)
def test_only_health_sees_other_processes(service):
    # With PrivateUsers=yes and "invisible", health finds every other service absent.
    assert f"ProtectProc={'default' if service == 'health' else 'invisible'}\n" in settings(service)


@pytest.mark.parametrize("service", SERVICES)
def test_the_unit_starts_a_command_that_exists(service):
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.read(UNITS / f"appliance-{service}.service")
    program, command = parser["Service"]["ExecStart"].split()
    assert (program, command) == ("/opt/appliance/bin/appliance", service)


def test_a_board_that_is_not_configured_is_not_started_again():
    # The last drop-in by name decides, wherever it lies.
    last = max(
        [*UNITS.glob("appliance-.service.d/*"), *UNITS.glob("appliance-board.service.d/*")], key=lambda path: path.name
    )
    assert "\nRestart=on-failure\n" in last.read_text()


def test_the_target_wants_every_service():
    text = (UNITS / "appliance.target").read_text()
    assert all(f"appliance-{service}.service" in text for service in SERVICES)


PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1


def kernel_can_refuse() -> bool:
    check = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).prctl({PR_SET_MDWE}, 1, 0, 0, 0) != 0)"
    return subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("service", ["receive", "deliver", "health", "board"])
def test_the_service_runs_without_executable_memory(service, tmp_path):
    """The kernel's own form of MemoryDenyWriteExecute; it is inherited by the program that is executed."""
    if not kernel_can_refuse():
        pytest.skip("this kernel has no PR_SET_MDWE")
    file = tmp_path / "box.toml"
    text = f'[box]\nstate_directory = "{tmp_path}/state"\n[receive]\nport = 0\naddress = "127.0.0.1"\n'
    if service == "board":
        write_password(tmp_path / "password", "correct horse", tmp_path)
        text += f'[board]\nport = 0\npassword_file = "{tmp_path}/password"\n'
    file.write_text(text)
    launcher = (
        "import ctypes, os, sys\n"
        f"ctypes.CDLL(None).prctl({PR_SET_MDWE}, {PR_MDWE_REFUSE_EXEC_GAIN}, 0, 0, 0)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", launcher, "-m", "appliance", service, "--config", str(file)], stderr=log
        )
    try:
        heartbeat = tmp_path / f"state/run/{service}.json"
        deadline = time.monotonic() + 60
        while not heartbeat.exists():
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
