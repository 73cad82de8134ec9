"""A checkpoint is data from a stranger: it is read, and never run."""

import pickle
import zipfile
from pathlib import Path

import pytest

from appliance.errors import PackError
from appliance.packs.importing.checkpoint import read_checkpoint

torch = pytest.importorskip("torch", reason="the extra `import` is not installed")


def checkpoint_of(results: Path) -> Path:
    return results / "fold_0" / "checkpoint_final.pth"


class Malicious:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "I ran")


def test_a_checkpoint_is_read(results):
    content = read_checkpoint(checkpoint_of(results))
    assert content["trainer_name"] == "nnUNetTrainer"
    assert content["logging"]["ema_fg_dice"] == [0.5]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_is_refused_and_does_not_run(tmp_path, zipped):
    path, trace = tmp_path / "checkpoint_final.pth", tmp_path / "trace"
    torch.save({"network_weights": Malicious(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(PackError, match=r"refused|not a checkpoint"):
        read_checkpoint(path)
    assert not trace.exists()


def test_what_it_would_have_run_is_named(tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": Malicious(tmp_path / "trace")}, path)
    with pytest.raises(PackError, match=r"would run .*write_text|would run .*getattr"):
        read_checkpoint(path)


def test_a_plain_pickle_is_refused(tmp_path):
    path, trace = tmp_path / "checkpoint_final.pth", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(PackError):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_truncated_checkpoint_is_refused(results, share):
    path = checkpoint_of(results)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PackError, match=r"cut short|not a checkpoint"):
        read_checkpoint(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "dear radiologist")
    with pytest.raises(PackError):
        read_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(PackError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "checkpoint_final.pth")


def test_weights_alone_are_not_a_checkpoint(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(PackError, match="not a checkpoint of nnU-Net"):
        read_checkpoint(tmp_path / "weights.pth")


def changed(results: Path, **changes: object) -> Path:
    path = checkpoint_of(results)
    content = read_checkpoint(path) | changes
    torch.save(content, path)
    return path


def test_weights_that_are_not_numbers_are_refused(results):
    path = changed(results, network_weights={"a": torch.tensor([1.0, float("nan")])})
    with pytest.raises(PackError, match="NaN"):
        read_checkpoint(path)


def test_a_compiled_networks_names_are_made_plain(results):
    path = changed(results, network_weights={"_orig_mod.a": torch.zeros(2)})
    assert list(read_checkpoint(path)["network_weights"]) == ["a"]
