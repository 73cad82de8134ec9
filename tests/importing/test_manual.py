"""The manual's road from nnU-Net's results to a running, signed pack: its commands, run by a shell as they stand there.

The network is nnU-Net's own work on the built-in test patient (synthetic).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.importing.proving import FOLDER, train_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
for needed in ("torch", "nnunetv2", "dynamic_network_architectures", "nncf"):
    pytest.importorskip(needed, reason=f"{needed} is not installed, so there is nothing to follow the manual with")

PAGE = Path(__file__).parents[2] / "docs" / "packs.md"
SECTION = "From a folder to a running, signed pack"
#: ``appliance`` as a shell finds it, with the box's configuration in the scratch folder.
SHIM = """#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import appliance.config
appliance.config.DEFAULT_PATH = Path({config!r})
from appliance.cli import main
main(prog_name="appliance")
"""


def blocks() -> list[str]:
    """What the section shows in fenced blocks: the workstation's commands, the box's configuration, its commands."""
    text = PAGE.read_text(encoding="utf-8").split(f"## {SECTION}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```\w+\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def shell(tmp_path):
    """Run lines in a shell that stops at the first that fails."""
    etc = tmp_path / "etc"
    (etc / "pack-keys").mkdir(parents=True)
    program = tmp_path / "bin" / "appliance"
    program.parent.mkdir()
    facts = {"python": sys.executable, "root": str(PAGE.parents[1]), "config": str(etc / "appliance.toml")}
    program.write_text(SHIM.format(**facts))
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}

    def run(text: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    run.etc = etc
    return run


def test_the_commands_of_the_manual_lead_to_a_running_signed_pack(shell, tmp_path):
    trained = train_once("phantom", "train_phantom.py", FOLDER)
    (scans,) = trained.parents[2].glob("raw/*/imagesTr")
    workstation, configuration, box = blocks()
    assert "RESULTS" in workstation
    assert "SCANS" in workstation
    shell(workstation.replace("RESULTS", str(trained)).replace("SCANS", str(scans)))
    for name in ("organs", "organs-quick"):
        assert (tmp_path / name / "pack.sig").is_file() == (name == "organs")

    # "Copy the folder and the public key to the box", and its configuration; the private key stays.
    (shell.etc / "pack-keys" / "packs.public.json").write_text((tmp_path / "my-keys/packs.public.json").read_text())
    state = f'[box]\nstate_directory = "{tmp_path / "state"}"\n'
    (shell.etc / "appliance.toml").write_text(state + configuration.replace("/etc/appliance", str(shell.etc)))
    *until, last = [line for line in box.splitlines() if line.strip()]
    assert last.startswith("appliance packs rollback")

    shell("\n".join(until))
    states = {row["name"]: row for row in json.loads(shell("appliance packs list --json"))}
    assert "active" in states["organs"]["states"]
    assert states["organs"]["trust"].startswith("signed:")
    assert "active" in states["trunk"]["states"], "the shipped pack goes on giving the other structures"

    shell(last)
    states = {row["name"]: row["states"] for row in json.loads(shell("appliance packs list --json"))}
    assert states["organs"] == ["installed"]
