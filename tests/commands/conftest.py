"""A small test patient on disk, and the command line run in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.phantom import PhantomOptions, write_series

if TYPE_CHECKING:
    from pathlib import Path

# 128 × 128 pixels of 3.2 mm: enough for every path through the command, and quick
SMALL = PhantomOptions(
    rows=128, columns=128, pixel_spacing_mm=3.2, slice_thickness_mm=2.5, slice_spacing_mm=2.5, emphysema_fraction=0.08
)


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    exit_code: int
    output: str
    errors: str


@pytest.fixture
def run():
    """Run the command with some arguments."""

    def call(*arguments: object) -> Ran:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture(scope="session")
def patient(tmp_path_factory) -> Path:
    """The small test patient as DICOM files."""
    folder = tmp_path_factory.mktemp("patient")
    write_series(SMALL, folder)
    return folder
