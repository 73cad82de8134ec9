"""The shipped pack with real scans: whatever the verdicts, they follow from the figures in the report."""

from pathlib import Path

import pytest

from appliance.packs.gates import Margins
from appliance.packs.quantising.pack import quantise_pack
from appliance.packs.quantising.scans import find_scans
from appliance.packs.registry import shipped_folders

SCANS = Path(__file__).parents[3] / "shared" / "data" / "volumes-2mm"
MARGINS = Margins(maximum_dice_drop=0.01, maximum_volume_difference=0.02, minimum_gain=-1e6)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not SCANS.is_dir(), reason="the real scans are not on this machine"),
]
pytest.importorskip("nncf", reason="the extra `import` is not installed, so nothing can be quantised")


def test_the_shipped_pack_on_real_scans(tmp_path):
    from appliance.packs.pack import load
    from appliance.packs.selftest import self_test

    calibrating = find_scans([SCANS / "lidc_0004_contrast.nii.gz", SCANS / "lungfcp_0001_plain.nii.gz"], tmp_path)
    judging = find_scans([SCANS / "lidc_0002_plain.nii.gz", SCANS / "lidc_0009_plain.nii.gz"], tmp_path)
    pack = quantise_pack(load(shipped_folders()[0]), calibrating, judging, tmp_path / "out", margins=MARGINS)
    int8, bf16 = pack.manifest.gates
    assert (int8.scans, int8.calibration_scans) == (2, 2)
    assert {item.name for item in int8.structures} == set(pack.structures)
    lungs = [item for item in int8.structures if item.name.startswith("lung")]
    assert all(item.scans == 2 and item.dice > 0.97 for item in lungs)
    for gate in (int8, bf16):
        fell = [item for item in gate.structures if item.verdict == "fell"]
        assert all(1 - item.dice <= 0.01 for item in gate.structures if item.verdict == "passed")
        assert (gate.verdict == "passed") <= (not fell)
        assert (gate.precision in pack.automatic("openvino")) == (gate.verdict == "passed")
    assert len(int8.attempts) == 1 or int8.attempts[0].fell
    assert all(result.passed for result in self_test(pack))
