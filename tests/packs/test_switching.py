"""The real screening process and the real work service, whose packs are exchanged under them."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from appliance.config import Settings
from appliance.dicom.spool import AssociationFolder, CloseReason, Opened, Room, Spool, new_association_name
from appliance.health.measure import measure
from appliance.health.model import Problem, SelfTest
from appliance.packs import install as life
from appliance.packs.choice import read_choice
from appliance.packs.pack import load, sha256_of
from appliance.packs.registry import available
from appliance.packs.rules import Rules
from appliance.packs.shadow import summary
from appliance.packs.signature import sign
from appliance.phantom import PhantomOptions, write_series
from appliance.services.health import installed_packs
from appliance.services.screener_process import ScreenerProcess
from appliance.services.work import run
from appliance.store.database import open_database
from appliance.store.events import EventKind
from appliance.store.lifecycle import TERMINAL
from tests.packs.conftest import expect_nonsense
from tests.packs.test_life import put_in_place

pytestmark = pytest.mark.slow

SMALL = PhantomOptions(
    rows=128, columns=128, pixel_spacing_mm=3.2, slice_thickness_mm=2.5, slice_spacing_mm=2.5, emphysema_fraction=0.08
)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    write_series(SMALL, folder)
    return sorted(folder.rglob("*.dcm"))


@pytest.fixture
def settings(tmp_path, site_key) -> Settings:
    return Settings.model_validate(
        {
            "box": {"state_directory": tmp_path / "state"},
            "packs": {"keys": [site_key.parent]},
            "assemble": {"quiet_s": 0.0},
            "work": {"threads": 2},
        }
    )


@pytest.fixture
def rules(settings) -> Rules:
    return Rules.from_settings(settings)


@pytest.fixture
def two_versions(make_pack, rules):
    for version in ("9.0.0", "9.1.0"):
        life.install(make_pack(version), rules)
    life.activate("trunk", "9.0.0", rules)


@pytest.fixture
def child(settings):
    process = ScreenerProcess(settings)
    until(lambda: process.messages(0.1) and process.ready)
    yield process
    process.kill()


def until(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"


def screen(child, series, out, on_stage=None):
    """Screen once and return the report with everything the child said."""
    out.mkdir()
    said = []
    child.screen(1, series, out, 1)
    while not said or said[-1]["event"] in {"stage", "fallback"}:
        assert child.ended() is None
        for message in child.messages(0.2):
            said.append(message)
            if on_stage is not None and message["event"] == "stage":
                on_stage(message["stage"])
    assert said[-1]["event"] == "result", said
    return json.loads((out / "report.json").read_text()), said


def versions(report) -> list[str]:
    return [pack["version"] for pack in report["packs"]]


@pytest.mark.usefixtures("two_versions")
def test_a_running_child_changes_packs_between_scans_and_never_within_one(child, series, rules, tmp_path):
    def switch(stage):
        if stage == "planned":
            life.activate("trunk", "9.1.0", rules)

    pid = child.pid
    first, _ = screen(child, series, tmp_path / "first", switch)
    second, _ = screen(child, series, tmp_path / "second")
    assert versions(first) == ["9.0.0"]  # switched while it was being screened
    assert versions(second) == ["9.1.0"]
    assert child.pid == pid
    assert first["packs"][0]["trust"].startswith("signed:")


@pytest.mark.usefixtures("two_versions")
def test_a_pack_damaged_under_a_running_box_falls_back_at_the_next_switch(child, series, rules, tmp_path):
    screen(child, series, tmp_path / "first")
    life.activate("trunk", "9.1.0", rules)
    (rules.installed / "trunk" / "9.1.0" / "network.bin").write_bytes(b"damaged")
    report, said = screen(child, series, tmp_path / "second")
    assert versions(report) == ["9.0.0"]
    assert [message["version"] for message in said if message["event"] == "fallback"] == ["9.1.0"]


@pytest.mark.usefixtures("two_versions")
def test_a_shadow_is_compared_and_changes_no_result(child, series, rules, tmp_path):
    plain, _ = screen(child, series, tmp_path / "plain")
    life.set_shadow("trunk", "9.1.0", rules)
    shadowed, _ = screen(child, series, tmp_path / "shadowed")
    assert shadowed["packs"] == plain["packs"]
    assert [item | {"seconds": 0} for item in shadowed["screenings"]] == [
        item | {"seconds": 0} for item in plain["screenings"]
    ]
    found = summary(rules.installed, "trunk", "9.1.0")
    assert found["scans"] == 1
    assert found["structures"]["body"]["dice_least"] == 1.0  # the same network under another number
    life.set_shadow("trunk", None, rules)
    screen(child, series, tmp_path / "off")
    assert summary(rules.installed, "trunk", "9.1.0")["scans"] == 1


@pytest.mark.usefixtures("two_versions")
def test_a_shadow_that_ended_the_process_is_not_run_again(child, series, rules, tmp_path):
    life.set_shadow("trunk", "9.1.0", rules)
    (rules.installed / "shadow").mkdir()
    (rules.installed / "shadow" / "running").write_text("trunk/9.1.0\n")  # what a killed process leaves
    report, _ = screen(child, series, tmp_path / "out")
    assert versions(report) == ["9.0.0"]
    choice = read_choice(rules.installed)
    assert choice.shadow == {}
    assert "it ended the process" in choice.failed["trunk/9.1.0"].text


def test_the_work_service_starts_with_the_last_good_pack_and_says_so(make_pack, rules, settings, site_key, series):
    life.install(make_pack("9.0.0"), rules)
    life.activate("trunk", "9.0.0", rules)
    bad = make_pack("9.1.0")
    expect_nonsense(bad)
    sign(load(bad), site_key)
    put_in_place(bad, rules)

    with Spool(settings.box.spool):
        pass
    opened = Opened("SCANNER", "APPLIANCE", "127.0.0.1", "2026-01-01T00:00:00+00:00", os.getpid())
    folder = AssociationFolder(settings.box.spool / Room.ASSOCIATIONS, new_association_name(), opened)
    for path in series:
        folder.store(path.read_bytes())
    folder.close(CloseReason.RELEASED)

    stop = threading.Event()
    thread = threading.Thread(target=run, args=(settings, stop))
    thread.start()
    try:
        with open_database(settings.box.database) as store:
            until(lambda: sum(store.scans.summary(last=0).counts[state] for state in TERMINAL) >= 1)
            kinds = [event.kind for event in store.events.waiting()]
    finally:
        stop.set()
        thread.join()
    (report,) = settings.box.results.glob("*/report.json")
    assert versions(json.loads(report.read_text())) == ["9.0.0"]
    assert EventKind.PACK_FAILED in kinds
    packs = installed_packs(settings)
    assert {(pack.version, pack.self_test) for pack in packs} == {
        ("9.0.0", SelfTest.PASSED),
        ("9.1.0", SelfTest.FAILED),
    }
    assert Problem.PACK_FAILED in measure(settings, packs=packs).problems


def test_every_result_of_development_mode_says_unsigned(make_pack, series, tmp_path):
    pack = make_pack("9.0.0", key=None)
    file = tmp_path / "box.toml"
    file.write_text(
        f'[box]\nstate_directory = "{tmp_path / "state"}"\n[work]\npacks = ["{pack}"]\n[packs]\nallow_unsigned = true\n'
    )
    command = [sys.executable, "-m", "appliance", "screen", str(series[0].parent), "--config", str(file)]
    done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
    (used,) = json.loads(done.stdout)["packs"]
    assert (used["version"], used["trust"]) == ("9.0.0", "unsigned")
    assert "WITHOUT A SIGNATURE" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_an_install_that_is_killed_leaves_nothing_that_counts(make_pack, rules, settings, site_key, tmp_path):
    source = make_pack("9.0.0")
    with (source / "large.bin").open("wb") as stream:  # enough to be caught while it is copied or verified
        stream.truncate(400 << 20)
    text = (source / "pack.toml").read_text()
    (source / "pack.toml").write_text(text + f'"large.bin" = "{sha256_of(source / "large.bin")}"\n')
    sign(load(source), site_key)
    file = tmp_path / "box.toml"
    file.write_text(
        f'[box]\nstate_directory = "{settings.box.state_directory}"\n[packs]\nkeys = ["{site_key.parent}"]\n'
    )
    command = [sys.executable, "-m", "appliance", "packs", "install", str(source), "--config", str(file)]
    process = subprocess.Popen(command)
    until(lambda: list(rules.installed.glob(".staging*/*")) or process.poll() is not None)
    assert process.poll() is None, "it was too quick to be killed"
    process.kill()
    process.wait()
    assert read_choice(rules.installed).installed == {}
    assert [pack.trust for pack in available(rules)] == ["shipped"]
    assert life.install(source, rules).version == "9.0.0"
    assert not list(rules.installed.glob(".staging*"))
