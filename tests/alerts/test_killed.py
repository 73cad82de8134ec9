"""Killed between any two steps, an alert is neither lost nor told as two."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.alerts.conftest import add_scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store
    from tests.alerts.conftest import Lamp

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
KILLED_DELIVER = HERE.with_name("delivery") / "killed_deliver.py"


def run(script: Path, *arguments: str) -> str:
    return subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True, text=True).stdout


def test_a_dozen_kills_of_the_deliver_service_lose_and_change_nothing(
    store: Store, lamp: Lamp, alarm: Callable[..., int], tmp_path: Path
) -> None:
    count, kills = 30, 12
    lamp.install(
        "sleep 0.02",
        f'echo "$APPLIANCE_ALERT_ID $APPLIANCE_ALERT_STEP $APPLIANCE_ALERT_RAISED_AT" >> {lamp.notes}',
        "sleep 0.02",
    )
    numbers = [alarm() for _ in range(count)]
    config = tmp_path / "box.toml"
    config.write_text(
        f'[box]\nstate_directory = "{tmp_path}/state"\n[deliver]\npoll_s = 0.05\n'
        f'[alerts]\ncommand = ["{lamp.program}"]\nescalate_after_min = 0.03\n'
    )
    left = [int(word) for word in run(KILLED_DELIVER, str(config), str(kills), "7", "alerts").split()]
    assert (len(left), left[-1]) == (kills + 1, 0), left
    assert len(set(left)) > 3  # the kills came at different steps of the work
    told = lamp.told()
    steps = Counter(tuple(line.split()[:2]) for line in told)
    assert set(steps) == {(str(number), step) for number in numbers for step in ("raised", "escalated")}
    assert len(set(told)) == len(steps)  # whatever came twice was the same alert
    assert sum(steps.values()) <= len(steps) + kills  # a kill repeats at most the run at hand
    assert store.outbox.counts() == {OutboxState.DONE: 2 * count}
    assert len(store.events.waiting(1000)) == count  # each escalation is one event


def test_kills_between_a_result_and_its_alert_leave_both_or_neither(store: Store, tmp_path: Path) -> None:
    for number in range(60):
        scan_id = add_scan(store, f"1.2.{number}")
        store.scans.advance(scan_id, ScanState.SCREENING, cause="test")
    run(HERE / "killed_saver.py", str(store.path), "25", "3")
    screened = {scan.id for scan in store.scans.in_state(ScanState.SCREENED)}
    assert Counter(alert.scan_id for alert in store.alerts.recent(1000)) == Counter(screened)
    assert store.outbox.counts().get(OutboxState.WAITING, 0) == 2 * len(screened)
    assert len(screened) > 0
