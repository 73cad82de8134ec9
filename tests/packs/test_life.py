"""Install, activate, roll back, fall back, shadow: real folders, the shipped network under other versions."""

import json
import os
import shutil
import zipfile
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from appliance.errors import PackError
from appliance.inference import with_openvino
from appliance.inference.memory import Room
from appliance.packs import install as life
from appliance.packs import runtime as runtime_module
from appliance.packs.choice import FILE, Acceptance, changing, read_choice
from appliance.packs.pack import load
from appliance.packs.registry import available, load_installed
from appliance.packs.runtime import Computing, Runtime
from appliance.packs.signature import sign
from tests.packs.conftest import expect_nonsense, rewrite


def active(rules) -> str:
    (pack,) = available(rules)
    return pack.version


def put_in_place(pack, rules) -> None:
    """Put a pack where installed ones lie, as if it had passed its self-test on the machine it was installed on."""
    found = load(pack)
    shutil.copytree(pack, rules.installed / found.name / found.version)
    with changing(rules.installed) as choice:
        key = f"{found.name}/{found.version}"
        choice.installed[key] = Acceptance(digest=found.digest, trust="signed:x", at=datetime.now(UTC), self_test=1.0)
        choice.switch(found.name, found.version)


def test_install_alone_changes_nothing_in_use(make_pack, rules):
    before = active(rules)
    pack = life.install(make_pack("9.0.0"), rules)
    assert pack.path == rules.installed / "trunk" / "9.0.0"
    assert active(rules) == before
    assert not [path for path in rules.installed.iterdir() if path.name.startswith(".staging")]


def test_activate_and_roll_back(make_pack, rules):
    before = active(rules)
    for version in ("9.0.0", "9.1.0"):
        life.install(make_pack(version), rules)
        life.activate("trunk", version, rules)
        assert active(rules) == version
    assert life.rollback("trunk", rules) == "9.0.0"
    assert active(rules) == "9.0.0"
    assert life.rollback("trunk", rules) == "shipped"
    assert active(rules) == before
    with pytest.raises(PackError, match="nothing to roll back"):
        life.rollback("trunk", rules)


def test_the_shipped_one_can_be_chosen_again(make_pack, rules):
    before = active(rules)
    life.install(make_pack("9.0.0"), rules)
    life.activate("trunk", "9.0.0", rules)
    life.activate("trunk", "shipped", rules)
    assert active(rules) == before


@pytest.mark.parametrize("inside", ["", "trunk-9.0.0/"])
def test_a_zip_file_installs_like_a_folder(make_pack, rules, tmp_path, inside):
    pack = make_pack("9.0.0")
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        for path in pack.iterdir():
            archive.write(path, inside + path.name)
    assert life.install(tmp_path / "pack.zip", rules).version == "9.0.0"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_a_zip_file_cannot_write_elsewhere(make_pack, rules, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.write(make_pack("9.0.0") / "pack.toml", "pack.toml")
        archive.writestr(name, "x")
    with pytest.raises(PackError, match="may not be in the zip file"):
        life.install(tmp_path / "pack.zip", rules)
    assert not list(tmp_path.rglob("evil"))


def test_a_truncated_zip_file_is_refused(make_pack, rules, tmp_path):
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.write(make_pack("9.0.0") / "pack.toml", "pack.toml")
    content = (tmp_path / "pack.zip").read_bytes()
    (tmp_path / "pack.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(PackError, match="neither a folder nor a zip file"):
        life.install(tmp_path / "pack.zip", rules)


def test_an_older_version_is_not_installed_over_a_newer_one(make_pack, rules):
    life.install(make_pack("9.1.0"), rules)
    with pytest.raises(PackError, match=r"has had version 9\.1\.0"):
        life.install(make_pack("9.0.0"), rules)


def test_removing_the_newer_one_does_not_open_the_way_for_an_older(make_pack, rules):
    life.install(make_pack("9.1.0"), rules)
    life.remove("trunk", "9.1.0", rules)
    with pytest.raises(PackError, match=r"has had version 9\.1\.0"):
        life.install(make_pack("9.0.0"), rules)


def test_one_older_than_the_shipped_is_refused(make_pack, rules):
    with pytest.raises(PackError, match="this box has had version"):
        life.install(make_pack("0.0.1"), rules)


def test_a_version_is_given_once_only(make_pack, rules, site_key):
    life.install(make_pack("9.0.0"), rules)
    other = make_pack("9.0.1")
    rewrite(other, version="9.0.0", licence="MIT")
    sign(load(other), site_key)
    with pytest.raises(PackError, match="a version is given once only"):
        life.install(other, rules)


def test_installing_the_same_again_is_no_error_and_mends_it(make_pack, rules):
    source = make_pack("9.0.0")
    installed = life.install(source, rules)
    (installed.path / "network.bin").write_bytes(b"damaged")
    assert life.install(source, rules).digest == installed.digest


def test_a_pack_that_computes_something_else_here_does_not_count(make_pack, rules, site_key):
    pack = make_pack("9.0.0")
    expect_nonsense(pack)
    sign(load(pack), site_key)
    with pytest.raises(PackError, match="does not compute on this machine what it should"):
        life.install(pack, rules)
    assert read_choice(rules.installed).installed == {}
    with pytest.raises(PackError, match="is not installed"):
        life.activate("trunk", "9.0.0", rules)


def test_an_unsigned_pack_leaves_no_trace(make_pack, rules):
    with pytest.raises(PackError, match="not signed"):
        life.install(make_pack("9.0.0", key=None), rules)
    assert not (rules.installed / "trunk").exists()


def test_an_installed_pack_outlives_its_key_but_not_its_removal(make_pack, rules):
    life.install(make_pack("9.0.0"), rules)
    key = next(rules.keys[0].glob("*.public.json"))
    soon = json.loads(key.read_text()) | {"not_after": datetime.now(UTC).isoformat()}
    key.write_text(json.dumps(soon))
    assert load_installed(rules, "trunk", "9.0.0").version == "9.0.0"  # accepted before the key expired
    with pytest.raises(PackError, match="expired on"):
        life.install(make_pack("9.0.1"), rules)
    key.unlink()
    with pytest.raises(PackError, match="does not trust"):
        load_installed(rules, "trunk", "9.0.0")


def test_a_pack_that_rivals_another_is_not_activated(make_pack, rules):
    life.install(make_pack("9.0.0", name="torso"), rules)
    with pytest.raises(PackError, match=r"packs\.prefer"):
        life.activate("torso", "9.0.0", rules)
    preferring = replace(rules, prefer=("torso",))
    life.activate("torso", "9.0.0", preferring)
    (pack,) = available(preferring)
    assert pack.name == "torso"


def test_what_was_left_by_a_cut_off_install_does_not_count_and_goes(make_pack, rules):
    leftover = rules.installed / ".staging-1"
    leftover.mkdir(parents=True)
    (leftover / "pack.toml").write_text("half")
    orphan = rules.installed / "trunk" / "9.0.0"  # renamed, but cut off before it counted
    orphan.mkdir(parents=True)
    (orphan / "pack.toml").write_text("half")
    assert life.install(make_pack("9.0.0"), rules).version == "9.0.0"
    assert not leftover.exists()


def test_a_damaged_choice_is_a_sentence(rules):
    rules.installed.mkdir(parents=True)
    (rules.installed / FILE).write_text("{")
    with pytest.raises(PackError, match="the choice of packs is damaged"):
        available(rules)


def test_a_folder_that_cannot_be_written_is_a_sentence(make_pack, rules, tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(PackError, match="cannot be written"):
        life.install(make_pack("9.0.0"), rules)


def test_switching_is_seen_before_the_next_scan_and_not_within_one(make_pack, rules):
    runtime = Runtime(rules, Computing(engine="openvino", precision="f32", threads=2))
    first = runtime.snapshot()
    assert runtime.snapshot() is first
    life.install(make_pack("9.0.0"), rules)
    life.activate("trunk", "9.0.0", rules)
    assert first.packs[0].pack.version != "9.0.0"  # who screens goes on with what it has
    assert runtime.snapshot().packs[0].pack.version == "9.0.0"


def test_a_damaged_active_pack_is_replaced_by_the_one_before(make_pack, rules):
    for version in ("9.0.0", "9.1.0"):
        life.install(make_pack(version), rules)
        life.activate("trunk", version, rules)
    (rules.installed / "trunk" / "9.1.0" / "network.bin").write_bytes(b"damaged")
    runtime = Runtime(rules, Computing(threads=2))
    assert runtime.snapshot().packs[0].pack.version == "9.0.0"
    (fallback,) = runtime.take_fallbacks()
    assert (fallback.version, fallback.instead) == ("9.1.0", "9.0.0")
    assert "network.bin was altered" in read_choice(rules.installed).failed["trunk/9.1.0"].text
    assert runtime.take_fallbacks() == []


def test_a_failed_self_test_falls_back_past_everything_bad_to_the_shipped_one(make_pack, rules, site_key):
    before = active(rules)
    for version in ("9.0.0", "9.1.0"):
        pack = make_pack(version)
        expect_nonsense(pack)
        sign(load(pack), site_key)
        put_in_place(pack, rules)
    runtime = Runtime(rules, Computing(engine="openvino", precision="f32", threads=2))
    assert runtime.snapshot().packs[0].pack.version == before
    assert [item.version for item in runtime.take_fallbacks()] == ["9.1.0", "9.0.0"]
    assert active(rules) == before  # every process of the box takes the same


def test_root_works_for_the_owner_of_the_state_directory(make_pack, rules):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    rules.installed.parent.mkdir(parents=True)
    os.chown(rules.installed.parent, 12345, 12345)
    life.install(make_pack("9.0.0"), rules)
    life.activate("trunk", "9.0.0", rules)
    owners = {path.stat().st_uid for path in [rules.installed, *rules.installed.rglob("*")]}
    assert owners == {12345}


def test_removing_what_is_in_use_is_refused(make_pack, rules):
    life.install(make_pack("9.0.0"), rules)
    life.activate("trunk", "9.0.0", rules)
    with pytest.raises(PackError, match="in use"):
        life.remove("trunk", "9.0.0", rules)


def test_where_memory_is_short_only_the_network_at_work_is_held(make_pack, rules, monkeypatch):
    monkeypatch.setattr(runtime_module, "room", lambda limit: Room(1 << 30, "free"))
    both = replace(rules, folders=(make_pack(name="torso"),), prefer=("torso",))
    (alone,) = Runtime(both, Computing(engine="openvino", precision="f32", threads=2)).snapshot().packs
    assert alone.engine() is alone.engine()
    manifest = both.folders[0] / "pack.toml"
    manifest.write_text(manifest.read_text().replace('"bone"\ncode = "272673000"', '"trachea"\ncode = "44567001"'))
    unsigned = replace(both, allow_unsigned=True)
    (both.folders[0] / "pack.sig").unlink()
    several = Runtime(unsigned, Computing(engine="openvino", precision="f32", threads=2)).snapshot().packs
    assert [item.pack.name for item in several] == ["torso", "trunk"]
    assert several[0].engine() is not several[0].engine()
    with pytest.MonkeyPatch.context() as short:
        short.setattr(with_openvino, "room", lambda limit: Room(0, "free"))
        with pytest.raises(PackError, match="needs about"):
            several[0].engine()  # the box's lack: the scan waits
    monkeypatch.setattr(runtime_module, "room", lambda limit: Room(4 << 30, "free"))
    held = Runtime(unsigned, Computing(engine="openvino", precision="f32", threads=2)).snapshot().packs
    assert [item.engine() is item.engine() for item in held] == [True, True]
    (both.folders[0] / "network.bin").write_bytes(b"damaged")
    with pytest.raises(PackError, match=r"network\.bin was altered"):
        several[0].engine()


def test_too_little_memory_takes_no_pack_out_of_use(make_pack, rules, monkeypatch):
    life.install(make_pack("9.0.0"), rules)
    life.activate("trunk", "9.0.0", rules)
    monkeypatch.setattr(with_openvino, "room", lambda limit: Room(0, "free on this machine"))
    runtime = Runtime(rules, Computing(engine="openvino"))
    with pytest.raises(PackError, match="free on this machine"):
        runtime.snapshot()
    assert runtime.take_fallbacks() == []
    monkeypatch.undo()
    assert active(rules) == "9.0.0"


def test_a_network_too_large_for_the_box_is_not_installed(make_pack, rules):
    with pytest.raises(PackError, match=r"work\.memory_limit_mib"):
        life.install(make_pack("9.0.0"), rules, Computing(memory_mib=16))
    assert read_choice(rules.installed).installed == {}
