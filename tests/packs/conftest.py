import hashlib
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from appliance.anatomy.structures import STRUCTURES
from appliance.inference.engines import import_openvino
from appliance.packs.key_ring import Role, make_key
from appliance.packs.manifest import MANIFEST
from appliance.packs.pack import load, sha256_of
from appliance.packs.registry import shipped_folders
from appliance.packs.rules import Rules
from appliance.packs.signature import sign


@pytest.fixture
def copied_pack(tmp_path: Path) -> Path:
    folder = tmp_path / "trunk"
    shutil.copytree(shipped_folders()[0], folder)
    return folder


@pytest.fixture
def site_key(tmp_path: Path) -> Path:
    """A site's private key; its public one lies in the folder that ``rules`` trusts."""
    path, _ = make_key(tmp_path / "keys", "site", role=Role.SITE, holder="Test hospital", days=30)
    return path


@pytest.fixture
def rules(tmp_path: Path, site_key: Path) -> Rules:
    return Rules(installed=tmp_path / "state" / "packs", keys=(site_key.parent,))


@pytest.fixture(scope="session")
def small_pack(tmp_path_factory) -> Path:
    """A pack with the shipped one's names and structures and a network of one convolution, which compiles at once."""
    folder = tmp_path_factory.mktemp("small") / "trunk"
    folder.mkdir()
    names = tuple(load(shipped_folders()[0]).structures)
    patch, channels = (32, 32, 32), len(names) + 1
    openvino = import_openvino()
    hu = openvino.opset13.parameter([1, 1, *patch], np.float32)
    weights = np.linspace(-1, 1, channels, dtype=np.float32).reshape(channels, 1, 1, 1, 1)
    convolved = openvino.opset13.convolution(hu, openvino.opset13.constant(weights), [1] * 3, [0] * 3, [0] * 3, [1] * 3)
    openvino.save_model(openvino.Model([convolved], [hu]), folder / "network.xml", compress_to_fp16=False)
    tile = np.random.default_rng(3).integers(-1000, 1000, patch, dtype=np.int16)
    labels = (tile[None] * weights[:, 0]).argmax(axis=0).astype(np.uint8)
    np.savez_compressed(folder / "test_vector.npz", hu=tile, labels_f32=labels)
    structures = "".join(
        f'[[structures]]\nname = "{name}"\ncode = "{STRUCTURES[name].code}"\nvalue = {value}\n'
        for value, name in enumerate(names, start=1)
    )
    digests = "".join(f'"{path.name}" = "{sha256_of(path)}"\n' for path in sorted(folder.iterdir()))
    (folder / MANIFEST).write_text(SMALL_MANIFEST.format(structures=structures, digests=digests))
    return folder


SMALL_MANIFEST = """format = 1
name = "trunk"
version = "1.0.0"
licence = "Apache-2.0"
licence_class = "open"
intended_use = "Tests."
exclusions = ["patients"]
[provenance]
recipe = "tests"
trained_on = []
tested_on = []
labels = "none"
date = "2026-01-01"
[input]
orientation = "head-back-left"
spacing_mm = [3.0, 3.0, 3.0]
patch = [32, 32, 32]
overlap = 0.25
fill_hu = -1024
{structures}
[[networks]]
engine = "openvino"
precisions = ["f32"]
path = "network.xml"
[[test_vectors]]
path = "test_vector.npz"
minimum_agreement = 0.98
[files]
{digests}"""


@pytest.fixture
def make_pack(tmp_path: Path, site_key: Path, small_pack: Path):
    """Make a signed copy of the small pack under another version or name."""

    def make(version: str = "99.0.0", name: str = "trunk", key: Path | None = site_key) -> Path:
        folder = tmp_path / "made" / f"{name}-{version}"
        shutil.copytree(small_pack, folder)
        rewrite(folder, version=version, name=name)
        if key is not None:
            sign(load(folder), key)
        return folder

    return make


def rewrite(pack: Path, **changes: str) -> None:
    path = pack / MANIFEST
    text = path.read_text()
    for key, value in changes.items():
        text = re.sub(rf'^{key} = ".*"$', f'{key} = "{value}"', text, count=1, flags=re.MULTILINE)
    path.write_text(text)


def replace_file(pack: Path, name: str, content: bytes) -> None:
    """Put another file into a pack and its digest into the manifest."""
    old = hashlib.sha256((pack / name).read_bytes()).hexdigest()
    (pack / name).write_bytes(content)
    path = pack / MANIFEST
    path.write_text(path.read_text().replace(old, hashlib.sha256(content).hexdigest()))


def expect_nonsense(pack: Path) -> None:
    """Let the pack's test vectors expect labels that its network does not give."""
    with np.load(pack / "test_vector.npz") as item:
        arrays = {name: item[name] for name in item.files}
    arrays = {name: np.ones_like(value) if name.startswith("labels") else value for name, value in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_file(pack, "test_vector.npz", buffer.getvalue())
