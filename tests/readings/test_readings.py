"""The readings by hand say what their README says, so that a comparison with them can trust their fields."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
READINGS = sorted(FOLDER.glob("*.json"))
DOCUMENTED = set(
    re.findall(
        r"`([a-z_]+)`", " ".join(re.findall(r"^\| ([^|]+) \|", (FOLDER / "README.md").read_text(), re.MULTILINE))
    )
)


@pytest.mark.parametrize("path", READINGS, ids=lambda path: path.stem)
def test_has_the_documented_fields(path: Path) -> None:
    reading = json.loads(path.read_text())
    assert set(reading) == DOCUMENTED
    assert reading["scan"] == path.stem


@pytest.mark.parametrize("path", READINGS, ids=lambda path: path.stem)
def test_every_diameter_carries_its_uncertainty(path: Path) -> None:
    diameters = {name: value for name, value in json.loads(path.read_text()).items() if name.endswith("diameter_mm")}
    assert all(value is None or value["uncertainty"] >= 1.5 for value in diameters.values())


@pytest.mark.parametrize("path", READINGS, ids=lambda path: path.stem)
def test_reads_no_coronary_calcium_through_contrast(path: Path) -> None:
    reading = json.loads(path.read_text())
    assert not reading["contrast"] or reading["coronary_calcium"] is None
