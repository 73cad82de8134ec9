"""Trouble with the database delays alerts and loses none; a damaged one ends the service, which mends it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from appliance.config import Settings
from appliance.delivery.alert_command import AlertCommand
from appliance.errors import StoreError
from appliance.services.alert_watch import AlertWatch
from appliance.store.database import DatabaseDamagedError
from tests.machine import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.alerts.conftest import Lamp


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def watch(state: Path, lamp: Lamp, stop: threading.Event) -> AlertWatch:
    settings = Settings.model_validate(
        {"box": {"state_directory": state}, "alerts": {"command": [str(lamp.program)], "escalate_after_min": 0}}
    )
    return AlertWatch(settings, stop)


def fail(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> None:
    """Let the next steps end with these errors, and the ones after them be as they are."""
    step = AlertCommand.step

    def failing(command: AlertCommand) -> bool:
        if errors:
            raise errors.pop(0)
        return step(command)

    monkeypatch.setattr(AlertCommand, "step", failing)


def test_a_full_disk_delays_what_must_be_told(
    watch: AlertWatch,
    stop: threading.Event,
    lamp: Lamp,
    alarm: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail(monkeypatch, [StoreError("the disk is full"), StoreError("the disk is full")])
    number = alarm()
    watch.start()
    wait_until(lambda: lamp.told() == [f"{number} raised"], "the program to be told")
    stop.set()
    watch.join(60)
    assert watch.error is None


@pytest.mark.parametrize("error", [DatabaseDamagedError("damaged"), ValueError("unforeseen")])
def test_what_only_a_restart_mends_ends_the_service(
    watch: AlertWatch,
    stop: threading.Event,
    alarm: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    fail(monkeypatch, [error])
    alarm()
    watch.start()
    watch.join(60)
    assert (watch.error, stop.is_set()) == (error, True)
