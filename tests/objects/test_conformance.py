"""Objects of every kind of source pass dciodvfy, are read by dcmtk, and are taken and listed by a real Orthanc."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pydicom
import pytest

from tests.machine import free_port

pytestmark = pytest.mark.slow

NAMES = {
    "segmentation-1.dcm",
    "report.dcm",
    "summary.dcm",
    "key-objects.dcm",
    "capture-summary.dcm",
    "capture-liver_fat.dcm",
    "capture-vertebral_fracture.dcm",
    "capture-kidney_stone.dcm",
}


def test_all_objects_are_there(variant):
    assert {path.name for path in variant.objects} == NAMES


def test_dciodvfy_finds_no_error(variant):
    for path in variant.objects:
        done = subprocess.run(["dciodvfy", path], capture_output=True, check=False)
        said = done.stderr.decode(errors="replace")
        assert "Error" not in said, f"{path.name}: {said}"
        assert done.returncode == 0


def test_dcmtk_reads_the_report(variant):
    path = variant.folder / "objects" / "report.dcm"
    done = subprocess.run(["dsrdump", "+Pc", path], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(errors="replace")
    assert "Comprehensive 3D SR Document" in text
    assert "UNVERIFIED" in text.upper()
    for line in ("Region not covered", "Vertebral fracture screening", "Mean Attenuation Coefficient", "31.25"):
        assert line in text


def test_dcmtk_reads_the_key_objects(plain):
    path = plain.folder / "objects" / "key-objects.dcm"
    done = subprocess.run(["dsrdump", "+Pc", path], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(errors="replace")
    assert "Key Object Selection Document" in text
    assert "Of Interest" in text
    assert text.count("<contains IMAGE:") == 1 + 4  # the slice of all three findings, and the pictures


def test_the_document_is_a_page_of_pdf(plain):
    ds = plain.read("summary")
    document = ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]
    assert document.startswith(b"%PDF-")
    assert document.rstrip().endswith(b"%%EOF")
    assert (ds.BurnedInAnnotation, ds.VerificationFlag) == ("YES", "UNVERIFIED")
    assert "not reviewed" in ds.DocumentTitle


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


@pytest.fixture
def orthanc(tmp_path):
    """A real archive on free ports: its DICOM port and its REST address."""
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(program).exists():
        pytest.skip("Orthanc is not installed")
    dicom, http = free_port(), free_port()
    file = tmp_path / "orthanc.json"
    file.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "store"),
                "IndexDirectory": str(tmp_path / "store"),
                "DicomPort": dicom,
                "HttpPort": http,
                "RemoteAccessAllowed": False,
                "Plugins": [],
            }
        )
    )
    running = subprocess.Popen([program, file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{http}"
    try:
        for _ in range(600):
            try:
                get(f"{url}/system")
                break
            except (urllib.error.URLError, ConnectionError):
                assert running.poll() is None
                time.sleep(0.1)
        yield dicom, url
    finally:
        running.terminate()
        running.wait(60)


def test_orthanc_takes_lists_and_shows_them(plain, orthanc):
    port, url = orthanc
    paths = [*plain.files, *plain.objects]
    subprocess.run(["storescu", "-R", "127.0.0.1", str(port), *paths], check=True, capture_output=True)
    assert len(json.loads(get(f"{url}/studies"))) == 1
    listed = {}
    for name in json.loads(get(f"{url}/instances")):
        tags = json.loads(get(f"{url}/instances/{name}/simplified-tags"))
        listed[tags["SOPInstanceUID"]] = name
    for path in plain.objects:
        ds = pydicom.dcmread(path)
        name = listed[ds.SOPInstanceUID]
        assert get(f"{url}/instances/{name}/file")[128:132] == b"DICM"
        if "PixelData" in ds:
            assert get(f"{url}/instances/{name}/preview")[1:4] == b"PNG"
