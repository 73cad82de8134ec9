"""A pack that is written has its name when it is whole, and not before, however the writing ends."""

import fcntl
import os

import pytest

from appliance.errors import PackError
from appliance.packs.new_folder import new_folder
from appliance.packs.registry import available
from appliance.packs.rules import Rules
from tests.packs.killed import killed_at_each_step
from tests.small_disk import small_disk


@pytest.mark.parametrize("kind", ["copied", "quantised"])
def test_killed_at_any_step_it_is_whole_or_not_there(kind, small_pack, tmp_path):
    found = killed_at_each_step(kind, tmp_path / "out" / "organs", small_pack)
    # Every file is opened once and synced once; then the folder's sync, and its rename.
    assert found["before"] >= 2 * len(list(small_pack.iterdir())) + 2
    assert found["after"] >= 1
    assert found["left"] == ["organs"], "what an earlier one left was not removed"


def test_what_a_killed_import_left_is_no_pack(make_pack, rules, tmp_path):
    whole = make_pack("99.0.0", name="trunk")
    (whole.parent / ".organs.part").mkdir()
    (whole.parent / ".organs.part" / "pack.toml").write_text((whole / "pack.toml").read_text()[:40])
    (used,) = available(Rules(folders=(whole.parent,), keys=rules.keys))
    assert used.path == whole


def test_what_is_refused_leaves_nothing(tmp_path):
    def write() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "network.xml").write_text("<net/>")
            raise PackError("no licence")

    with pytest.raises(PackError, match="no licence"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(PackError, match="is there already"), new_folder(tmp_path / "out"):
        pytest.fail("nothing may be written")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_appears_meanwhile_is_not_written_over(tmp_path):
    def write() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "network.xml").write_text("<net/>")
            (tmp_path / "out").mkdir()

    with pytest.raises(PackError, match="is there already"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_at_a_time_do_not_mix(tmp_path):
    (tmp_path / ".out.part").mkdir()
    other = os.open(tmp_path / ".out.part", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(PackError, match="another process is writing"), new_folder(tmp_path / "out"):
        pytest.fail("nothing may be written")
    os.close(other)
    with new_folder(tmp_path / "out") as folder:
        (folder / "network.xml").write_text("<net/>")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    with small_disk(tmp_path / "small", 1024) as disk:
        sentence = r"out: the pack cannot be written \(No space left on device\)"
        with pytest.raises(PackError, match=sentence), new_folder(disk / "out") as folder:
            (folder / "network.bin").write_bytes(bytes(2 << 20))
        assert list(disk.iterdir()) == []
