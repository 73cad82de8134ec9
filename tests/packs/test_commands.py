"""The commands of the manual, as a person types them."""

import json
import re
import shutil
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.store.database import open_database
from appliance.store.events import EventKind


@pytest.fixture
def appliance(tmp_path):
    """Run the command with a configuration of its own; ``configure`` adds lines to it."""
    file = tmp_path / "box.toml"

    def configure(text: str = "") -> None:
        file.write_text(f'[box]\nstate_directory = "{tmp_path / "state"}"\n{text}')

    def call(*arguments: object, with_config: bool = True):
        options = ["--config", str(file)] if with_config else []
        return CliRunner().invoke(main, [*map(str, arguments), *options])

    configure()
    call.configure = configure
    return call


@pytest.fixture
def unsigned(make_pack):
    return make_pack("9.0.0", key=None)


def test_from_a_folder_to_a_running_signed_pack(appliance, unsigned, tmp_path):
    keys = tmp_path / "my-keys"
    made = appliance("packs", "keygen", keys, "--holder", "Radiology", with_config=False)
    assert made.exit_code == 0
    private = keys / "packs.private.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert appliance("packs", "sign", unsigned, "--key", private, with_config=False).exit_code == 0

    refused = appliance("packs", "install", unsigned)
    assert refused.exit_code == 4
    assert "which this box does not trust" in refused.output

    appliance.configure(f'[packs]\nkeys = ["{keys / "packs.public.json"}"]\n')
    installed = appliance("packs", "install", unsigned)
    assert installed.exit_code == 0, installed.output
    assert "appliance packs activate trunk 9.0.0" in installed.output
    assert appliance("packs", "activate", "trunk", "9.0.0").exit_code == 0
    row, shipped = json.loads(appliance("packs", "list", "--json").output)
    assert shipped["states"] == ["shipped", "previous"]
    assert (row["version"], row["states"]) == ("9.0.0", ["active"])
    key = re.search(r"key ([0-9a-f]{16})", made.output)[1]
    assert row["trust"] == f"signed:{key}"
    assert "9.0.0" in appliance("packs", "show", "trunk").output
    assert appliance("packs", "rollback", "trunk").exit_code == 0
    states = {row["version"]: row["states"] for row in json.loads(appliance("packs", "list", "--json").output)}
    assert states.pop("9.0.0") == ["installed"]
    assert list(states.values()) == [["active", "shipped"]]
    assert appliance("packs", "remove", "trunk", "9.0.0").exit_code == 0


def test_the_states_of_several_versions(appliance, make_pack, site_key, rules):
    appliance.configure(f'[packs]\nkeys = ["{site_key.parent}"]\n')
    for version in ("9.0.0", "9.1.0", "9.2.0"):
        assert appliance("packs", "install", make_pack(version), "--activate").exit_code == 0
    appliance("packs", "shadow", "trunk", "9.0.0")
    (rules.installed / "trunk" / "9.1.0" / "network.bin").write_bytes(b"damaged")
    states = {row["version"]: row["states"] for row in json.loads(appliance("packs", "list", "--json").output)}
    assert next(iter(states.items())) == ("9.2.0", ["active"])
    assert (states["9.1.0"], states["9.0.0"]) == (["failed"], ["previous", "shadow"])
    assert "0 scans" in appliance("packs", "shadow", "trunk").output
    assert appliance("packs", "shadow", "trunk", "--off").exit_code == 0
    assert "no shadow runs" in appliance("packs", "shadow", "trunk").output


def test_development_mode_is_seen_everywhere(appliance, unsigned):
    appliance.configure("[packs]\nallow_unsigned = true\n")
    assert appliance("packs", "install", unsigned, "--activate").exit_code == 0
    assert json.loads(appliance("packs", "list", "--json").output)[0]["trust"] == "unsigned"
    status = json.loads(appliance("status", "--json").stdout)
    assert "pack_unsigned" in status["problems"]
    assert status["packs"][0]["trust"] == "unsigned"
    assert "for development" in " ".join(appliance("status").output.split())
    checks = {check["name"]: check for check in json.loads(appliance("doctor", "--json").stdout)}
    assert checks["pack trunk 9.0.0"]["verdict"] == "warning"
    assert checks["pack signatures"]["verdict"] == "warning"
    appliance.configure()
    assert "not signed" in appliance("packs", "verify").output


def test_activation_is_told_to_the_fleet(appliance, make_pack, site_key, tmp_path):
    appliance.configure(f'[packs]\nkeys = ["{site_key.parent}"]\n')
    with open_database(tmp_path / "state" / "appliance.db") as store:
        assert appliance("packs", "install", make_pack("9.0.0"), "--activate").exit_code == 0
        assert [event.kind for event in store.events.waiting()] == [EventKind.PACK_ACTIVATED]


def test_publish_and_update(appliance, make_pack, site_key, tmp_path):
    stick = tmp_path / "stick"
    done = appliance("packs", "publish", stick, make_pack("9.0.0"), "--keys", tmp_path / "rk", with_config=False)
    assert done.exit_code == 0, done.output
    root = shutil.copy(stick / "metadata" / "1.root.json", tmp_path)
    missing = appliance("packs", "update")
    assert missing.exit_code == 2
    assert "--from" in missing.output
    appliance.configure(f'[packs]\nkeys = ["{site_key.parent}"]\n')
    assert "trunk 9.0.0: installed" in appliance("packs", "update", "--from", stick, "--root", root).output
    section = f'[packs.repository]\nsource = "{stick}"\nroot = "{root}"\n'
    appliance.configure(f'[packs]\nkeys = ["{site_key.parent}"]\n{section}')
    assert "nothing newer" in appliance("packs", "update").output


def test_a_folder_can_be_read_before_it_is_trusted(appliance, unsigned):
    shown = appliance("packs", "show", unsigned)
    assert "no signature that this box trusts" in shown.output
    assert "open: any use" in shown.output


def test_the_manual_names_every_command_option_and_key():
    page = (Path(__file__).parents[2] / "docs" / "packs.md").read_text()
    for name, command in main.commands["packs"].commands.items():
        assert f"appliance packs {name}" in page
        for option in command.params:
            if option.name not in {"config_path", "as_json"} and option.param_type_name == "option":
                assert option.opts[0] in page or name == "import", f"{name} {option.opts[0]}"
    from appliance.config import PacksSettings

    for key in PacksSettings.model_fields:
        assert f"`packs.{key}" in page
