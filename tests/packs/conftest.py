import re
import shutil
from pathlib import Path

import pytest

from appliance.packs.key_ring import Role, make_key
from appliance.packs.pack import MANIFEST, load
from appliance.packs.registry import shipped_folders
from appliance.packs.rules import Rules
from appliance.packs.signature import sign


@pytest.fixture
def copied_pack(tmp_path: Path) -> Path:
    folder = tmp_path / "trunk"
    shutil.copytree(shipped_folders()[0], folder)
    return folder


@pytest.fixture
def site_key(tmp_path: Path) -> Path:
    """A site's private key; its public one lies in the folder that ``rules`` trusts."""
    path, _ = make_key(tmp_path / "keys", "site", role=Role.SITE, holder="Test hospital", days=30)
    return path


@pytest.fixture
def rules(tmp_path: Path, site_key: Path) -> Rules:
    return Rules(installed=tmp_path / "state" / "packs", keys=(site_key.parent,))


@pytest.fixture
def make_pack(tmp_path: Path, site_key: Path):
    """Make a signed copy of the shipped pack under another version or name."""

    def make(version: str = "99.0.0", name: str = "trunk", key: Path | None = site_key) -> Path:
        folder = tmp_path / "made" / f"{name}-{version}"
        shutil.copytree(shipped_folders()[0], folder)
        rewrite(folder, version=version, name=name)
        if key is not None:
            sign(load(folder), key)
        return folder

    return make


def rewrite(pack: Path, **changes: str) -> None:
    path = pack / MANIFEST
    text = path.read_text()
    for key, value in changes.items():
        text = re.sub(rf'^{key} = ".*"$', f'{key} = "{value}"', text, count=1, flags=re.MULTILINE)
    path.write_text(text)
