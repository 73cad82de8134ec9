"""Quantising for real: networks that bear it, that have one bad layer, that cannot be saved, that have InstanceNorm."""

import shutil

import numpy as np
import pytest

from appliance.errors import PackError
from appliance.packs.gates import Margins
from appliance.packs.manifest import MANIFEST
from appliance.packs.pack import load
from appliance.packs.quantising.pack import next_version, quantise_pack
from appliance.packs.quantising.scans import find_scans, split
from appliance.packs.selftest import self_test
from tests.quantising.conftest import PATCH, all_bad, instance_norm, one_bad_layer, scan, sound, write_pack, write_scan

pytest.importorskip("nncf", reason="the extra `import` is not installed, so nothing can be quantised")
pytestmark = pytest.mark.slow

#: INT8 counts however slow it is here: tiny networks gain nothing, and a busy machine must not decide a test.
ANY_SPEED = Margins(maximum_dice_drop=0.01, maximum_volume_difference=0.02, minimum_gain=-1e6)


@pytest.fixture
def quantised(pack_of, scans, tmp_path):
    """Quantise one of the small packs with the four scans."""

    def run(build, *, margins=ANY_SPEED, judging=None, **options):
        calibrating, others = split(find_scans([scans], tmp_path))
        out = tmp_path / f"{build.__name__}_quantised"
        return quantise_pack(pack_of(build), calibrating, judging or others, out, margins=margins, threads=1, **options)

    return run


@pytest.fixture(scope="module")
def sound_twin(tmp_path_factory):
    """The sound network, quantised once for the tests that only look at it."""
    folder = tmp_path_factory.mktemp("sound")
    for seed in range(4):
        write_scan(folder / f"scan_{seed}.nii.gz", scan(seed))
    pack = load(write_pack(folder / "sound", sound))
    sides = split(find_scans([folder], folder))
    return quantise_pack(pack, *sides, folder / "quantised", margins=ANY_SPEED, threads=1)


def gate(pack, precision="int8"):
    return next(item for item in pack.manifest.gates if item.precision == precision)


def verdicts(pack, precision="int8"):
    return {item.name: item.verdict for item in gate(pack, precision).structures}


def test_a_sound_network_gets_an_int8_twin_with_its_report(sound_twin):
    pack = sound_twin
    found = gate(pack)
    assert (found.verdict, found.scans, found.calibration_scans, found.kept_layers) == ("passed", 2, 2, ())
    assert [attempt.kept for attempt in found.attempts] == [0]
    assert found.calibration_tiles > 2
    assert found.tools.startswith("nncf ")
    assert pack.version == "1.0.1"
    assert pack.network("openvino", "int8").name == "network_int8.xml"
    assert pack.automatic("openvino")[0] == "int8"


def test_a_structure_that_no_gate_scan_shows_is_said_to_be_not_judged(sound_twin):
    pack = sound_twin
    assert verdicts(pack) == {"body": "passed", "lung_left": "passed", "bone": "passed", "airways": "not judged"}
    assert gate(pack).not_judged == ("airways",)
    assert "NOT JUDGED" in (pack.path / "MODEL_CARD.md").read_text()


def test_bone_is_not_judged_by_a_scan_without_bone(quantised, tmp_path):
    (tmp_path / "boneless").mkdir()
    path = write_scan(tmp_path / "boneless" / "a.nii.gz", scan(7, bone=False))
    pack = quantised(one_bad_layer, judging=find_scans([path], tmp_path))
    assert verdicts(pack)["bone"] == "not judged"


def test_every_precision_has_its_test_vector_and_passes_the_self_test(sound_twin):
    pack = sound_twin
    offered = {precision for network in pack.manifest.networks for precision in network.precisions}
    with np.load(pack.path / "test_vector.npz") as item:
        assert set(item.files) == {"hu"} | {f"labels_{precision}" for precision in offered}
    assert all(result.passed for result in self_test(pack, threads=1))
    assert {"int8", "f32"} <= offered


def test_a_layer_that_loses_a_small_structure_is_found_and_kept(quantised):
    pack = quantised(one_bad_layer)
    found = gate(pack)
    first, wide, ends, last = found.attempts
    assert (first.widest_ranges, wide.widest_ranges) == (False, True)
    assert first.fell == wide.fell == ends.fell == ("bone",)
    assert last.fell == ()
    assert found.verdict == "passed"
    assert any(label.endswith(": layer_3") for label in found.kept_layers)
    assert len(found.kept_layers) < found.layers / 2


def test_a_network_that_cannot_be_saved_ships_without_int8(quantised):
    pack = quantised(all_bad)
    found = gate(pack)
    assert found.verdict == "failed"
    assert len(found.attempts) == 5
    assert all(attempt.fell == ("bone",) for attempt in found.attempts)
    assert verdicts(pack)["bone"] == "fell"
    assert pack.network("openvino", "int8") is None
    assert "int8" not in pack.automatic("openvino")
    assert not list(pack.path.glob("*int8*"))


def test_instance_norm_keeps_int8_only_where_it_is_quicker(quantised):
    loose = {"maximum_dice_drop": 0.5, "maximum_volume_difference": 1.0}
    pack = quantised(instance_norm, margins=Margins(**loose, minimum_gain=0.999))
    found = gate(pack)
    assert found.verdict == "not faster"
    assert found.compared_with in {"bf16", "f32"}
    assert found.seconds_per_tile > 0.001 * found.compared_seconds_per_tile
    assert "int8" not in pack.automatic("openvino")
    assert pack.automatic("openvino")[0] == found.compared_with


def test_bf16_is_judged_where_the_machine_has_it(sound_twin):
    pack = sound_twin
    found = gate(pack, "bf16")
    assert found.verdict in {"passed", "not judged"}
    assert (pack.network("openvino", "bf16") is not None) == (found.verdict == "passed")
    if found.verdict == "not judged":
        assert "when asked for bf16" in found.reason


def test_quantising_again_replaces_network_and_report(sound_twin, scans, tmp_path):
    calibrating, judging = split(find_scans([scans], tmp_path))
    again = quantise_pack(sound_twin, judging, calibrating, tmp_path / "again", margins=ANY_SPEED, threads=1)
    assert again.version == "1.0.2"
    assert [item.precision for item in again.manifest.gates] == ["int8", "bf16"]
    assert [network.path for network in again.manifest.networks].count("network_int8.xml") == 1
    assert (again.path / "MODEL_CARD.md").read_text().count("## Reduced precision") == 1


def test_the_new_pack_can_be_signed_and_installed(sound_twin, tmp_path):
    from appliance.packs.install import install
    from appliance.packs.key_ring import Role, make_key
    from appliance.packs.rules import Rules
    from appliance.packs.signature import sign

    pack = load(shutil.copytree(sound_twin.path, tmp_path / "copy"))
    key, _ = make_key(tmp_path / "keys", "site", role=Role.SITE, holder="Test hospital", days=30)
    sign(pack, key)
    rules = Rules(installed=tmp_path / "state" / "packs", keys=(key.parent,))
    install(pack.path, rules)
    assert load(tmp_path / "state" / "packs" / "small" / "1.0.1").manifest.gates == pack.manifest.gates


def test_a_folder_that_is_there_is_not_overwritten(quantised, tmp_path):
    (tmp_path / "sound_quantised").mkdir()
    with pytest.raises(PackError, match="does not exist yet"):
        quantised(sound, version="2.0.0")


def test_the_last_number_of_the_version_is_raised():
    assert next_version("1.2.9") == "1.2.10"


def test_shapes_of_a_tile_pass_a_gate_of_their_own(quantised):
    whole, odd = (40, 44, 48), (20, 20, 20)
    pack = quantised(sound, patches=(whole, odd, PATCH, whole))
    assert [(gate.patch, gate.verdict) for gate in pack.manifest.tile_gates] == [(whole, "passed"), (odd, "passed")]
    assert pack.manifest.input.patches == (whole, odd)
    assert "tiles of 40 × 44 × 48: passed" in (pack.path / "MODEL_CARD.md").read_text()


def test_a_network_that_sees_its_whole_tile_may_not_bear_another_shape(quantised):
    """InstanceNorm takes its mean over the tile: in tiles of a quarter of the size it finds something else."""
    pack = quantised(instance_norm, patches=((8, 8, 8),))
    (found,) = pack.manifest.tile_gates
    assert found.verdict == "failed"
    assert "fell more than the margin" in found.reason
    assert pack.manifest.input.patches == ()


def test_a_shape_that_failed_its_gate_is_offered_no_more(pack_of, scans, tmp_path):
    path = pack_of(instance_norm).path / MANIFEST
    path.write_text(path.read_text().replace("overlap = 0.25", "overlap = 0.25\npatches = [[8, 8, 8], [40, 44, 48]]"))
    sides = split(find_scans([scans], tmp_path))
    out = tmp_path / "again"
    pack = quantise_pack(load(path.parent), *sides, out, margins=ANY_SPEED, threads=1, patches=((8, 8, 8),))
    assert pack.manifest.input.patches == ((40, 44, 48),)
    path = out / MANIFEST
    path.write_text(path.read_text().replace("patches = [[40, 44, 48]]", "patches = [[8, 8, 8]]"))
    with pytest.raises(PackError, match="a shape whose gate was not passed"):
        load(out)
