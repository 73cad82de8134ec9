"""Alerts in a real database, a real program that is told of them, and the real deliver service."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from appliance.store.alert_rules import AlertChannel, ChannelKind
from appliance.store.database import open_database
from tests.health.conftest import box, broker, listener  # noqa: F401  # fixtures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.store.database import Store

COMMAND, MQTT = AlertChannel(ChannelKind.COMMAND), AlertChannel(ChannelKind.MQTT)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    with open_database(state / "appliance.db") as store:
        yield store


def add_scan(store: Store, series: str) -> int:
    return store.scans.create(
        study_instance_uid="1.2", series_instance_uid=series, accession_number="A1", modality="CT", revision=1,
        instances=0, at=time.time(),
    )  # fmt: skip


@pytest.fixture
def alarm(store: Store) -> Callable[..., int]:
    """Raise an alert for a new scan, told to some channels; gives its id."""
    numbers = iter(range(1, 100_000))

    def raise_one(urgency: str = "urgent", *, channels: tuple[AlertChannel, ...] = (COMMAND,)) -> int:
        scan_id = add_scan(store, f"1.2.{next(numbers)}")
        return store.alerts.raise_for(scan_id, [("aorta", urgency)], channels=channels)[0]

    return raise_one


@dataclass(frozen=True)
class Lamp:
    """A shell script that writes down what it is told; more lines of it can misbehave."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "lamp"

    @property
    def notes(self) -> Path:
        return self.folder / "notes"

    def install(self, *lines: str) -> Path:
        note = f'read -r line; echo "$APPLIANCE_ALERT_ID $APPLIANCE_ALERT_STEP" >> {self.notes}'
        self.program.write_text("\n".join(["#!/bin/sh", *(lines or (note,)), ""]))
        self.program.chmod(0o755)
        return self.program

    def told(self) -> list[str]:
        """What it was told, in its order, as ``"<id> <step>"``."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@pytest.fixture
def lamp(tmp_path: Path) -> Lamp:
    folder = tmp_path / "lamp"
    folder.mkdir()
    lamp = Lamp(folder)
    lamp.install()
    return lamp


@pytest.fixture
def deliver(tmp_path: Path, state: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the deliver service with more lines of configuration."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(extra: str) -> subprocess.Popen[bytes]:
        file = tmp_path / "deliver.toml"
        file.write_text(f'[box]\nstate_directory = "{state}"\n[deliver]\npoll_s = 0.05\n{extra}')
        with (tmp_path / "log.txt").open("ab") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "appliance", "deliver", "--config", str(file)], stdout=log, stderr=log
                )
            )
        return processes[-1]

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
