"""`appliance serve` over the four real services."""

import contextlib
import json
import subprocess
import sys

import psutil
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from appliance.services.serve import SERVICES
from tests.machine import wait_until

from .conftest import alive

pytestmark = pytest.mark.slow


class Appliance:
    """One `appliance serve` on a state directory of its own."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.configuration = folder / "box.toml"
        self.configuration.write_text(
            f'[box]\nstate_directory = "{folder}/state"\n'
            '[receive]\nport = 0\naddress = "127.0.0.1"\ndisk_reserve_mib = 0\n'
            '[[receive.peers]]\nae_title = "CT1"\naddress = "127.0.0.1"\n'
            "[retention]\nsoft_free_mib = 0\n[health]\ninterval_s = 0.5\n"
        )
        with (folder / "log.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "appliance", "serve", "--config", str(self.configuration)],
                stdout=log,
                stderr=log,
            )

    def heartbeat(self, service: str) -> dict:
        try:
            return json.loads((self.folder / f"state/run/{service}.json").read_text())
        except (OSError, ValueError):
            return {}

    def wait_running(self) -> dict[str, int]:
        wait_until(lambda: all(map(self.heartbeat, SERVICES)), "four heartbeats\n" + self.log())
        return {service: self.heartbeat(service)["pid"] for service in SERVICES}

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def echo(self) -> bool:
        entity = AE(ae_title="CT1")
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", self.heartbeat("receive")["port"], ae_title="APPLIANCE")
        if not association.is_established:
            return False
        status = association.send_c_echo()
        association.release()
        return status.Status == 0


@pytest.fixture
def appliance(tmp_path):
    appliance = Appliance(tmp_path)
    yield appliance
    with contextlib.suppress(psutil.NoSuchProcess):
        appliance.process.terminate()
    appliance.process.wait(60)


def test_starts_answers_and_stops_without_a_trace(appliance):
    pids = appliance.wait_running()
    assert appliance.echo()
    appliance.process.terminate()
    assert appliance.process.wait(60) == 0, appliance.log()
    assert not any(map(alive, pids.values()))
    assert not any(map(appliance.heartbeat, SERVICES))


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_and_the_others_do_not_notice(appliance, service):
    before = appliance.wait_running()
    psutil.Process(before[service]).kill()
    wait_until(lambda: appliance.heartbeat(service).get("pid", 0) not in {0, before[service]}, f"{service} again")
    after = appliance.wait_running()
    assert {name: after[name] for name in SERVICES if name != service} == {
        name: before[name] for name in SERVICES if name != service
    }
    assert appliance.echo()


def test_nothing_is_left_when_serve_itself_is_killed(appliance):
    pids = appliance.wait_running()
    appliance.process.kill()
    for pid in pids.values():
        wait_until(lambda pid=pid: not alive(pid), f"the end of {pid}")


def test_a_wrong_configuration_is_told_in_a_sentence(tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text("[receive]\nport = 70000\n")
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "serve", "--config", str(file)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "receive.port = 70000" in done.stderr
