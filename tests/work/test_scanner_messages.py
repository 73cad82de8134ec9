"""A scanner's whole conversation with the box's real services: images, procedure step, storage commitment."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.presentation import build_context

from appliance.dicom.network.link import Link, application_entity, associate
from appliance.dicom.network.sender import send
from appliance.dicom.uids import MODALITY_PERFORMED_PROCEDURE_STEP as MPPS
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as PUSH
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE as WELL_KNOWN
from appliance.store.database import open_database
from tests.receive.test_commitment_requests import asked
from tests.receive.test_procedure_steps import ended, in_progress, performed
from tests.work.conftest import instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCANNER = "CT1"


@pytest.fixture
def port(tmp_path: Path, until: Callable[[Callable[[], bool]], None]) -> Iterator[int]:
    """Run the port, the work service and the deliver service; nothing is ever quiet for long enough."""
    config = tmp_path / "box.toml"
    config.write_text(
        f'[box]\nstate_directory = "{tmp_path}/state"\n[assemble]\nquiet_s = 3600\nforce_s = 7200\n[receive]\n'
        f'address = "127.0.0.1"\nport = 0\ndisk_reserve_mib = 0\n'
        f'peers = [{{ ae_title = "{SCANNER}", address = "127.0.0.1" }}]\n[deliver]\npoll_s = 0.1\n'
    )
    heartbeats = [tmp_path / "state" / "run" / f"{name}.json" for name in ("receive", "work", "deliver")]
    with (tmp_path / "log").open("w") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", "appliance", path.stem, "--config", str(config)], stderr=log)
            for path in heartbeats
        ]
        until(lambda: all(path.exists() for path in heartbeats))
        yield int(json.loads(heartbeats[0].read_text())["port"])
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_the_step_completes_the_series_and_commitment_is_answered_honestly(
    port: int, tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    paths = [tmp_path / f"{number}.dcm" for number in (1, 2, 3)]
    for number, path in enumerate(paths, start=1):
        path.write_bytes(instance("1.2.826.5", number))
    uids = [str(dcmread(path).SOPInstanceUID) for path in paths]
    assert send(paths, host="127.0.0.1", port=port, called_ae="APPLIANCE", calling_ae=SCANNER).ok
    reports: list[Any] = []
    reported = threading.Event()

    def on_report(event: evt.Event) -> tuple[int, None]:
        reports.append(event.event_information)
        reported.set()
        return 0x0000, None

    contexts = [build_context(uid, ImplicitVRLittleEndian) for uid in (MPPS, PUSH)]
    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    entity = application_entity(SCANNER, 60.0)
    link = associate(entity, contexts, "127.0.0.1", port, "APPLIANCE", None, handlers=handlers)
    assert isinstance(link, Link)
    with link as association:
        assert association.send_n_create(in_progress(), MPPS, "1.2.826.9")[0].Status == 0x0000
        end = ended()
        end.PerformedSeriesSequence = [performed("1.2.826.5", uids)]
        assert association.send_n_set(end, MPPS, "1.2.826.9")[0].Status == 0x0000
        assert association.send_n_action(asked(*uids, "1.2.826.404"), 1, PUSH, WELL_KNOWN)[0].Status == 0x0000
        assert reported.wait(90)
    told = {str(item.ReferencedSOPInstanceUID): item.FailureReason for item in reports[0].FailedSOPSequence}
    assert told == dict.fromkeys(uids, 0x0213) | {"1.2.826.404": 0x0112}
    assert {item.ReferencedSOPClassUID for item in reports[0].FailedSOPSequence} == {CTImageStorage}

    def completed() -> bool:
        with open_database(tmp_path / "state" / "appliance.db", read_only=True) as store:
            return [scan.completion_reason for scan in store.scans.last()] == ["mpps"]

    until(completed)
    written = (tmp_path / "log").read_text().lower()
    assert "reason=mpps" in written or '"reason": "mpps"' in written
    assert "canary" not in written
    assert "1.2.826" not in written
