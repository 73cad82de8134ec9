"""The commands that the README promises exist."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_make_alone_lists_the_targets():
    text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-fast", "bench", "lint", "generate", "lock", "clean"):
        assert f"make {target} " in text


def test_the_integration_server_calls_what_a_person_calls():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "exec make test"


@pytest.mark.parametrize(
    "script", [".ci/run", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("image-build/*.sh")))]
)
def test_scripts_are_correct_shell(script):
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
