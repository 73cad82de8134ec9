"""The deliver service as a real process."""

import json
import subprocess
import sys
import time

import pytest

from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState


def wait_until(condition, what: str, at_most_s: float = 60.0) -> None:
    deadline = time.monotonic() + at_most_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for: {what}")
        time.sleep(0.02)


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


def test_says_at_once_that_destinations_are_not_served(start, tmp_path):
    start('[[deliver.destinations]]\nname = "pacs"\nae_title = "PACS"\naddress = "127.0.0.1"\n')
    wait_until(lambda: "destinations_not_served" in (tmp_path / "log.txt").read_text(), "the warning")
