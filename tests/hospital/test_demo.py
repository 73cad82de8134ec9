"""The demonstration of the whole hospital is run as a person runs it, with the synthetic test patient."""

from __future__ import annotations

import pytest

from tests.hospital.demo import main
from tests.hospital.peers import MissingToolError, program


@pytest.mark.slow
def test_from_the_scanner_to_the_acknowledged_alert(tmp_path, capsys):
    try:
        for name in ("Orthanc", "mosquitto", "mosquitto_sub", "chromedriver"):
            program(name)
    except MissingToolError as error:
        pytest.skip(str(error))
    assert main(["--keep", str(tmp_path / "hospital")]) == 0
    told = capsys.readouterr().out
    assert "pleural_effusion (urgent): acknowledged by Li Wei" in told
    assert "online (session 1), healthy" in told
    assert (tmp_path / "hospital/board-after.png").stat().st_size > 10_000
