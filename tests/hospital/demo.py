"""``make demo-hospital``: the box among its neighbours, from the scanner's images to the acknowledged alert.

An archive (Orthanc), the fleet's broker (mosquitto) and the whole appliance are started; the test patient, or real
DICOM when it is named, is sent to the DICOM port; a real browser acknowledges the alert on the board; `mosquitto_sub`
reads the box's health.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from appliance.board.passwords import write_password
from appliance.commands.results import print_scan
from appliance.config import load
from appliance.dicom.image.files import read_inputs
from appliance.dicom.network.sender import send
from appliance.phantom import PhantomOptions, write_series
from appliance.store.database import open_database
from appliance.store.lifecycle import TERMINAL, ScanState
from tests.board.browsers import Browser
from tests.hospital.peers import ARCHIVE_TITLE, archive, broker, listens
from tests.machine import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance.config import Settings
    from appliance.store.scan_rows import ScanRow
    from tests.hospital.peers import Archive, Broker

BOX_TITLE, SCANNER_TITLE = "APPLIANCE", "SCANNER"
PASSWORD = "only for this demonstration"
RADIOGRAPHER = "Li Wei"
_SERIES_LIMIT_S = 900.0

CONFIGURATION = """\
# The demonstration's configuration: only this machine may send, and everything stays on it.
[box]
name = "demo"
state_directory = {state}

[receive]
ae_title = "{box_title}"
address = "127.0.0.1"
port = {port}
disk_reserve_mib = 64
peers = [{{ ae_title = "{scanner_title}", address = "127.0.0.1" }}]

[assemble]
quiet_s = 1.0

[retention]
soft_free_mib = 64

[[deliver.destinations]]
name = "archive"
ae_title = "{archive_title}"
address = "127.0.0.1"
port = {archive_port}

[health]
interval_s = 5.0

[health.mqtt]
host = "127.0.0.1"
port = {broker_port}
allow_plaintext = true

[board]
address = "127.0.0.1"
port = {board_port}
password_file = {password_file}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; 0 when everything that it promises was seen."""
    parser = argparse.ArgumentParser(prog="make demo-hospital", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "paths", nargs="*", type=Path, help="DICOM files, folders or .zip files instead of the test patient"
    )
    parser.add_argument("--keep", type=Path, help="leave the database, the logs and the pictures in this new folder")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        if options.keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-hospital-")))
        else:
            folder = options.keep.resolve()
            folder.mkdir(parents=True)
        return _demonstrate(folder, options.paths, Console(highlight=False))


def _demonstrate(folder: Path, paths: Sequence[Path], console: Console) -> int:
    files = _images(folder, paths, console)
    port, board_port, password_file = free_port(), free_port(), folder / "board-password"
    write_password(password_file, PASSWORD, folder / "state")
    with archive(folder / "archive", BOX_TITLE, port) as orthanc, broker(folder / "broker") as mosquitto:
        configuration = folder / "appliance.toml"
        configuration.write_text(
            CONFIGURATION.format(
                state=json.dumps(str(folder / "state")), box_title=BOX_TITLE, port=port, scanner_title=SCANNER_TITLE,
                archive_title=ARCHIVE_TITLE, archive_port=orthanc.dicom_port, broker_port=mosquitto.port,
                board_port=board_port, password_file=json.dumps(str(password_file)),
            )
        )  # fmt: skip
        settings = load(configuration)
        with _serving(configuration, folder / "appliance.log"):
            # The DICOM port last and once: each look at it is a connection, and it closes those beyond a bound.
            wait_until(lambda: listens(board_port), "the appliance's alert board")
            wait_until(lambda: listens(port), "the appliance's DICOM port")
            console.print(
                f"Running: Orthanc (DICOM {orthanc.dicom_port}), mosquitto ({mosquitto.port}), the appliance "
                f"(DICOM {port}, alert board http://127.0.0.1:{board_port}/)."
            )
            sent = send(files, host="127.0.0.1", port=port, called_ae=BOX_TITLE, calling_ae=SCANNER_TITLE)
            last_image = time.monotonic()
            console.print(f"{sent.accepted} of {len(files)} images acknowledged; screening …")
            scans = wait_until(
                lambda: _finished(settings, last_image), "the result", 900.0 * len({path.parent for path in files})
            )
            console.print(f"finished and delivered {time.monotonic() - last_image:.1f} s after the last image\n")
            _show_scans(settings, scans, console)
            seen = [
                _show_archive(orthanc, scans, folder, console),
                _show_board(settings, folder, console),
                _show_fleet(settings, mosquitto, console),
            ]
    return 0 if sent.ok and all(seen) else 1


def _images(folder: Path, paths: Sequence[Path], console: Console) -> list[Path]:
    if paths:
        (folder / "input").mkdir()
        return [path for series in read_inputs(paths, folder / "input").series for path in series.paths]
    console.print("Making the test patient (synthetic: a digital phantom with a large pleural effusion) …")
    write_series(PhantomOptions(emphysema_fraction=0.08, effusion_right_ml=1300.0), folder / "test-patient")
    return sorted((folder / "test-patient").glob("*.dcm"))


@contextlib.contextmanager
def _serving(configuration: Path, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "appliance", "serve", "--config", str(configuration)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _finished(settings: Settings, last_image: float) -> list[ScanRow]:
    """Return the scans once each has come to an end and no further series can be noticed."""
    if time.monotonic() < last_image + settings.assemble.quiet_s + 2.0:
        return []
    with open_database(settings.box.database, read_only=True) as store:
        scans = store.scans.last(100)
    return scans if all(scan.state in TERMINAL for scan in scans) else []


def _show_scans(settings: Settings, scans: Sequence[ScanRow], console: Console) -> None:
    with open_database(settings.box.database, read_only=True) as store:
        for scan in reversed(scans):
            print_scan(store, scan, console)
            console.print()


def _show_archive(orthanc: Archive, scans: Sequence[ScanRow], folder: Path, console: Console) -> bool:
    """List what the archive holds and have it draw a key image; true when what was screened has its objects there."""
    table = Table(title="In the archive (asked from Orthanc)", pad_edge=False)
    for heading in ("Modality", "Series", "Instances"):
        table.add_column(heading)
    kinds = set()
    for one in orthanc.series():
        tags = one["MainDicomTags"]
        kinds.add(tags.get("Modality"))
        table.add_row(tags.get("Modality", ""), tags.get("SeriesDescription", ""), str(len(one["Instances"])))
        if tags.get("Modality") == "OT":
            (folder / "key-image-in-archive.png").write_bytes(orthanc.read(f"/instances/{one['Instances'][0]}/preview"))
    console.print(table)
    return {"SR", "OT"} <= kinds or all(scan.state == ScanState.REFUSED for scan in scans)


def _show_board(settings: Settings, folder: Path, console: Console) -> bool:
    """Acknowledge every alert in a browser, as the radiographer would; true when none is left open."""
    assert settings.board is not None
    browser = Browser(f"http://127.0.0.1:{settings.board.port}", folder / "browser")
    try:
        browser.log_in(PASSWORD)
        browser.driver.save_screenshot(folder / "board-before.png")
        while cards := browser.cards():
            browser.run("document.querySelector('#name').value = arguments[0]", RADIOGRAPHER)
            browser.one("#cards .card button.acknowledge").click()
            wait_until(lambda: browser.cards() < cards, "the board to take the acknowledgement")  # called in this round
        browser.driver.save_screenshot(folder / "board-after.png")
        complaints = browser.complaints()
    finally:
        browser.driver.quit()
    for complaint in complaints:
        console.print(f"The browser complains: {complaint}", style="red")
    with open_database(settings.box.database, read_only=True) as store:
        left, latest = store.alerts.unacknowledged(), store.alerts.recent()
    for alert in latest:
        console.print(
            f"Alert {alert.id}, {alert.screening} ({alert.urgency}): {alert.state.value} by {alert.acknowledged_by}, "
            f"{(alert.acknowledged_at or time.time()) - alert.raised_at:.0f} s after it was raised"
        )
    if not latest:
        console.print("No alert: nothing urgent was found.")
    return not left and not complaints


def _show_fleet(settings: Settings, mosquitto: Broker, console: Console) -> bool:
    """Print what the fleet heard; true when the box is online and healthy and every step of the alerts was told."""
    with open_database(settings.box.database, read_only=True) as store:
        steps = 2 * len(store.alerts.recent())  # raised and acknowledged
    wait_until(lambda: len(mosquitto.heard("alerts")) >= steps, "the alerts at the broker")
    state = mosquitto.retained(f"appliances/{settings.box.name}/state")
    health = mosquitto.retained(f"appliances/{settings.box.name}/health")
    packs = ", ".join(f"{pack['name']} {pack['version']}" for pack in health["packs"])
    counts = ", ".join(f"{count} {name}" for name, count in health["queue"]["by_state"].items() if count)
    console.print(
        f"\nHeard by mosquitto_sub: {state['state']} (session {state['session']}), {health['condition']}, problems: "
        f"{', '.join(health['problems']) or 'none'}; scans: {counts}; packs: {packs}"
    )
    for message in mosquitto.heard("alerts"):
        console.print(f"  alert: {json.dumps(message)}")
    return state["state"] == "online" and health["condition"] == "healthy"


if __name__ == "__main__":
    sys.exit(main())
