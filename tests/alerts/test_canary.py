"""Identifiers in every field of a header, and in the report itself, reach no channel and no log."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset

from appliance.config import load
from appliance.dicom.spool import CloseReason
from appliance.health.model import Alert
from appliance.services import work
from appliance.store.database import open_database
from appliance.store.outbox import OutboxState
from tests.machine import wait_until
from tests.work.conftest import CT, Scanner

if TYPE_CHECKING:
    from pathlib import Path

    from tests.alerts.conftest import Lamp
    from tests.health.conftest import Broker, Listener

WORD, NUMBER = "CANARY", "77665544"
_VALUES = {
    **dict.fromkeys(("PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE", "CS"), WORD),
    "DA": "19770706",
    "AS": "077Y",
    "IS": NUMBER,
}
_KEPT = {"Modality", "SpecificCharacterSet", "TransferSyntaxUID", "SOPClassUID", "ImageType", "PatientName"}


def instance(number: int) -> bytes:
    """A CT instance with a canary in every text element of groups 0008 to 0040."""
    dataset = Dataset()
    for tag, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
        if 0x0008 <= tag >> 16 <= 0x0040 and vr in _VALUES and not retired and keyword not in _KEPT:
            dataset.add_new(tag, vr, _VALUES[vr] if multiplicity[0] == "1" else None)
    dataset.PatientName = f"{WORD}^NAME"
    dataset.Modality, dataset.SOPClassUID = "CT", CT
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.{NUMBER}", f"1.2.{NUMBER}.1"
    dataset.SOPInstanceUID = f"1.2.{NUMBER}.1.{number}"
    dataset.FrameOfReferenceUID = f"1.2.{NUMBER}.9"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("field", ["screening", "urgency", "step", "id", "scan", "at", "name"])
@pytest.mark.parametrize("text", ["DOE^JANE", "张三", "Zhang San", "1.2.840.113619", "12/04/1961"])
def test_the_message_takes_no_text_from_a_header(field: str, text: str) -> None:
    good = {
        "id": 1, "step": "raised", "at": "2026-01-01T00:00:00Z", "raised_at": "2026-01-01T00:00:00Z",
        "screening": "aorta", "urgency": "urgent", "scan": 3, "appliance_version": "1.0",
    }  # fmt: skip
    Alert.model_validate(good)
    with pytest.raises(ValidationError):
        Alert.model_validate(good | {field: text})


@pytest.mark.slow
def test_no_identifier_leaves_by_any_channel(
    tmp_path: Path, state: Path, lamp: Lamp, broker: Broker, listener: Listener
) -> None:
    lamp.install(f"env >> {lamp.folder}/env", f"cat >> {lamp.folder}/input")
    file = tmp_path / "box.toml"
    file.write_text(
        f'[box]\nname = "box-7"\nstate_directory = "{state}"\n[assemble]\nquiet_s = 0.0\n'
        "[receive]\ndisk_reserve_mib = 0\n[retention]\nsoft_free_mib = 0\n[deliver]\npoll_s = 0.05\n"
        f'[alerts]\ncommand = ["{lamp.program}"]\nescalate_after_min = 0.01\n'
        f'[health]\ninterval_s = 0.3\n[health.mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\nallow_plaintext = true\n'
    )
    scanner = Scanner(state / "spool")
    folder = scanner.open()
    for number in range(1, 4):
        folder.store(instance(number))
    folder.close(CloseReason.RELEASED)
    stop = threading.Event()
    worker = threading.Thread(
        target=lambda: work.run(load(file), stop, screen_with="tests.alerts.stubs:screen"), name="work"
    )
    worker.start()
    with (tmp_path / "log.txt").open("wb") as log:
        services = [
            subprocess.Popen(
                [sys.executable, "-m", "appliance", name, "--config", str(file)], stdout=log, stderr=subprocess.STDOUT
            )
            for name in ("deliver", "health")
        ]
    try:
        database = state / "appliance.db"
        wait_until(database.exists, "the database")
        with open_database(database, check=False) as store:
            wait_until(lambda: bool(store.alerts.recent()), "the alert")
            assert WORD in (store.results.get(1).report["screenings"][0]["summary"])  # type: ignore[union-attr]
            wait_until(lambda: store.alerts.recent()[0].escalated_at is not None, "the escalation")
            store.alerts.acknowledge(store.alerts.recent()[0].id, f"{WORD} reader")
            wait_until(lambda: store.outbox.counts() == {OutboxState.DONE: 6}, "three steps on both channels")
        wait_until(lambda: len(listener.of("alerts")) == 3 and bool(listener.of("health")), "the messages")
    finally:
        stop.set()
        worker.join(60)
        for service in services:
            service.terminate()
            service.wait(60)
    messages = b"\n".join(message.topic.encode() + message.payload for message in listener.messages)
    told = (lamp.folder / "env").read_bytes() + (lamp.folder / "input").read_bytes()
    assert told.count(b"APPLIANCE_ALERT_STEP=") == 3
    for text in (messages, told, (tmp_path / "log.txt").read_bytes()):
        assert not [canary for canary in (WORD, NUMBER, "19770706", "077Y") if canary.encode() in text]
