"""Real receivers on free ports, and small valid files to send to them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from appliance.config import ReceiveSettings
from appliance.dicom.network.receiver import Receiver
from appliance.dicom.spool import Room, SpooledAssociation, read_association

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pynetdicom.association import Association

SENDER = "SCANNER"
CALLED = "APPLIANCE"
PEER = {"ae_title": SENDER, "address": "127.0.0.1"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep log lines, and structlog's slow tracebacks for developers, out of the tests."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start_receiver(spool: Path) -> Iterator[Callable[..., Receiver]]:
    """Start receivers with changed settings; all are stopped at the end."""
    started: list[Receiver] = []

    def start(*, free_space: Callable[[Path], int] | None = None, root: Path = spool, **changes: Any) -> Receiver:
        settings = {"address": "127.0.0.1", "port": 0, "disk_reserve_mib": 0, "peers": [PEER], **changes}
        options = {} if free_space is None else {"free_space": free_space}
        receiver = Receiver(ReceiveSettings.model_validate(settings), root, **options)
        receiver.start()
        started.append(receiver)
        return receiver

    yield start
    for receiver in started:
        receiver.stop(grace_s=0.2)


@pytest.fixture
def receiver(start_receiver: Callable[..., Receiver]) -> Receiver:
    return start_receiver()


def make_instance(
    path: Path,
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
    sop_class: str = CTImageStorage,
    size: int = 2048,
    **elements: Any,
) -> Path:
    """Write a small file; its pixel data is a pattern, which a receiver must not care about."""
    syntax = UID(transfer_syntax)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID = sop_class
    image.SOPInstanceUID = generate_uid()
    image.Modality = "CT"
    image.PatientName = "Made^Up"
    image.PatientID = "TEST"
    image.StudyInstanceUID = generate_uid()
    image.SeriesInstanceUID = generate_uid()
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = size // 64, 32
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    pattern = bytes(range(256)) * (size // 256)
    if syntax.is_compressed and not syntax.is_deflated:
        image.PixelData = encapsulate([pattern])
        image["PixelData"].is_undefined_length = True
    else:
        image.PixelData = pattern
    image["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    image.save_as(path, enforce_file_format=True)
    return path


def make_series(folder: Path, count: int, **options: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [make_instance(folder / f"{number:04d}.dcm", **options) for number in range(count)]


def data_set_bytes(path: Path) -> bytes:
    """Return what follows the file meta information, untouched."""
    meta = read_file_meta_info(path)
    return path.read_bytes()[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


def associate(
    receiver: Receiver,
    *contexts: tuple[str, str | list[str]],
    calling: str = SENDER,
    called: str = CALLED,
    **options: Any,
) -> Association:
    """Open an association as an SCU with short time-outs."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 20
    for abstract, syntax in contexts or ((CTImageStorage, ExplicitVRLittleEndian),):
        ae.add_requested_context(abstract, syntax)
    return ae.associate("127.0.0.1", receiver.port, ae_title=called, **options)


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for a condition and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert value, "it did not come true in time"
    return value


def list_associations(spool: Path) -> list[SpooledAssociation]:
    """Return the associations with CT instances, oldest first."""
    room = spool / Room.ASSOCIATIONS
    found = [read_association(folder) for folder in sorted(room.iterdir())] if room.exists() else []
    return [association for association in found if association is not None]
