"""The wheel alone gives a working command, with the shipped pack inside."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACK = ROOT / "models" / "trunk"

pytestmark = pytest.mark.slow


def build(folder: Path, source: Path = ROOT) -> Path:
    pytest.importorskip("hatchling", reason="requirements-build.txt is not installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps",
         "--no-build-isolation", "--wheel-dir", str(folder), str(source)],
        check=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1760000000"},
    )  # fmt: skip
    (wheel,) = folder.glob("appliance-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with this wheel and nothing else; the dependencies are borrowed from the running one."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--no-index", wheel],
        check=True,
    )
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    (Path(site.stdout.strip()) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_holds_the_whole_shipped_pack(wheel):
    if not (PACK / "pack.toml").exists():
        pytest.skip("models/trunk holds no pack")
    with zipfile.ZipFile(wheel) as archive:
        for path in PACK.rglob("*"):
            if path.is_file():
                inside = archive.read(f"appliance/shipped_packs/trunk/{path.relative_to(PACK)}")
                assert hashlib.sha256(inside).digest() == hashlib.sha256(path.read_bytes()).digest(), path


def test_holds_the_schemas_and_the_type_marker(wheel):
    assert {"appliance/py.typed", "appliance/health/schemas/health.json"} <= names(wheel)


def test_holds_nothing_else(wheel):
    assert {name.partition("/")[0].partition("-")[0] for name in names(wheel)} == {"appliance"}
    assert not [name for name in names(wheel) if name.endswith((".part", ".pyc"))]


def test_the_command_works_from_the_wheel_alone(installed, tmp_path):
    done = subprocess.run(
        [installed / "bin" / "appliance", "--help"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "screen" in done.stdout


def test_the_package_is_the_installed_one(installed, tmp_path):
    done = subprocess.run(
        [installed / "bin" / "python", "-c", "import appliance; print(appliance.__file__)"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_the_same_sources_give_the_same_wheel(wheel, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("appliance", "models"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    assert build(tmp_path / "again", copy).read_bytes() == wheel.read_bytes()
