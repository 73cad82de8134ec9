import numpy as np
import pytest

from appliance.errors import PackError
from appliance.packs.pack import load
from appliance.packs.selftest import agreement, read_vector, self_test


@pytest.mark.slow
def test_the_shipped_pack_gives_what_it_gave_when_made(copied_pack):
    results = self_test(load(copied_pack))
    assert {(result.engine, result.precision) for result in results} >= {("openvino", "f32"), ("onnxruntime", "f32")}
    assert all(result.passed for result in results), results


def test_agreement_passes_over_common_background():
    assert agreement(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1])) == 0.5


def test_agreement_of_nothing_is_full():
    assert agreement(np.zeros(3), np.zeros(3)) == 1.0


def test_a_vector_without_the_precision_is_an_error(tmp_path):
    np.savez(tmp_path / "v.npz", hu=np.zeros(1, np.int16))
    with pytest.raises(PackError, match="not a usable test vector"):
        read_vector(tmp_path / "v.npz", "int8")
