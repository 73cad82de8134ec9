"""``appliance demo``: a real appliance, its real port, and a table at the end."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest


@pytest.mark.slow
def test_a_study_in_a_zip_goes_through_the_real_port(patient, tmp_path):
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(patient.glob("*.dcm")):
            target.write(path, path.name)
    kept = tmp_path / "kept"
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "demo", str(archive), "--keep", str(kept)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Emphysema" in done.stdout
    assert "not reviewed" in done.stdout
    assert (kept / "state" / "appliance.db").exists()
