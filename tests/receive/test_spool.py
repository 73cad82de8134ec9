"""The spool's two sides, without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from appliance.dicom.spool import (
    CloseReason,
    Opened,
    Room,
    Spool,
    SpoolError,
    list_set_aside,
    new_association_name,
    read_association,
)
from appliance.durable import write_durably
from tests.receive.conftest import eventually, list_associations

if TYPE_CHECKING:
    from pathlib import Path

OPENED = Opened("SCANNER", "APPLIANCE", "10.1.2.3", "2026-01-02T03:04:05.000+00:00", 42)

DAMAGED_ENDS = [
    b'{"reason": "released", "instances": 1, "time": "yesterday"}',
    b'{"reason": "released", "instances": 1, "time": "2026-01-02T03:04:05"}',
    b'{"reason": "released", "instances": 1, "time": null}',
    b'{"reason": "released", "instances": 1, "time": 17}',
    b'{"reason": "released", "instances": Infinity, "time": "2026-01-02T03:04:05+00:00"}',
]


def test_an_empty_spool_lists_nothing(tmp_path: Path) -> None:
    assert list_associations(tmp_path) == list_set_aside(tmp_path) == []


def test_written_is_read(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        folder = spool.open_folder(Room.ASSOCIATIONS, "one", OPENED)
        first = folder.store(b"header", b"data")
        folder.store(b"more")
        folder.close(CloseReason.RELEASED)
    (found,) = list_associations(tmp_path)
    assert found.opened == OPENED
    assert found.closed is not None
    assert (found.closed.reason, found.closed.instances) == (CloseReason.RELEASED, 2)
    assert [path.name for path in found.instances] == ["000001.dcm", "000002.dcm"]
    assert first.read_bytes() == b"headerdata"


def test_an_open_association_is_not_closed(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED).store(b"data")
        (found,) = list_associations(tmp_path)
    assert found.closed is None


def test_the_rooms_are_apart(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASIDE, "one", OPENED).store(b"data")
    assert list_associations(tmp_path) == []
    assert [each.name for each in list_set_aside(tmp_path)] == ["one"]


def test_a_folder_is_never_used_twice(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED).store(b"data")
        with pytest.raises(FileExistsError):
            spool.open_folder(Room.ASSOCIATIONS, "one", OPENED)
    assert [path.read_bytes() for path in list_associations(tmp_path)[0].instances] == [b"data"]


def test_names_do_not_repeat() -> None:
    assert len({new_association_name() for _ in range(1000)}) == 1000


def test_nothing_stored_leaves_nothing(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED).close(CloseReason.RELEASED)
    assert list((tmp_path / "associations").iterdir()) == []


def test_order_is_that_of_arrival(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        folder = spool.open_folder(Room.ASSOCIATIONS, "one", OPENED)
        for number in range(12):
            folder.store(b"%d" % number)
    assert [path.read_bytes() for path in list_associations(tmp_path)[0].instances] == [b"%d" % n for n in range(12)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"reason": "eaten"}', b"\xff\xfe", *DAMAGED_ENDS])
def test_damaged_descriptions_do_not_hide_instances(tmp_path: Path, content: bytes) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED).store(b"data")
    for name in ("association.json", "closed.json"):
        (tmp_path / "associations" / "one" / name).write_bytes(content)
    (found,) = list_associations(tmp_path)
    assert (found.opened, found.closed) == (None, None)
    assert len(found.instances) == 1


def test_stray_files_are_passed_over(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED).store(b"data")
    (tmp_path / "associations" / "README").write_text("not a folder")
    (tmp_path / "associations" / "one" / "000002.dcm.part").write_bytes(b"half")
    (found,) = list_associations(tmp_path)
    assert len(found.instances) == 1


def test_a_vanished_folder_is_none(tmp_path: Path) -> None:
    assert read_association(tmp_path / "gone") is None


# --- after a crash ------------------------------------------------------------------------------------------


def test_dead_associations_are_closed(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED).store(b"data")
        spool.open_folder(Room.ASIDE, "one", OPENED).store(b"data")
    with Spool(tmp_path) as spool:
        assert spool.recover() == 2
    for (found,) in (list_associations(tmp_path), list_set_aside(tmp_path)):
        assert found.closed is not None
        assert (found.closed.reason, found.closed.instances) == (CloseReason.RECEIVER_RESTARTED, 1)


def test_unfinished_files_are_deleted(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED).store(b"data")
    half = tmp_path / "associations" / "one" / "000002.dcm.part"
    half.write_bytes(b"half")
    with Spool(tmp_path) as spool:
        spool.recover()
    assert not half.exists()
    assert len(list_associations(tmp_path)[0].instances) == 1


def test_folders_without_instances_are_removed(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED)
    with Spool(tmp_path) as spool:
        assert spool.recover() == 0
    assert list_associations(tmp_path) == []


def test_closed_associations_are_left_alone(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        folder = spool.open_folder(Room.ASSOCIATIONS, "one", OPENED)
        folder.store(b"data")
        folder.close(CloseReason.ABORTED)
    before = list_associations(tmp_path)
    with Spool(tmp_path) as spool:
        assert spool.recover() == 0
    assert list_associations(tmp_path) == before


@pytest.mark.parametrize("content", [b'{"reason": "rele', *DAMAGED_ENDS])
def test_a_damaged_end_is_written_again(tmp_path: Path, content: bytes) -> None:
    with Spool(tmp_path) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", OPENED).store(b"data")
    (tmp_path / "associations" / "one" / "closed.json").write_bytes(content)
    with Spool(tmp_path) as spool:
        assert spool.recover() == 1
    found = list_associations(tmp_path)[0]
    assert found.closed is not None
    assert datetime.fromisoformat(found.closed.time).tzinfo is not None


def test_a_folder_that_cannot_be_closed_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Spool(tmp_path) as spool:
        for name in ("one", "two"):
            spool.open_folder(Room.ASSOCIATIONS, name, OPENED).store(b"data")

    def full(path: Path, data: bytes) -> None:
        if path.parent.name == "one":
            raise OSError(28, "No space left on device")
        write_durably(path, data)

    with Spool(tmp_path) as spool:
        with monkeypatch.context() as patched:
            patched.setattr("appliance.dicom.spool.write_durably", full)
            assert (spool.recover(), len(spool.unrecovered)) == (1, 1)
        assert (spool.recover_rest(), spool.unrecovered) == (1, [])
    assert all(found.closed is not None for found in list_associations(tmp_path))


# --- one receiver -------------------------------------------------------------------------------------------


def test_a_second_receiver_is_turned_away(tmp_path: Path) -> None:
    with Spool(tmp_path), pytest.raises(SpoolError, match="another receiver"):
        Spool(tmp_path)


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    script = "import sys, time, pathlib; from appliance.dicom.spool import Spool; "
    script += "spool = Spool(pathlib.Path(sys.argv[1])); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    eventually((tmp_path / "receiver.lock").exists)
    holder.kill()
    holder.wait()
    Spool(tmp_path).close()


# --- small files --------------------------------------------------------------------------------------------


def test_a_durable_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_durably(path, b"old")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_durably(path, b"old")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("call", ["fsync", "rename", "write"])
def test_a_failed_instance_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with Spool(tmp_path) as spool:
        folder = spool.open_folder(Room.ASSOCIATIONS, "one", OPENED)
        folder.store(b"good")
        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            with pytest.raises(OSError, match="No space"):
                folder.store(b"bad")
        third = folder.store(b"good again")
        folder.close(CloseReason.RELEASED)
    (found,) = list_associations(tmp_path)
    assert [path.read_bytes() for path in found.instances] == [b"good", b"good again"]
    assert third.name == "000003.dcm"
    assert {each.suffix for each in found.path.iterdir()} == {".dcm", ".json"}


def test_success_follows_the_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("write", "fsync", "rename"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _real=real, _name=name, **k: (calls.append(_name), _real(*a, **k))[1])
    with Spool(tmp_path) as spool:
        folder = spool.open_folder(Room.ASSOCIATIONS, "one", OPENED)
        calls.clear()
        folder.store(b"data")
    assert calls == ["write", "fsync", "rename", "fsync"]


def test_description_is_there_before_the_first_instance(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        folder = spool.open_folder(Room.ASSOCIATIONS, "one", OPENED)
        assert json.loads((folder.path / "association.json").read_text())["calling_ae_title"] == "SCANNER"
