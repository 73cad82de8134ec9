import shutil
from pathlib import Path

import pytest

from appliance.packs.registry import shipped_folders


@pytest.fixture
def copied_pack(tmp_path: Path) -> Path:
    folder = tmp_path / "trunk"
    shutil.copytree(shipped_folders()[0], folder)
    return folder
