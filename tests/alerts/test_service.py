"""The deliver service with a program: told, escalated, across restarts, beside a PACS that hangs."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from appliance.store.alerts import AlertState
from appliance.store.outbox import OutboxState
from tests.machine import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from appliance.store.database import Store
    from tests.alerts.conftest import Lamp

pytestmark = pytest.mark.slow


def alerts(lamp: Lamp, escalate_after_min: float = 0.0) -> str:
    return f'[alerts]\ncommand = ["{lamp.program}"]\nescalate_after_min = {escalate_after_min}\n'


def test_the_program_is_told_while_a_pacs_hangs(
    store: Store, lamp: Lamp, alarm: Callable[..., int], deliver: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    with socket.socket() as silent:  # takes connections and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        scan_id = store.scans.create(
            study_instance_uid="1.2", series_instance_uid="9.9", accession_number="", modality="CT", revision=1,
            instances=0, at=1.0,
        )  # fmt: skip
        store.outbox.put("pacs/pacs/x", "pacs", {"folder": "x"}, destination="pacs", scan_id=scan_id)
        deliver(
            alerts(lamp, 0.01) + '[[deliver.destinations]]\nname = "pacs"\nae_title = "PACS"\n'
            f'address = "127.0.0.1"\nport = {port}\ntimeout_s = 600\n'
        )
        number = alarm()
        wait_until(lambda: lamp.told() == [f"{number} raised", f"{number} escalated"], "the program to be told")
        assert store.alerts.get(number).state is AlertState.ESCALATED


def test_a_restart_escalates_what_waited_before_and_tells_nothing_twice(
    store: Store, lamp: Lamp, alarm: Callable[..., int], deliver: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    process = deliver(alerts(lamp, 0.1))
    number = alarm()
    wait_until(lambda: waited(store) > 0.0, "some waiting")
    process.kill()
    process.wait()
    before = waited(store)
    process = deliver(alerts(lamp, 0.1))
    wait_until(lambda: store.alerts.get(number).state is AlertState.ESCALATED, "the escalation")
    wait_until(lambda: len(lamp.told()) >= 2, "the program to be told")
    assert waited(store) >= max(before, 6.0)
    process.terminate()
    assert process.wait(60) == 0
    deliver(alerts(lamp, 0.001))
    store.alerts.acknowledge(number, "Li")
    wait_until(lambda: f"{number} acknowledged" in lamp.told(), "the last step")
    assert lamp.told() == [f"{number} raised", f"{number} escalated", f"{number} acknowledged"]


def waited(store: Store) -> float:
    return float(store.rows("SELECT waited_s FROM alerts")[0]["waited_s"])


def test_a_program_that_is_no_longer_configured_is_let_go(
    store: Store, alarm: Callable[..., int], deliver: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    alarm()
    deliver("")
    wait_until(lambda: store.outbox.counts() == {OutboxState.DONE: 1}, "the entry to be withdrawn")


def test_nothing_of_an_alert_is_logged_but_numbers_and_words(
    store: Store,
    lamp: Lamp,
    alarm: Callable[..., int],
    deliver: Callable[[str], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    lamp.install("echo CANARY^NAME", "echo CANARY^NAME >&2", "exit 1")
    process = deliver(alerts(lamp, 0.01) + "command_tries = 1\n")
    number = alarm()
    store.alerts.acknowledge(alarm(), "CANARY^READER")
    wait_until(lambda: store.outbox.get(f"alert/{number}/raised/command/").state is OutboxState.DONE, "the failure")
    process.terminate()
    assert process.wait(60) == 0
    assert "alert_command_failed" in (tmp_path / "log.txt").read_text()
    assert "CANARY" not in (tmp_path / "log.txt").read_text()
