import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from tests.machine import free_port, wait_until

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


class Authority:
    """A certificate authority made for one test session."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self.folder, self.name = folder, name
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key", cwd=folder)
        openssl("req", "-x509", "-new", "-key", "ca.key", "-out", "ca.crt", "-days", "30", "-subj", f"/CN={name}",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                cwd=folder)  # fmt: skip

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, common_name: str, names: str = "IP:127.0.0.1,DNS:localhost") -> tuple[Path, Path]:
        stem = common_name.replace("/", "_")
        key, request, certificate = f"{stem}.key", f"{stem}.csr", f"{stem}.crt"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key, cwd=self.folder)
        (self.folder / key).chmod(0o600)
        subject = "/CN=" + common_name.replace("/", "\\/")
        openssl("req", "-new", "-key", key, "-out", request, "-subj", f"/O=Test{subject}", cwd=self.folder)
        (self.folder / "extensions").write_text(f"subjectAltName={names}\n")
        openssl("x509", "-req", "-in", request, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "20",
                "-extfile", "extensions", "-out", certificate, cwd=self.folder)  # fmt: skip
        return self.folder / certificate, self.folder / key


@dataclass
class Broker:
    """A real mosquitto on a free port; it keeps nothing over a restart."""

    folder: Path
    options: str
    port: int
    process: subprocess.Popen | None = None

    def start(self) -> None:
        configuration = self.folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        configuration.write_text(f"{user}listener {self.port} 127.0.0.1\npersistence false\n{self.options}\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([MOSQUITTO, "-c", str(configuration)], stdout=log, stderr=log)
        wait_until(self._listens, "mosquitto to listen")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass
class Listener:
    """Collects everything that is published."""

    port: int
    context: ssl.SSLContext | None = None
    messages: list = field(default_factory=list)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        if self.context is not None:
            self.client.tls_set_context(self.context)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        assert ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def of(self, leaf: str) -> list[dict]:
        return [json.loads(message.payload) for message in tuple(self.messages) if message.topic.endswith(f"/{leaf}")]

    def states(self) -> list[tuple[str, int]]:
        return [(message["state"], message["session"]) for message in self.of("state")]

    def wait_state(self, state: str) -> None:
        wait_until(lambda: bool(self.states()) and self.states()[-1][0] == state, f"state {state}")


@pytest.fixture
def broker(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = Broker(folder, "allow_anonymous true", free_port())
    yield broker
    broker.stop()


@pytest.fixture
def listener(broker):
    broker.start()
    with Listener(broker.port) as listener:
        yield listener


@dataclass
class Box:
    """The health service as a real process."""

    folder: Path
    mqtt: str
    interval_s: float = 0.3
    processes: list = field(default_factory=list)

    @property
    def state_directory(self) -> Path:
        return self.folder / "state"

    @property
    def configuration(self) -> Path:
        path = self.folder / "box.toml"
        path.write_text(
            f'[box]\nname = "box-7"\nstate_directory = "{self.state_directory}"\n'
            f"[receive]\ndisk_reserve_mib = 0\n[retention]\nsoft_free_mib = 0\n"
            f"[health]\ninterval_s = {self.interval_s}\n{self.mqtt}"
        )
        return path

    def start(self) -> subprocess.Popen:
        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "appliance", "health", "--config", str(self.configuration)], stderr=log
            )
        self.processes.append(process)
        return process

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def plain(port: int) -> str:
    return f'[health.mqtt]\nhost = "127.0.0.1"\nport = {port}\nallow_plaintext = true\n'


@pytest.fixture
def box(tmp_path, broker):
    box = Box(tmp_path, plain(broker.port))
    yield box
    box.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return Authority(tmp_path_factory.mktemp("pki") / "fleet", "Fleet CA")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory, authority):
    return Authority(tmp_path_factory.mktemp("pki") / "other", "Other CA")
