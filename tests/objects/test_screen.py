"""What a screening leaves in its folder: the report first, the objects last, neither at the cost of the other."""

from __future__ import annotations

import json
import os
import subprocess

import pydicom
import pytest

from appliance import screen
from appliance.results.missing import read_missing
from appliance.results.objects import write
from tests.objects.conftest import settings_of


def leave(case, folder):
    screen._write(folder, case.report, case.scan, case.organs, case.files, settings_of())
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_objects_lie_beside_the_report(plain, tmp_path):
    assert len(leave(plain, tmp_path)["screenings"]) == len(plain.report.screenings)
    assert {path.name for path in (tmp_path / "objects").iterdir()} == {path.name for path in plain.objects}


def test_objects_that_cannot_be_made_cost_no_report_and_are_noted(plain, tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("Zhang^San")

    monkeypatch.setattr(write, "read_source", broken)
    assert leave(plain, tmp_path)["screenings"]
    assert (tmp_path / "key_images" / "liver_fat.png").exists()
    assert not list(tmp_path.rglob("*.dcm"))
    assert {item.kind for item in read_missing(tmp_path)} == {"sr", "seg", "capture", "pdf", "ko"}
    assert "Zhang" not in "".join(path.read_text() for path in tmp_path.glob("missing*"))


def test_half_an_object_is_not_left_behind_and_its_kind_is_noted(plain, tmp_path, monkeypatch):
    whole = write.save

    def broken(ds, path):
        if path.name.startswith("segmentation"):
            path.write_bytes(b"half")
            raise ValueError
        whole(ds, path)

    monkeypatch.setattr(write, "save", broken)
    leave(plain, tmp_path)
    assert {path.name for path in plain.objects} - {path.name for path in tmp_path.rglob("*.dcm")} == {
        "segmentation-1.dcm"
    }
    assert [(item.kind, item.error) for item in read_missing(tmp_path)] == [("seg", "ValueError")]


def test_a_disk_that_fills_while_objects_are_written_is_no_result_without_objects(plain, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    full = tmp_path / "full"
    full.mkdir()
    size = sum(path.stat().st_size for path in plain.objects) // 2
    options = ["-t", "tmpfs", "-o", f"size={size}"]
    if subprocess.run(["mount", *options, "tmpfs", full], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        with pytest.raises(OSError, match="No space left on device"):
            leave(plain, full)
        assert (full / "report.json").exists()
        assert not (full / "missing_objects.json").exists()
        for path in (full / "objects").iterdir():
            pydicom.dcmread(path)  # what is there is whole
    finally:
        subprocess.run(["umount", "--lazy", full], check=True)
