"""The locks name every package with its hash, and no machine."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.txt", "requirements-dev.txt", "requirements-build.txt", "requirements-import.txt"]
PIN = re.compile(
    r"(?m)^([a-z0-9][a-z0-9.-]*)==(\S+)(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
)


def pins(lock: str) -> dict[str, str]:
    return {name: version for name, version, _ in PIN.findall((ROOT / lock).read_text())}


@pytest.mark.parametrize("lock", LOCKS)
def test_holds_nothing_but_hashed_pins(lock):
    assert PIN.sub("", (ROOT / lock).read_text()) == ""


@pytest.mark.parametrize("lock", LOCKS)
def test_names_no_machine_and_no_path(lock):
    assert not re.search(r"://|/|\bindex|find-links|@", (ROOT / lock).read_text())


def test_every_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"]
    names = {re.match(r"[A-Za-z0-9-]+", line)[0].lower() for line in wanted}
    assert names <= set(pins("requirements.txt"))
    develop = {re.match(r"[A-Za-z0-9-]+", line)[0].lower() for line in project["optional-dependencies"]["dev"]}
    assert develop <= set(pins("requirements-dev.txt"))


def test_the_import_lock_holds_what_imports_and_proofs_need():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.match(r"[A-Za-z0-9-]+", line)[0].lower() for extra in ("import", "proof") for line in extras[extra]}
    locked = pins("requirements-import.txt")
    assert names <= set(locked)
    # The build for processors; nobody needs gigabytes of CUDA to read weights, nor torchvision at all.
    assert locked["torch"].endswith("+cpu")
    assert not {name for name in locked if name.startswith(("nvidia", "torchvision"))}


def test_the_develop_lock_extends_the_base_lock():
    base = pins("requirements.txt")
    assert base == {name: version for name, version in pins("requirements-dev.txt").items() if name in base}


def test_no_training_framework_reaches_the_box():
    assert not {"torch", "nncf", "onnx", "matplotlib"} & set(pins("requirements.txt"))
