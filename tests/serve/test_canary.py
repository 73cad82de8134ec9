"""No text of a DICOM header reaches the fleet, the logs or the metrics, whatever element it stands in.

Covered: every element of the data dictionary whose value is text or an identifier (AE, CS, LO, LT, PN, SH, ST, UC, UI,
UR, UT, and DA, TM, DT with a date of their own), except the few that decide whether an image can be read at all; the
same within two nested sequences and within private blocks, of known and unknown VR; three character sets. Four series
go through the real receive, work, deliver and health services as processes; the work service's child screens with a
stand-in (`stand_in_screen.py`) that puts the header's text into its report, its log lines, a warning, a refusal and an
exception, and dies once. Searched: every topic as a real mosquitto gave it, with answers to the commands and the
bundle of diagnostics; all lines of all services at the default level; the Prometheus page; the message of drift; the
bundle with those log lines as the journal would give them. The screenings themselves are not run here.
"""

import functools
import io
import json
import subprocess
import sys
import time
import urllib.request
import uuid

import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from appliance.config import load
from appliance.dicom.network.sender import send
from appliance.health import drift
from appliance.health.diagnostics import build
from appliance.health.measure import measure
from appliance.store.database import open_database
from appliance.store.lifecycle import TERMINAL, ScanState
from tests.health.conftest import MOSQUITTO, Broker, Listener, plain
from tests.health.test_commands import Sender, command, play_journal
from tests.machine import free_port, wait_until
from tests.work.conftest import instance

from .stand_in_screen import CRASH, ERROR, REFUSED, SCREENED

pytestmark = pytest.mark.slow

UID_ROOT = "1.2.826.0.1.3680043.9.7777"
DATE, TIME = "19231112", "031415.926"
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
# What would make an image of another kind, or none.
STRUCTURAL = {
    "SpecificCharacterSet", "ImageType", "Modality", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID",
    "StudyInstanceUID", "PatientPosition", "PhotometricInterpretation", "RescaleType", "PatientSex", "PatientAge",
    "LossyImageCompression", "PresentationLUTShape", "PixelPresentation", "VolumetricProperties",
    "VolumeBasedCalculationTechnique", "DecayCorrection", "FrameType",
}  # fmt: skip
STOPS = frozenset({"ContrastBolusAgent", "ContrastBolusRoute", "ConvolutionKernel", "ContrastBolusIngredient"})
# Anything of these would be a leak; digits of the date and the root of the UIDs stand nowhere else.
CANARIES = ("canary", "金丝雀", UID_ROOT, DATE, "1923-11-12")


def canary(vr: str, tag: int, chinese: str) -> object:
    name = f"CANARY{tag:08X}"
    if vr == "PN":
        return f"CANARY^{tag:08X}={chinese}^{chinese}" if chinese else f"CANARY^{tag:08X}"
    if vr in {"LO", "LT", "ST", "UC", "UT"}:
        return f"{name} {chinese}".strip()
    return name


@functools.cache
def poison(charset: str) -> Dataset:
    """Return a data set with a canary in every text-holding element, twice more within sequences."""
    chinese = "" if charset == "ISO_IR 100" else "金丝雀"
    poisoned = Dataset()
    poisoned.SpecificCharacterSet = charset
    for sequence in (None, 0x00081110, 0x00400275):
        target = poisoned if sequence is None else Dataset()
        for tag, (vr, vm, _, retired, keyword) in DicomDictionary.items():
            if tag >> 16 in {0x0000, 0x0002, 0x0004, 0x0028, 0x7FE0} or not keyword or retired or vm.startswith("2"):
                continue
            if keyword == "SpecificCharacterSet" or (sequence is None and keyword in STRUCTURAL):
                continue
            if vr in TEXT:
                target.add_new(tag, vr, canary(vr, tag, chinese))
            elif vr in {"DA", "TM", "DT"}:
                target.add_new(tag, vr, {"DA": DATE, "TM": TIME, "DT": DATE + TIME}[vr])
            elif vr == "UI":
                target.add_new(tag, vr, f"{UID_ROOT}.{tag}")
        block = target.private_block(0x0009, "CANARY CREATOR", create=True)
        block.add_new(0x01, "LO", f"CANARY private {chinese}".strip())
        block.add_new(0x02, "UN", b"CANARY unknown")
        if sequence is not None:
            poisoned.add_new(sequence, "SQ", [target])
    assert sum(1 for _ in poisoned.iterall()) > 4000
    return poisoned


def series(folder, behaviour: int, charset: str, slices: int = 2) -> list:
    """Two slices without pixels: the stand-in looks at none."""
    folder.mkdir()
    made = []
    for number in range(1, slices + 1):
        dataset = pydicom.dcmread(io.BytesIO(instance(f"{UID_ROOT}.1.{behaviour}", number)))
        dataset.update(poison(charset))
        dataset.SeriesNumber = behaviour
        dataset.StudyInstanceUID = f"{UID_ROOT}.2.{behaviour}"
        dataset.save_as(folder / f"{number}.dcm")
        made.append(folder / f"{number}.dcm")
    return made


WORK = """
import sys
from pathlib import Path
from appliance import logs
from appliance.config import load
from appliance.services.lifecycle import stop_event_on_signals
from appliance.services.work import run
settings = load(Path(sys.argv[1]))
logs.configure(settings.box.log_level, settings.box.log_format)
run(settings, stop_event_on_signals(), screen_with="tests.serve.stand_in_screen:screen")
"""


class Appliance:
    """The services as processes, the work service with a stand-in for the screenings."""

    def __init__(self, folder, broker_port: int) -> None:
        self.folder, self.prometheus_port = folder, free_port()
        self.configuration = folder / "box.toml"
        mqtt = plain(broker_port).replace("[health.mqtt]\n", "[health.mqtt]\ncommands = true\n")
        self.configuration.write_text(
            f'[box]\nname = "box-7"\nstate_directory = "{folder}/state"\nlog_format = "json"\n'
            '[receive]\nport = 0\naddress = "127.0.0.1"\ndisk_reserve_mib = 0\n'
            '[[receive.peers]]\nname = "ct-1"\nae_title = "CT1"\naddress = "127.0.0.1"\n'
            "[assemble]\nquiet_s = 0.5\n[retention]\nsoft_free_mib = 0\n[work]\nattempts = 1\n"
            f"[health]\ninterval_s = 1.0\nprometheus_port = {self.prometheus_port}\n{mqtt}"
        )
        self.processes = [
            self._start(name, ["-m", "appliance", name, "--config", str(self.configuration)])
            for name in ("receive", "deliver", "health")
        ]
        self.processes.append(self._start("work", ["-c", WORK, str(self.configuration)]))

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen:
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(120)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    @property
    def database(self):
        return self.folder / "state" / "appliance.db"

    def port(self) -> int | None:
        try:
            return json.loads((self.folder / "state/run/receive.json").read_text())["port"]
        except (OSError, ValueError, KeyError):
            return None

    def ended(self) -> dict[ScanState, int]:
        with open_database(self.database, read_only=True) as store:
            counts = store.scans.summary(last=0).counts
        return {state: counts[state] for state in TERMINAL if counts[state]}


@pytest.fixture
def mosquitto(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker", "allow_anonymous true", free_port())
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def appliance(tmp_path, mosquitto):
    appliance = Appliance(tmp_path, mosquitto.port)
    yield appliance
    appliance.stop()


def deliver(paths, port: int) -> None:
    report = send(paths, host="127.0.0.1", port=port, called_ae="APPLIANCE", calling_ae="CT1", timeout_s=300.0)
    assert report.ok, report.problem


def leaks(text: str) -> list[str]:
    found = []
    for word in CANARIES:
        where = text.lower().find(word.lower())
        if where >= 0:
            found.append(text[max(0, where - 100) : where + 100])
    return found


SERVICES = ("receive", "work", "deliver", "health")


def test_nothing_of_a_header_leaves_the_box(tmp_path, appliance, mosquitto, monkeypatch):
    behaviours = {SCREENED: "GB18030", REFUSED: "ISO_IR 192", ERROR: "ISO_IR 100", CRASH: "GB18030"}
    made = {number: series(tmp_path / str(number), number, charset) for number, charset in behaviours.items()}
    with Listener(mosquitto.port) as listener, Sender(mosquitto.port) as sender:
        wait_until(lambda: appliance.port() is not None, "the DICOM port", at_most_s=240)
        for paths in made.values():
            deliver(paths, appliance.port())
        wait_until(lambda: sum(appliance.ended().values()) == 4, "four ends", at_most_s=240)
        assert appliance.ended() == {ScanState.DONE: 1, ScanState.REFUSED: 1, ScanState.FAILED: 2}
        wait_until(lambda: listener.of("health"), "health", at_most_s=240)
        for name in ("diagnostics", "re-announce"):
            sender.send("box-7", name, command())
        wait_until(lambda: sum(item["outcome"] == "done" for item in listener.of("cmd/reply")) == 2, "two answers", 240)
        wait_until(
            lambda: {"refused", "failed"} <= {event["event"] for event in listener.of("events")}, "the events", 240
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{appliance.prometheus_port}/metrics", timeout=120) as answer:
            metrics = answer.read().decode()
    appliance.stop()

    # The canaries were really there: in the database, in the report, and where the stand-in has said them.
    with open_database(appliance.database) as store:
        assert leaks(json.dumps(store.rows("SELECT * FROM scans"), ensure_ascii=False))
        assert leaks(store.rows("SELECT report FROM results")[0]["report"])
        monkeypatch.setattr(drift, "LEAST_STUDIES", 1)
        settings = load(appliance.configuration)
        told = drift.make_due(store, settings.receive.peers, tmp_path / "key", now=time.time() + 86400.0)
        journal = [
            {"_SYSTEMD_UNIT": f"appliance-{name}.service", "MESSAGE": line}
            for name in SERVICES
            for line in appliance.log(name).splitlines()
        ]
        play_journal(tmp_path, monkeypatch, journal)
        bundle = build(str(uuid.uuid4()), settings, store, measure(settings))
    assert "stand_in_read" in appliance.log("work")
    assert [group.scanner for group in told.groups] == ["ct-1"]
    assert "stand_in_read" in [line.event for line in bundle.log]
    assert any(message.topic == "appliances/box-7/diagnostics" for message in listener.messages)

    found = {f"log of {name}": leaks(appliance.log(name)) for name in SERVICES}
    for message in listener.messages:
        found.setdefault(message.topic, []).extend(leaks(message.payload.decode()))
    found |= {"metrics": leaks(metrics), "drift": leaks(told.model_dump_json())}
    found["bundle"] = leaks(bundle.model_dump_json())
    assert {where: what for where, what in found.items() if what} == {}
    assert {"appliances/box-7/state", "appliances/box-7/health", "appliances/box-7/events"} <= set(found)
