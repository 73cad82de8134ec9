"""The deliver service as a real process."""

import json
import subprocess
import sys
import time

import pytest

from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.machine import free_port, wait_until


@pytest.fixture
def start(tmp_path):
    processes = []

    def run(extra: str = "") -> subprocess.Popen:
        file = tmp_path / "box.toml"
        file.write_text(f'[box]\nstate_directory = "{tmp_path}/state"\n[deliver]\npoll_s = 0.05\n{extra}')
        with (tmp_path / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "appliance", "deliver", "--config", str(file)], stderr=log
            )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_finishes_scans_beats_and_stops_cleanly(start, tmp_path):
    heartbeat = tmp_path / "state/run/deliver.json"
    process = start()
    wait_until(heartbeat.exists, "the heartbeat")
    assert json.loads(heartbeat.read_text())["pid"] == process.pid
    with open_database(tmp_path / "state/appliance.db") as store:
        scan_id = store.scans.create(
            study_instance_uid="1.2", series_instance_uid="1.2.3", accession_number="", modality="CT", revision=1,
            instances=0, at=time.time(),
        )  # fmt: skip
        store.scans.advance(scan_id, ScanState.DELIVERING, cause="test")
        wait_until(lambda: store.scans.get(scan_id).state is ScanState.DONE, "the scan to be done")
    process.terminate()
    assert process.wait(30) == 0
    assert not heartbeat.exists()


def destination(port: int, name: str = "pacs") -> str:
    return f'[[deliver.destinations]]\nname = "{name}"\nae_title = "PACS"\naddress = "127.0.0.1"\nport = {port}\n'


@pytest.mark.slow
def test_one_destination_that_is_away_holds_up_no_other(start, store, screen, pacs, tmp_path):
    scan_id, uids = screen()
    store.outbox.put("pacs/gone/x", "pacs", store.outbox.of_scan(scan_id)[0].payload, destination="gone")
    start(destination(free_port(), "gone") + destination(pacs.port))
    wait_until(lambda: store.scans.get(scan_id).state is ScanState.DONE, "the scan to be done")
    assert pacs.uids == uids
    wait_until(lambda: store.outbox.get("pacs/gone/x").attempts > 0, "the other's try")
    assert store.outbox.get("pacs/gone/x").state is OutboxState.WAITING
    assert "Test" not in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_a_changed_configuration_takes_up_what_was_parked(start, store, screen, pacs):
    pacs.become("refuse_seg")
    scan_id, _ = screen()
    process = start(destination(pacs.port))
    wait_until(lambda: store.scans.get(scan_id).state is ScanState.PARKED, "the scan to be parked")
    process.terminate()
    assert process.wait(30) == 0
    start(destination(pacs.port) + 'kinds = ["capture", "sr"]\n')
    wait_until(lambda: store.scans.get(scan_id).state is ScanState.DONE, "the scan to be done")
    assert len(pacs.uids) == 2
