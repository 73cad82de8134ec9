"""Killed between any two steps, delivery loses nothing and sends nothing as a second result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState

SCANS, KILLS = 15, 12


@pytest.mark.slow
def test_a_dozen_kills_lose_and_change_nothing(screen, pacs, tmp_path):
    pacs.become("slow")
    sent: set[str] = set()
    for _ in range(SCANS):
        sent |= screen()[1]
    config = tmp_path / "box.toml"
    config.write_text(
        f'[box]\nstate_directory = "{tmp_path}/state"\n[deliver]\npoll_s = 0.05\nretry_first_s = 0.05\n'
        f'[[deliver.destinations]]\nname = "pacs"\nae_title = "PACS"\naddress = "127.0.0.1"\nport = {pacs.port}\n'
    )
    script = Path(__file__).with_name("killed_deliver.py")
    output = subprocess.run(
        [sys.executable, str(script), str(config), str(KILLS), "7"], check=True, capture_output=True, text=True
    ).stdout
    left = [int(word) for word in output.split()]
    assert (len(left), left[-1]) == (KILLS + 1, 0), output
    assert pacs.uids == sent
    assert len(set(pacs.arrived())) == len(sent)  # one content for each UID, however often it came
    assert len(pacs.arrived()) <= len(sent) + KILLS  # a kill repeats at most the object in hand
    with open_database(tmp_path / "state" / "appliance.db", read_only=True) as after:
        assert {scan.state for scan in after.scans.last(SCANS)} == {ScanState.DONE}
        assert after.outbox.counts() == {OutboxState.DONE: SCANS}
