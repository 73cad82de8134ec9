from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest


def test_importing_the_phantom_loads_no_heavy_library():
    code = "import sys, appliance.phantom; print(sorted({'scipy', 'pydicom', 'openvino', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_process(tmp_path):
    code = (
        "import sys, pathlib; from appliance.phantom import PhantomOptions, write_series;"
        "write_series(PhantomOptions(rows=64, columns=64, pixel_spacing_mm=6.0, coverage_low_mm=60.0,"
        "coverage_high_mm=63.0, missing_organs=frozenset({'liver', 'spleen', 'bowel'})), pathlib.Path(sys.argv[1]))"
    )
    digests = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 4
