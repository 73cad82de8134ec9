"""Screened scans with small DICOM objects, and real peers that can be made ill."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from appliance.delivery.backoff import Backoff
from appliance.delivery.c_store import CStoreCarrier
from appliance.delivery.courier import Courier
from appliance.delivery.node import DicomwebNode, PacsNode
from appliance.delivery.shipment import Shipment
from appliance.delivery.stow import StowCarrier
from appliance.dicom.network.sender import echo
from appliance.dicom.web.stow import Access
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from tests.machine import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.store.database import Store

BOX, PACS = "BOX", "PACS"
CLASSES = {"sr": ComprehensiveSRStorage, "seg": SegmentationStorage, "capture": SecondaryCaptureImageStorage}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "state" / "results"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_database(tmp_path / "state" / "appliance.db") as store:
        yield store


def make_object(path: Path, kind: str, *, size: int = 0) -> str:
    """Write a small object of a kind and return its SOP Instance UID."""
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = CLASSES[kind]
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = generate_uid()
    item.PatientID, item.PatientName, item.StudyID = "P1", "Test^Patient", "1"
    item.StudyInstanceUID, item.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.1", generate_uid()
    item.Modality = {"sr": "SR", "seg": "SEG", "capture": "OT"}[kind]
    item.ContentLabel = "X"
    if size:
        item.add_new(0x00420011, "OB", bytes(size))
    path.parent.mkdir(parents=True, exist_ok=True)
    item.save_as(path, enforce_file_format=True)
    return str(item.SOPInstanceUID)


@pytest.fixture
def screen(store: Store, results: Path) -> Callable[..., tuple[int, set[str]]]:
    """Make a screened scan with objects, handed over to the destination ``pacs``; gives its id and the UIDs."""
    numbers = iter(range(1, 1000))

    def make(kinds: tuple[str, ...] = ("sr", "seg", "capture"), *, size: int = 0) -> tuple[int, set[str]]:
        scan_id = store.scans.create(
            study_instance_uid="1.2", series_instance_uid=f"1.2.{next(numbers)}", accession_number="", modality="CT",
            revision=1, instances=0, at=time.time(),
        )  # fmt: skip
        folder = results / store.scans.get(scan_id).folder / "objects"
        uids = {make_object(folder / f"{place}-{kind}.dcm", kind, size=size) for place, kind in enumerate(kinds)}
        store.scans.advance(scan_id, ScanState.SCREENED, cause="test")
        store.scans.hand_over(scan_id, ["pacs"])
        return scan_id, uids

    return make


@dataclass(frozen=True)
class Pacs:
    """A peer in a process of its own, whose illness is a word in a file."""

    port: int
    folder: Path

    @classmethod
    @contextmanager
    def running(cls, script: str, folder: Path, *certificates: Path) -> Iterator[Self]:
        """Run a script of this folder as the peer, well to begin with; over TLS where certificates are given."""
        peer = cls(free_port(), folder)
        peer.become("")
        path = Path(__file__).with_name(script)
        process = subprocess.Popen([sys.executable, str(path), str(peer.port), str(folder), *map(str, certificates)])
        try:
            wait_until((folder / "ready").exists, script)
            yield peer
        finally:
            process.kill()
            process.wait()

    def become(self, illness: str) -> None:
        part = self.folder / "illness.part"
        part.write_text(illness)
        part.replace(self.folder / "illness")

    @property
    def associations(self) -> int:
        path = self.folder / "associations"
        return len(path.read_text()) if path.exists() else 0

    def arrived(self) -> list[tuple[str, str]]:
        """Return SOP Instance UID and digest of the data set for each C-STORE, in their order."""
        path = self.folder / "arrived"
        return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []  # type: ignore[misc]

    @property
    def uids(self) -> set[str]:
        return {uid for uid, _ in self.arrived()}


@pytest.fixture(scope="session")
def _started_pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    with Pacs.running("ill_pacs.py", tmp_path_factory.mktemp("pacs")) as peer:
        yield peer


@pytest.fixture
def pacs(_started_pacs: Pacs) -> Pacs:
    """Give the PACS, well and empty."""
    _started_pacs.become("")
    for name in ("arrived", "associations"):
        (_started_pacs.folder / name).unlink(missing_ok=True)
    return _started_pacs


@pytest.fixture
def courier(store: Store, results: Path) -> Callable[..., Courier]:
    """Make a courier to a port; it never waits, so that the next round tries again, unless told otherwise."""

    def make(port: int, *, backoff: Backoff = Backoff(0.0, 0.0), **changes: Any) -> Courier:  # noqa: B008
        node = PacsNode(
            **{"name": "pacs", "ae_title": PACS, "address": "127.0.0.1", "port": port, "calling_ae": BOX,
               "timeout_s": 10.0, **changes}
        )  # fmt: skip
        stop = threading.Event()
        return Courier(store, Shipment(store, results, CStoreCarrier(node), stop), backoff, stop)

    return make


@pytest.fixture
def stow(store: Store, results: Path) -> Callable[..., Courier]:
    """Make a courier to a URL; the next round tries again, unless told otherwise."""

    def make(url: str, *, backoff: Backoff = Backoff(0.0, 0.0), **access: object) -> Courier:  # noqa: B008
        node = DicomwebNode("pacs", Access(url, **{"timeout_s": 10.0, **access}))  # type: ignore[arg-type]
        stop = threading.Event()
        return Courier(store, Shipment(store, results, StowCarrier(node), stop), backoff, stop)

    return make


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., tuple[int, Path]]]:
    """Start dcmtk's receiver with options; gives its port and the folder it stores into."""
    if not shutil.which("storescp"):
        pytest.skip("dcmtk is not installed")
    started = []

    def start(*options: str) -> tuple[int, Path]:
        folder, port = tmp_path / "storescp", free_port()
        folder.mkdir()
        started.append(subprocess.Popen(["storescp", *options, "-aet", PACS, "-od", str(folder), str(port)]))
        wait_until(lambda: _answers(port), "storescp")
        return port, folder

    yield start
    for process in started:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    return echo(host="127.0.0.1", port=port, called_ae=PACS, calling_ae=BOX, timeout_s=5).ok
