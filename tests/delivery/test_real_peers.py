"""The real things: Orthanc as the archive, dcmtk over TLS, and the objects that the appliance makes itself."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread

from appliance.delivery.outbox_worker import settle
from appliance.dicom.network.sender import echo
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.delivery.conftest import BOX, PACS
from tests.machine import free_port, wait_until
from tests.objects.conftest import case_of
from tests.receive.test_tls import authority, certificate, files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"


BASIC = f"Basic {base64.b64encode(b'box:s3cret').decode()}"
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture
def orthanc_settings() -> dict[str, Any]:
    """Give what a test's Orthanc has in its configuration besides what every one has."""
    return {}


@pytest.fixture
def orthanc(tmp_path: Path, orthanc_settings: dict[str, Any]) -> Iterator[tuple[int, Callable[[str], Any]]]:
    """Give the DICOM port of an Orthanc, and a reader of its REST interface; DICOMweb is below /dicom-web there."""
    if not Path(ORTHANC).exists():
        pytest.skip("Orthanc is not installed")
    dicom, http, folder = free_port(), free_port(), tmp_path / "orthanc"
    folder.mkdir()
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "DicomAet": PACS, "DicomPort": dicom, "DicomCheckCalledAet": True, "HttpPort": http,
                "StorageDirectory": str(folder), "IndexDirectory": str(folder), "RemoteAccessAllowed": False,
                "OverwriteInstances": False, "Plugins": [str(DICOMWEB)] if DICOMWEB.exists() else [],
                "AuthenticationEnabled": True, "RegisteredUsers": {"box": "s3cret"},
                **orthanc_settings,
            }
        )
    )  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)

    def get(path: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{http}{path}", headers={"Authorization": BASIC})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    get.base = f"http://127.0.0.1:{http}"  # type: ignore[attr-defined]
    get.url = f"http://127.0.0.1:{http}/dicom-web"  # type: ignore[attr-defined]

    wait_until(lambda: echo(host="127.0.0.1", port=dicom, called_ae=PACS, calling_ae=BOX, timeout_s=5).ok, "Orthanc")
    yield dicom, get
    process.kill()
    process.wait()


def held(get: Callable[[str], Any]) -> list[str]:
    """Return the SOP Instance UIDs that Orthanc holds, in order."""
    return sorted(get(f"/instances/{name}/simplified-tags")["SOPInstanceUID"] for name in get("/instances"))


@pytest.mark.slow
def test_the_objects_of_the_test_patient_are_in_orthanc_once_however_often_they_are_sent(
    screen, courier, orthanc, store, results, tmp_path
):
    port, get = orthanc
    scan_id, _ = screen(())
    folder = results / store.scans.get(scan_id).folder / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    for path in case_of(tmp_path / "case").objects:
        shutil.copy(path, folder)
    uids = sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir())
    courier(port).round()
    settle(store)
    assert store.scans.get(scan_id).state is ScanState.DONE
    assert held(get) == uids
    again = store.outbox.of_scan(scan_id)[0].payload
    store.outbox.put("pacs/pacs/again", "pacs", again, destination="pacs")
    courier(port).round()
    assert store.outbox.get("pacs/pacs/again").state is OutboxState.DONE
    assert held(get) == uids


@pytest.mark.slow
@pytest.mark.skipif(not DICOMWEB.exists(), reason="Orthanc's DICOMweb plugin is not installed")
def test_orthanc_takes_the_same_objects_over_stow_once_however_often_they_are_sent(
    screen, stow, orthanc, store, results, tmp_path
):
    _, get = orthanc
    scan_id, _ = screen(())
    folder = results / store.scans.get(scan_id).folder / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    for path in case_of(tmp_path / "case").objects:
        shutil.copy(path, folder)
    uids = sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir())
    password = tmp_path / "password"
    password.write_text("wrong")
    password.chmod(0o600)
    stow(get.url, username="box", secret_file=password).round()
    settle(store)
    assert "(HTTP 401): correct username and secret_file" in store.scans.get(scan_id).reason.text
    password.write_text("s3cret")
    store.scans.retry(scan_id)
    stow(get.url + "x", username="box", secret_file=password).round()
    settle(store)
    assert "There is no STOW-RS at" in store.scans.get(scan_id).reason.text
    store.scans.retry(scan_id)
    right = stow(get.url, username="box", secret_file=password)
    right.round()
    settle(store)
    assert store.scans.get(scan_id).state is ScanState.DONE
    assert held(get) == uids
    again = store.outbox.of_scan(scan_id)[0].payload
    store.outbox.put("pacs/pacs/again", "pacs", again, destination="pacs")
    right.round()
    assert store.outbox.get("pacs/pacs/again").state is OutboxState.DONE
    assert held(get) == uids


@pytest.mark.slow
def test_orthanc_under_another_title_parks_with_the_setting(screen, courier, orthanc, store):
    port, _ = orthanc
    scan_id, _ = screen()
    courier(port, ae_title="WRONG").round()
    (entry,) = store.outbox.of_scan(scan_id)
    assert entry.state is OutboxState.PARKED
    assert "does not answer to AE title WRONG" in entry.reason


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("site", "stranger"):
        authority(folder, name)
    for name in ("box", "pacs"):
        certificate(folder, name, "site")
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    return folder


@pytest.fixture
def storescp_tls(certificates: Path, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    if not shutil.which("storescp"):
        pytest.skip("dcmtk is not installed")
    folder, port = tmp_path / "storescp", free_port()
    folder.mkdir()
    keys = [
        "+tls",
        str(certificates / "pacs.key"),
        str(certificates / "pacs.pem"),
        "+cf",
        str(certificates / "site.pem"),
    ]
    process = subprocess.Popen(["storescp", *keys, "-aet", PACS, "-od", str(folder), str(port)])
    own = files(certificates, "box")
    wait_until(
        lambda: echo(host="127.0.0.1", port=port, called_ae=PACS, calling_ae=BOX, tls=own, timeout_s=5).ok, "storescp"
    )
    yield port, folder
    process.terminate()
    process.wait()


def test_objects_go_over_tls(screen, courier, storescp_tls, certificates, store):
    port, folder = storescp_tls
    _, uids = screen()
    courier(port, tls=files(certificates, "box")).round()
    assert {str(dcmread(path).SOPInstanceUID) for path in folder.iterdir()} == uids


def test_a_peer_that_we_do_not_trust_is_asked_again(screen, courier, storescp_tls, certificates, store):
    scan_id, _ = screen()
    courier(storescp_tls[0], tls=files(certificates, "box", trusted="stranger")).round()
    (entry,) = store.outbox.of_scan(scan_id)
    assert entry.state is OutboxState.WAITING
    assert "TLS on both sides" in entry.reason


def test_tls_files_that_are_missing_are_told_and_tried_again(screen, courier, pacs, store, tmp_path):
    scan_id, _ = screen()
    courier(pacs.port, tls=files(tmp_path, "box")).round()
    (entry,) = store.outbox.of_scan(scan_id)
    assert entry.state is OutboxState.WAITING
    assert "cannot be used as certificate and key" in entry.reason
