"""Asking for memory before it is taken."""

import numpy as np
import pytest

from appliance.errors import NotEnoughMemoryError
from appliance.inference import with_openvino
from appliance.inference.engines import import_openvino, open_engine
from appliance.inference.memory import Room, needed_bytes, room

MIB = 1 << 20


def chain(channels, size=64):
    """Convolutions one after the other, each followed by a ReLU."""
    openvino = import_openvino()
    ops = openvino.opset13
    current = start = ops.parameter([1, 1, size, size, size], np.float32)
    before = 1
    for after in channels:
        weights = ops.constant(np.zeros((after, before, 3, 3, 3), np.float32))
        current = ops.relu(ops.convolution(current, weights, [1] * 3, [1] * 3, [1] * 3, [1] * 3))
        before = after
    return openvino.Model([current], [start])


def test_the_two_largest_neighbours_count():
    voxel = 64**3 * 4
    beside = needed_bytes(chain([1]), "f32") - 2 * voxel
    assert needed_bytes(chain([8, 16, 4]), "f32") - beside == pytest.approx((8 + 16) * voxel, rel=0.01)


def test_half_the_size_half_the_memory():
    """Weights are held as they are computed with, and beside that in single precision."""
    less = needed_bytes(chain([8, 16, 8]), "f32") - needed_bytes(chain([8, 16, 8]), "bf16")
    weights = (1 * 8 + 8 * 16 + 16 * 8) * 27
    assert less == ((8 + 16) * 64**3 + weights) * 2


def test_a_machine_has_some_room():
    assert room().free_bytes > 0


def test_the_configured_limit_counts():
    found = room(1)
    assert found == Room(0, "left of work.memory_limit_mib (1 MiB)")


@pytest.fixture
def machine(tmp_path):
    """A root with a control group of 100 MiB, 60 of them used, 20 of those files."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box/work.service\n")
    group = tmp_path / "sys/fs/cgroup/box"
    (group / "work.service").mkdir(parents=True)
    (group / "memory.max").write_text(f"{100 * MIB}\n")
    (group / "memory.current").write_text(f"{60 * MIB}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {20 * MIB}\n")
    (group / "work.service/memory.max").write_text("max\n")
    return tmp_path


def test_a_limit_of_a_group_above_counts(machine):
    found = room(root=machine)
    assert found.free_bytes == 60 * MIB
    assert "control group" in found.limit


def test_a_machine_without_control_groups_has_its_memory(tmp_path):
    assert "this machine" in room(root=tmp_path).limit


def test_a_damaged_group_is_no_limit(machine):
    (machine / "sys/fs/cgroup/box/memory.max").write_text("much")
    assert "this machine" in room(root=machine).limit


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_network_that_is_too_large_is_a_sentence_with_need_and_have(pack, monkeypatch, engine):
    monkeypatch.setattr(with_openvino, "room", lambda limit: Room(50 * MIB, "free on this machine"))
    with pytest.raises(NotEnoughMemoryError, match=r"needs about 0\.\d GiB .* and 0\.0 GiB are free on this machine"):
        open_engine(pack, engine=engine)


def test_the_configured_limit_reaches_the_engine(pack):
    with pytest.raises(NotEnoughMemoryError, match=r"work\.memory_limit_mib"):
        open_engine(pack, engine="openvino", memory_mib=16)
