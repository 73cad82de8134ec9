"""Killed between any two steps, delivery loses nothing and sends nothing as a second result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.config import ReceiveSettings
from appliance.dicom.network.receiver import Receiver
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.delivery.committing_pacs import CommittingPacs
from tests.delivery.conftest import BOX, PACS

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
        [sys.executable, str(script), str(config), str(KILLS), "7", "scans"], check=True, capture_output=True, text=True
    ).stdout
    left = [int(word) for word in output.split()]
    assert (len(left), left[-1]) == (KILLS + 1, 0), output
    assert pacs.uids == sent
    assert len(set(pacs.arrived())) == len(sent)  # one content for each UID, however often it came
    assert len(pacs.arrived()) <= len(sent) + KILLS  # a kill repeats at most the object in hand
    with open_database(tmp_path / "state" / "appliance.db", read_only=True) as after:
        assert {scan.state for scan in after.scans.last(SCANS)} == {ScanState.DONE}
        assert after.outbox.counts() == {OutboxState.DONE: SCANS}


@pytest.mark.slow
def test_a_dozen_kills_lose_no_report_of_storage_commitment(screen, tmp_path):
    settings = ReceiveSettings.model_validate(
        {
            "address": "127.0.0.1", "port": 0, "ae_title": BOX, "disk_reserve_mib": 0,
            "peers": [{"ae_title": PACS, "address": "127.0.0.1"}],
        }
    )  # fmt: skip
    scans = dict(screen(("capture", "sr")) for _ in range(8))
    with Receiver(settings, tmp_path / "state" / "spool", takes_reports=True) as port:
        committing = CommittingPacs(port.port)
        committing.lose = 2
        config = tmp_path / "box.toml"
        config.write_text(
            f'[box]\nstate_directory = "{tmp_path}/state"\n[receive]\nae_title = "{BOX}"\n[deliver]\npoll_s = 0.05\n'
            f'retry_first_s = 0.05\n[[deliver.destinations]]\nname = "pacs"\nae_title = "{PACS}"\n'
            f'address = "127.0.0.1"\nport = {committing.port}\ncommitment = true\ncommitment_timeout_s = 5\n'
        )
        script = Path(__file__).with_name("killed_deliver.py")
        subprocess.run([sys.executable, str(script), str(config), "8", "11", "scans"], check=True, capture_output=True)
        committing.close()
    with open_database(tmp_path / "state" / "appliance.db", read_only=True) as after:
        assert {scan.state for scan in after.scans.last(len(scans))} == {ScanState.DONE}
        for scan_id, uids in scans.items():
            (entry,) = after.outbox.of_scan(scan_id)
            assert after.commitments.committed(entry.key) == uids
    assert not list((tmp_path / "state" / "spool" / "commitments").rglob("*.json"))
