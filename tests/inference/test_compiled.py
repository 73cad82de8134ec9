"""Compiled networks on the disk: used when they are whole, and never in the way."""

import os
import time

import numpy as np
import pytest
from structlog.testing import capture_logs

from appliance.inference import compiled
from appliance.inference.compiled import CompiledNetworks
from appliance.inference.engines import open_engine

FACTS = {"pack": "sha256:1", "network": "a.xml", "device": "CPU", "precision": "f32"}


@pytest.fixture
def kept(tmp_path):
    return CompiledNetworks(tmp_path / "compiled", "2026.4")


def events(logs):
    return [entry["event"] for entry in logs]


def test_what_was_written_is_read(kept):
    kept.write(FACTS, b"blob")
    assert kept.read(FACTS) == b"blob"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for somebody else")
def test_what_root_compiles_the_services_can_read(kept, tmp_path):
    os.chown(tmp_path, 1234, 1235)
    kept.write(FACTS, b"blob")
    for path in (kept.path(FACTS), kept.path(FACTS).parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_nothing_was_written(kept):
    with capture_logs() as logs:
        assert kept.read(FACTS) is None
    assert logs == []


@pytest.mark.parametrize("fact", list(FACTS))
def test_another_network_is_another_file(kept, fact):
    kept.write(FACTS, b"blob")
    assert kept.read({**FACTS, fact: "other"}) is None


def test_another_version_of_the_engine_compiles_anew_and_the_old_goes(kept, tmp_path):
    kept.write(FACTS, b"old")
    newer = CompiledNetworks(tmp_path / "compiled", "2027.1")
    assert newer.read(FACTS) is None
    newer.write(FACTS, b"new")
    assert kept.read(FACTS) is None


def test_another_processor_compiles_anew(kept, tmp_path, monkeypatch):
    kept.write(FACTS, b"blob")
    monkeypatch.setattr(compiled, "processor", lambda: "another one")
    assert CompiledNetworks(tmp_path / "compiled", "2026.4").read(FACTS) is None


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 100])
def test_a_damaged_file_is_not_used_and_goes(kept, content):
    kept.write(FACTS, b"blob")
    kept.path(FACTS).write_bytes(content)
    with capture_logs() as logs:
        assert kept.read(FACTS) is None
    assert events(logs) == ["compiled_cache_damaged"]
    assert not kept.path(FACTS).exists()


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    kept = CompiledNetworks(tmp_path / "file" / "compiled", "2026.4")
    with capture_logs() as logs:
        kept.write(FACTS, b"blob")
    assert events(logs) == ["compiled_cache_unusable"]


def test_a_full_disk_costs_a_warning_and_leaves_no_piece(kept, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled.Path, "replace", full)
    with capture_logs() as logs:
        kept.write(FACTS, b"blob")
    assert events(logs) == ["compiled_cache_unusable"]
    assert list(kept.path(FACTS).parent.iterdir()) == []


def test_the_least_recently_used_go_when_there_are_too_many(tmp_path):
    kept = CompiledNetworks(tmp_path, "2026.4", most_bytes=300)
    for number in range(4):
        kept.write({"pack": number}, b"x" * 100)
        os.utime(kept.path({"pack": number}), (0, time.time() - 100 + number))
    kept.write({"pack": 4}, b"x" * 100)
    assert [kept.read({"pack": number}) is not None for number in range(5)] == [False, False, False, True, True]


def test_what_nobody_used_for_long_goes(kept):
    kept.write(FACTS, b"blob")
    os.utime(kept.path(FACTS), (0, time.time() - 100 * 86400))
    kept.write({"pack": 2}, b"blob")
    assert kept.read(FACTS) is None


def test_a_network_from_the_disk_gives_the_same_labels(pack, tile, tmp_path):
    first = open_engine(pack, engine="openvino", precision="f32", threads=2, cache=tmp_path)
    expected = first.run(tile).copy()
    assert len(list(tmp_path.iterdir())) == 1
    second = open_engine(pack, engine="openvino", precision="f32", threads=2, cache=tmp_path)
    assert second.precision == "f32"
    assert np.array_equal(second.run(tile), expected)


def test_a_precision_is_kept_apart(pack, tmp_path):
    for precision in ("f32", "bf16"):
        open_engine(pack, engine="openvino", precision=precision, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_the_engine_refuses_is_compiled_anew(pack, tmp_path):
    open_engine(pack, engine="openvino", precision="f32", cache=tmp_path)
    (path,) = tmp_path.iterdir()
    import hashlib

    path.write_bytes(hashlib.sha256(b"no network").digest() + b"no network")
    with capture_logs() as logs:
        open_engine(pack, engine="openvino", precision="f32", cache=tmp_path)
    assert "compiled_network_not_taken" in events(logs)
    assert path.stat().st_size > 1000


def test_an_unwritable_cache_does_not_keep_a_network_from_running(pack, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert open_engine(pack, engine="openvino", precision="f32", cache=tmp_path / "file").precision == "f32"
