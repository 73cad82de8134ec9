"""What was measured on this box decides what "auto" means on it, as long as it is the same box."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from appliance.anatomy.mapper import network_labels
from appliance.cli import main
from appliance.config import Settings
from appliance.packs import measured as measured_module
from appliance.packs.bench import bench, tiles_of_a_trunk, ways
from appliance.packs.manifest import MANIFEST
from appliance.packs.measured import FILE, Bench, Measured, keep, machine, measured
from appliance.packs.pack import load
from appliance.packs.runtime import Computing, open_tested
from appliance.scan import Volume
from tests.packs.conftest import expect_nonsense, replace_file


def way(seconds, **changes):
    facts = {"engine": "openvino", "device": "CPU", "precision": "f32", "threads": 0, "patch": (32, 32, 32)}
    return Measured(**{**facts, **changes}, seconds_per_tile=seconds, seconds_per_scan=seconds * 10, agreement=1.0)


def found(*items, **changes):
    return Bench(**{"machine": machine(), "at": datetime.now(UTC), "tiles": 3, "ways": items, **changes})


def gated(*precisions):
    return SimpleNamespace(automatic=lambda _engine: precisions)


ALL = gated("int8", "bf16", "f32")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "state" / "packs"


def test_the_quickest_usable_way_is_taken():
    quick_but_wrong = way(0.1).model_copy(update={"problem": "0.5000 of the labels agree, 0.9800 needed"})
    assert found(way(0.3), way(0.2, precision="bf16"), quick_but_wrong).fastest(ALL).precision == "bf16"


def test_the_settings_narrow_the_choice():
    both = found(way(0.2, engine="onnxruntime"), way(0.3), way(0.1, precision="int8", threads=4))
    assert both.fastest(ALL, engine="onnxruntime").seconds_per_tile == 0.2
    assert both.fastest(ALL, precision="f32").engine == "onnxruntime"
    assert both.fastest(ALL, threads=2) is None
    assert both.fastest(ALL, device="GPU") is None


def test_a_precision_that_failed_its_gate_is_taken_only_where_the_settings_ask_for_it():
    both = found(way(0.1, precision="int8"), way(0.3))
    assert both.fastest(gated("f32")).precision == "f32"
    assert both.fastest(gated("f32"), precision="int8").precision == "int8"


def test_what_is_kept_is_found_again(root):
    keep(root, "sha256:1", found(way(0.2)))
    keep(root, "sha256:2", found(way(0.3)))
    assert measured(root, "sha256:1").fastest(ALL).seconds_per_tile == 0.2
    assert measured(root, "sha256:3") is None


def test_nothing_was_measured_where_there_is_no_folder(root):
    assert measured(None, "sha256:1") is None
    assert measured(root, "sha256:1") is None


def test_another_machine_or_version_makes_it_worthless(root, monkeypatch):
    keep(root, "sha256:1", found(way(0.2)))
    monkeypatch.setattr(measured_module, "version", lambda name: "2099.1")
    with capture_logs() as logs:
        assert measured(root, "sha256:1") is None
    assert [entry["event"] for entry in logs] == ["bench_stale"]
    keep(root, "sha256:2", found(way(0.3)))
    assert set(json.loads((root / FILE).read_text())["packs"]) == {"sha256:2"}


def test_a_damaged_file_counts_for_nothing_and_is_mended(root):
    keep(root, "sha256:1", found(way(0.2)))
    (root / FILE).write_text("{")
    with capture_logs() as logs:
        assert measured(root, "sha256:1") is None
    assert [entry["event"] for entry in logs] == ["bench_unreadable"]
    keep(root, "sha256:1", found(way(0.2)))
    assert measured(root, "sha256:1") is not None


def test_a_pack_is_measured(make_pack):
    pack = load(make_pack())
    seen = []
    result = bench(pack, Computing(threads=2), tiles=1, on_way=seen.append)
    (only,) = result.ways
    assert seen == [only]
    assert only.problem == ""
    assert only.agreement == 1.0
    tiles = tiles_of_a_trunk(pack, (32, 32, 32))
    # Both are rounded, a tile's seconds to four places: of a network as small as this one, that is much of them.
    assert only.seconds_per_scan == pytest.approx(only.seconds_per_tile * tiles, abs=0.00006 * tiles + 0.001)


def test_a_way_that_computes_what_it_should_not_is_no_choice(make_pack):
    folder = make_pack()
    expect_nonsense(folder)
    pack = load(folder)
    result = bench(pack, Computing(), tiles=1)
    assert "of the labels agree" in result.ways[0].problem
    assert result.fastest(pack) is None


def test_a_damaged_network_is_a_problem_and_no_crash(make_pack):
    folder = make_pack()
    replace_file(folder, "network.xml", b"nonsense")
    (only,) = bench(load(folder), Computing(engine="openvino"), tiles=1).ways
    assert "cannot be run" in only.problem


def test_devices_that_are_not_there_are_no_ways(make_pack):
    assert {item.device for item in ways(load(make_pack()), Computing())} <= {"CPU", "GPU", "NPU"}
    assert list(ways(load(make_pack("99.0.1")), Computing(precision="int8"))) == []


def with_patches(folder, patches):
    path = folder / MANIFEST
    path.write_text(path.read_text().replace("patch = [32, 32, 32]", f"patch = [32, 32, 32]\npatches = {patches}"))
    return load(folder)


def test_every_shape_of_a_tile_is_measured(make_pack):
    pack = with_patches(make_pack(), "[[48, 48, 48], [16, 16, 16]]")
    result = bench(pack, Computing(threads=2), tiles=1)
    assert [item.patch for item in result.ways] == [(32, 32, 32), (48, 48, 48), (16, 16, 16)]
    assert [item.problem for item in result.ways] == ["", "", ""]


def test_what_was_measured_is_how_a_pack_is_opened(make_pack, root):
    pack = with_patches(make_pack(), "[[48, 48, 48]]")
    keep(root, pack.digest, found(way(0.1, patch=(48, 48, 48)), way(0.2)))
    opened = open_tested(pack, Computing(measured=root))
    assert opened.engine().patch == (48, 48, 48)
    assert opened.self_test == 1.0
    logits = opened.engine().run(np.zeros((48, 48, 48), np.int16))
    assert logits.shape == (len(pack.structures) + 1, 48, 48, 48)


def test_each_scan_takes_the_measured_tile_that_fits_it(make_pack, root):
    pack = with_patches(make_pack(), "[[48, 48, 48], [64, 64, 64]]")
    wrong = way(0.01, patch=(64, 64, 64)).model_copy(update={"problem": "0.5 of the labels agree"})
    keep(root, pack.digest, found(way(4.0, patch=(48, 48, 48)), way(1.0), way(9.0, threads=3), wrong))
    engine = open_tested(pack, Computing(measured=root, precision="f32", threads=0)).engine()
    patches = []
    for size in (48, 32, 84):
        affine = np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
        network_labels(Volume(np.zeros((size, size, size), np.int16), affine), pack, engine)
        patches.append(engine.patch)
    # One of 48 for 4 s or eight of 32 for 8 s; one of 32; eight of 48 for 32 s or 64 of 32.
    assert patches == [(48, 48, 48), (32, 32, 32), (48, 48, 48)]


def test_a_measured_way_that_is_not_there_any_more_is_replaced_by_the_usual_one(make_pack, root):
    pack = load(make_pack())
    keep(root, pack.digest, found(way(0.1, patch=(33, 0, 1))))
    with capture_logs() as logs:
        assert open_tested(pack, Computing(measured=root)).engine().patch == (32, 32, 32)
    assert "measured_way_not_usable" in [entry["event"] for entry in logs]


def test_the_command_measures_prints_and_keeps(make_pack, tmp_path):
    folder = make_pack()
    settings = tmp_path / "appliance.toml"
    settings.write_text(f'[box]\nstate_directory = "{tmp_path / "state"}"\n[packs]\nkeys = ["{tmp_path / "keys"}"]\n')
    done = CliRunner().invoke(
        main, ["packs", "bench", str(folder), "--tiles", "1", "--json", "--config", str(settings)]
    )
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert row["kept"]
    assert row["chosen"]["engine"] == "openvino"
    assert measured(tmp_path / "state" / "packs", row["digest"]) is not None


def test_an_installation_measures(make_pack, tmp_path):
    settings = tmp_path / "appliance.toml"
    settings.write_text(f'[box]\nstate_directory = "{tmp_path / "state"}"\n[packs]\nkeys = ["{tmp_path / "keys"}"]\n')
    done = CliRunner().invoke(main, ["packs", "install", str(make_pack()), "--config", str(settings)])
    assert done.exit_code == 0, done.output
    assert re.search(r"runs here with openvino, f32, CPU, all threads, tiles of 32×32×32: \d", done.output)
    assert measured(tmp_path / "state" / "packs", load(make_pack("99.0.1")).digest) is None


def test_compiled_networks_are_kept_in_the_state_directory_where_there_is_one(tmp_path):
    def cache(**work):
        tree = {"box": {"state_directory": str(tmp_path / "state")}, "work": work}
        return Computing.from_settings(Settings.model_validate(tree)).cache

    assert cache() is None
    assert cache(compiled="/var/cache/compiled") == Path("/var/cache/compiled")
    (tmp_path / "state").mkdir()
    assert cache() == tmp_path / "state" / "compiled"
    assert cache(compiled="elsewhere") == tmp_path / "state" / "elsewhere"
