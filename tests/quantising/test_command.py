"""``appliance packs quantize`` as a person types it."""

import json

import pytest
from click.testing import CliRunner

from appliance.cli import main
from tests.quantising.conftest import scan, sound, write_scan


@pytest.fixture
def call(tmp_path):
    (tmp_path / "box.toml").write_text(f'[box]\nstate_directory = "{tmp_path / "state"}"\n')
    return lambda *arguments: CliRunner().invoke(main, [*map(str, arguments), "--config", str(tmp_path / "box.toml")])


@pytest.mark.slow
def test_from_a_pack_to_its_report(call, pack_of, scans, tmp_path):
    pytest.importorskip("nncf", reason="the extra `import` is not installed, so nothing can be quantised")
    pack = pack_of(sound)
    options = ("--calibrate", scans, "--out", tmp_path / "out", "--minimum-gain", "-10", "--threads", "1")
    made = call("packs", "quantize", pack.path, *options)
    assert made.exit_code == 0, made.output
    assert "small 1.0.1" in made.output
    assert "int8: attempt 1, 0 of 4 layers in single precision: nothing fell" in made.output
    shown = call("packs", "show", tmp_path / "out").output
    assert "gate, int8: bone passed on 2 scans: Dice against f32" in shown
    assert "gate, int8: NOT JUDGED, for no gate scan shows enough of it: airways" in shown
    (first, _) = json.loads(call("packs", "show", tmp_path / "out", "--json").output)["gates"]
    assert (first["precision"], first["margins"]["maximum_dice_drop"]) == ("int8", 0.01)
    # A report names no file: a scan's name may be a patient's.
    assert (
        "scan_" not in (tmp_path / "out" / "pack.toml").read_text() + (tmp_path / "out" / "MODEL_CARD.md").read_text()
    )


def test_one_scan_is_refused_with_a_sentence(call, pack_of, tmp_path):
    path = write_scan(tmp_path / "a.nii.gz", scan(1))
    refused = call("packs", "quantize", pack_of(sound).path, "--calibrate", path, "--out", tmp_path / "out")
    assert refused.exit_code == 4
    assert "Two scans at least are needed" in refused.output
    assert not (tmp_path / "out").exists()


def test_a_wrong_version_is_refused(call, pack_of, scans, tmp_path):
    refused = call(
        "packs", "quantize", pack_of(sound).path, "--calibrate", scans, "--out", tmp_path / "out", "--version", "1.1"
    )
    assert refused.exit_code == 2
    assert "write three numbers" in refused.output


def test_the_same_scan_on_both_sides_is_refused(call, pack_of, scans, tmp_path):
    pack, one = pack_of(sound).path, scans / "scan_1.nii.gz"
    refused = call("packs", "quantize", pack, "--calibrate", scans, "--gate", one, "--out", tmp_path / "out")
    assert refused.exit_code == 4
    assert "to calibrate and to judge" in refused.output


def test_without_nncf_it_says_what_to_install(call, pack_of, scans, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "nncf", None)
    refused = call("packs", "quantize", pack_of(sound).path, "--calibrate", scans, "--out", tmp_path / "out")
    assert refused.exit_code == 4
    assert "Quantising needs NNCF" in refused.output
