"""The rest of a hospital on free ports of this machine: an archive (Orthanc), the fleet's broker (mosquitto)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.machine import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARCHIVE_TITLE = "ARCHIVE"
# Daemons live in sbin, which an ordinary user's PATH may lack.
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class MissingToolError(Exception):
    """A program that the hospital is made of is not installed."""


def program(name: str) -> str:
    """Return the path of a program of the machine."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise MissingToolError(f"{name} is not installed; `image-build/prepare-machine.sh tools` brings it")
    return found


def listens(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Archive:
    """A running Orthanc.

    Attributes
    ----------
    dicom_port, http_port
        Where it stores and where it shows.
    """

    dicom_port: int
    http_port: int

    def get(self, path: str) -> Any:
        """Return the JSON of a path of its REST interface."""
        return json.loads(self.read(path))

    def read(self, path: str) -> bytes:
        """Return what it answers at a path."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return answer.read()

    def series(self) -> list[dict[str, Any]]:
        """Return what it holds: modality, description and instances of each series, in the order of their numbers."""
        found = [self.get(f"/series/{name}") for name in self.get("/series")]
        return sorted(found, key=lambda one: int(one["MainDicomTags"].get("SeriesNumber", 0)))


@contextlib.contextmanager
def archive(folder: Path, box_title: str, box_port: int) -> Iterator[Archive]:
    """Keep an Orthanc running that knows the box."""
    folder.mkdir()
    running = Archive(free_port(), free_port())
    settings = {
        "Name": "Demo archive", "DicomAet": ARCHIVE_TITLE, "DicomPort": running.dicom_port, "DicomCheckCalledAet": True,
        "HttpPort": running.http_port, "StorageDirectory": str(folder), "IndexDirectory": str(folder),
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [],
        "DicomModalities": {"box": [box_title, "127.0.0.1", box_port]},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with _process([program("Orthanc"), str(folder / "orthanc.json")], folder / "orthanc.log"):
        wait_until(lambda: listens(running.dicom_port) and listens(running.http_port), "Orthanc")
        yield running


@dataclass(frozen=True)
class Broker:
    """A running mosquitto, and what `mosquitto_sub` has heard since it started.

    Attributes
    ----------
    port
        Of this machine only.
    heard_file
        What was heard, a message a line.
    """

    port: int
    heard_file: Path

    def heard(self, leaf: str) -> list[dict[str, Any]]:
        """Return the messages of a topic of the box, oldest first."""
        lines = [json.loads(line) for line in self.heard_file.read_text().splitlines()]
        return [line["payload"] for line in lines if line["topic"].endswith(f"/{leaf}")]

    def retained(self, topic: str) -> dict[str, Any]:
        """Ask with a fresh `mosquitto_sub` for what the broker keeps of a topic."""
        command = [program("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(self.port), "-V", "5", "-q", "1",
                   "-t", topic, "-C", "1", "-W", "60"]  # fmt: skip
        answer = subprocess.run(command, check=True, capture_output=True, timeout=90)
        return dict(json.loads(answer.stdout))


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """Keep a mosquitto running, and a `mosquitto_sub` that writes down everything."""
    folder.mkdir()
    running = Broker(free_port(), folder / "heard")
    user = "user root\n" if os.geteuid() == 0 else ""
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"{user}listener {running.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    listen = [program("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(running.port), "-V", "5", "-q", "1", "-t",
              "appliances/#", "-F", "%J"]  # fmt: skip
    with _process([program("mosquitto"), "-c", str(configuration)], folder / "mosquitto.log"):
        wait_until(lambda: listens(running.port), "mosquitto")
        with _process(listen, running.heard_file):
            yield running
