"""What a screening leaves in its folder: the report first, the objects last, neither at the cost of the other."""

from __future__ import annotations

import json

from appliance import screen
from appliance.results.objects import write
from tests.objects.conftest import settings_of


def leave(case, folder):
    screen._write(folder, case.report, case.scan, case.organs, case.files, settings_of())
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_objects_lie_beside_the_report(plain, tmp_path):
    assert len(leave(plain, tmp_path)["screenings"]) == len(plain.report.screenings)
    assert {path.name for path in (tmp_path / "objects").iterdir()} == {path.name for path in plain.objects}


def test_objects_that_cannot_be_made_cost_no_report(plain, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "read_source", broken)
    assert leave(plain, tmp_path)["screenings"]
    assert (tmp_path / "key_images" / "liver_fat.png").exists()
    assert not list(tmp_path.rglob("*.dcm"))


def test_half_an_object_is_not_left_behind(plain, tmp_path, monkeypatch):
    def full(ds, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "save", full)
    leave(plain, tmp_path)
    assert not list(tmp_path.rglob("*.dcm"))
