"""``appliance demo``: a whole appliance, started for a minute, is sent the test patient through its real DICOM port."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.commands.results import print_scan
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from appliance.config import Settings
    from appliance.store.results import ResultRow

_START_LIMIT_S = 60.0
_SCAN_LIMIT_S = 900.0
_CALLING_AE = "DEMO"

_CONFIGURATION = """\
# The demonstration's configuration: only this machine may send, nothing leaves it.
[box]
name = "demo"
state_directory = {state}

[receive]
address = "127.0.0.1"
port = 0
disk_reserve_mib = 64
peers = [{{ ae_title = "DEMO", address = "127.0.0.1" }}]

[assemble]
quiet_s = 1.0

[health]
interval_s = 5.0

[retention]
soft_free_mib = 64
"""


def run(paths: Sequence[Path], keep: Path | None) -> int:
    """Run the demonstration.

    Parameters
    ----------
    paths
        DICOM to send instead of the test patient.
    keep
        Folder to leave behind with the database, the results and the services' log.

    Returns
    -------
    int
        0 when every series that was sent reached the end of its life.
    """
    from rich.console import Console

    console = Console(highlight=False)
    with _folder(keep) as folder:
        files, truth = _material(paths, folder, console)
        settings_path = folder / "appliance.toml"
        settings_path.write_text(configuration(folder / "state"), encoding="utf-8")
        with _running(settings_path, folder / "appliance.log"):
            return _send_and_show(files, truth, settings_path, folder, console)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="appliance-demo-") as name:
            yield Path(name)
    else:
        if keep.exists() and any(keep.iterdir()):
            raise ApplianceError(f"{keep} is not empty; name a new folder for --keep")
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()


def configuration(state_directory: Path) -> str:
    """Return the TOML of a configuration that only this machine can reach."""
    return _CONFIGURATION.format(state=json.dumps(str(state_directory)))


def _material(paths: Sequence[Path], folder: Path, console: Console) -> tuple[list[Path], dict[str, Any] | None]:
    if paths:
        from appliance.dicom.image.files import read_inputs

        work = folder / "input"
        work.mkdir()
        inputs = read_inputs(paths, work)
        return [path for series in inputs.series for path in series.paths], None
    from appliance.phantom import PhantomOptions, write_series

    console.print("Making the test patient (synthetic: a digital phantom with known answers) …")
    truth = write_series(PhantomOptions(emphysema_fraction=0.08), folder / "test-patient")
    return sorted((folder / "test-patient").glob("*.dcm")), truth.to_json()


@contextlib.contextmanager
def _running(settings_path: Path, log: Path) -> Iterator[None]:
    """Keep ``appliance serve`` running."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "appliance", "serve", "--config", str(settings_path)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _send_and_show(
    files: list[Path], truth: dict[str, Any] | None, settings_path: Path, folder: Path, console: Console
) -> int:
    from appliance.config import load
    from appliance.dicom.network.sender import send
    from appliance.store.database import open_database

    settings = load(settings_path)
    port = _port(settings, folder / "appliance.log")
    console.print(f"The appliance listens on 127.0.0.1:{port}; sending {len(files)} images …")
    began = time.monotonic()
    sent = send(files, host="127.0.0.1", port=port, called_ae=settings.receive.ae_title, calling_ae=_CALLING_AE)
    last_image = time.monotonic()
    console.print(f"{sent.accepted} of {len(files)} images acknowledged in {last_image - began:.1f} s; screening …")
    _wait(settings, {path.parent for path in files}, last_image)
    console.print(f"finished {time.monotonic() - last_image:.1f} s after the last image\n")
    with open_database(settings.box.database, read_only=True) as store:
        scans = store.scans.last(100)
        for scan in reversed(scans):
            print_scan(store, scan, console)
            console.print()
        if truth is not None:
            _compare(store.results.get(scans[0].id), truth, console)
    if not sent.ok:
        console.print(sent.problem or f"{len(files) - sent.accepted} images were not taken", style="red")
        return 4
    return 0


def _port(settings: Settings, log: Path) -> int:
    heartbeat = settings.box.state_directory / "run" / "receive.json"
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(json.loads(heartbeat.read_text(encoding="utf-8"))["port"])
        time.sleep(0.1)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise ApplianceError(f"the DICOM port did not open within {_START_LIMIT_S:.0f} s; the log ends:\n{tail}")


def _wait(settings: Settings, folders: set[Path], last_image: float) -> None:
    """Wait until something has arrived and every scan has come to the end of its life.

    Raises
    ------
    ApplianceError
        That took too long.
    """
    from appliance.store.database import open_database
    from appliance.store.lifecycle import TERMINAL

    # a second series may be noticed a moment after the first one is finished
    settled = settings.assemble.quiet_s + 2.0
    while time.monotonic() < last_image + _SCAN_LIMIT_S * len(folders):
        if settings.box.database.exists():
            with open_database(settings.box.database, read_only=True) as store:
                scans = store.scans.last(100)
            if scans and all(scan.state in TERMINAL for scan in scans) and time.monotonic() > last_image + settled:
                return
        time.sleep(0.2)
    raise ApplianceError(f"no result within {_SCAN_LIMIT_S:.0f} s; look into the log with --keep")


def _compare(result: ResultRow | None, truth: dict[str, Any], console: Console) -> None:
    """Print what was measured beside what the test patient really has."""
    from rich.table import Table

    if result is None:
        return
    table = Table(title="Test patient: measured beside true (synthetic)", pad_edge=False)
    for heading in ("Measurement", "Site", "Measured", "True"):
        table.add_column(heading)
    volumes_ml = truth["volumes_ml"]
    known = {
        "laa950_percent": truth["laa950_percent"],
        "lung_volume_ml": volumes_ml["lung_left"] + volumes_ml["lung_right"],
        "lung_volume_ml.lung_left": volumes_ml["lung_left"],
        "lung_volume_ml.lung_right": volumes_ml["lung_right"],
    }
    for screening in result.report["screenings"]:
        for item in screening["measurements"]:
            key = item["name"] if item["site"] is None else f"{item['name']}.{item['site']}"
            if key in known:
                table.add_row(item["name"], item["site"] or "whole", f"{item['value']:.1f}", f"{known[key]:.1f}")
    console.print(table)
