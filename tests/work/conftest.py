from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from appliance.config import Settings
from appliance.dicom.spool import AssociationFolder, CloseReason, Opened, Room, Spool, new_association_name
from appliance.store.database import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.store.database import Store

CT = "1.2.840.10008.5.1.4.1.1.2"
OPENED = Opened("SCANNER", "APPLIANCE", "127.0.0.1", "2026-01-01T00:00:00+00:00", os.getpid())


def instance(series: str, number: int, *, accession: str = "A1", study: str = "", text: str = "") -> bytes:
    """A small CT instance as a file's bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = f"{series}.{number}"
    dataset.StudyInstanceUID = study or f"{series}.0"
    dataset.SeriesInstanceUID = series
    dataset.AccessionNumber = accession
    dataset.Modality = "CT"
    dataset.ImageComments = text
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class Scanner:
    """Writes associations into the spool with the receiver's own code."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with Spool(root):
            pass

    def open(self, name: str = "") -> AssociationFolder:
        return AssociationFolder(self.root / Room.ASSOCIATIONS, name or new_association_name(), OPENED)

    def send(self, series: str, count: int = 3, *, first: int = 1, **identity: Any) -> str:
        folder = self.open()
        for number in range(first, first + count):
            folder.store(instance(series, number, **identity))
        folder.close(CloseReason.RELEASED)
        return folder.path.name


@pytest.fixture(autouse=True)
def stubs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child processes import the stubs, wherever pytest was started."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "box": {"state_directory": tmp_path / "state"},
            "assemble": {"quiet_s": 0.0},
            "work": {"memory_limit_mib": 512},
        }
    )


@pytest.fixture
def scanner(settings: Settings) -> Scanner:
    return Scanner(settings.box.spool)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_database(settings.box.database) as opened:
        yield opened


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for something to become true; a test that waits in vain runs into its limit."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120.0
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    return wait


@pytest.fixture
def working(settings: Settings) -> Iterator[Callable[..., threading.Event]]:
    """Run the real service, with a stub screening, in a thread of this process until the test ends."""
    from appliance.services.work import run

    running: list[tuple[threading.Thread, threading.Event]] = []
    raised: list[BaseException] = []

    def start(screen_with: str = "tests.work.stubs:screen", changed: Settings | None = None) -> threading.Event:
        stop = threading.Event()

        def main() -> None:
            try:
                run(changed or settings, stop, screen_with=screen_with)
            except BaseException as error:  # noqa: BLE001  # shown by the assertion below
                raised.append(error)

        thread = threading.Thread(target=main, name="work")
        thread.start()
        running.append((thread, stop))
        return stop

    yield start
    for thread, stop in running:
        stop.set()
        thread.join(60.0)
        assert not thread.is_alive()
    assert raised == []
