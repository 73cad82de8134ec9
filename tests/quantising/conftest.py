"""Small packs whose networks are built by hand, so that it is known what quantising them does; and synthetic scans.

Each network finds soft tissue, lung and bone by their Hounsfield units, through as many layers as a test wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pytest

from appliance.anatomy.structures import STRUCTURES
from appliance.inference.engines import OpenVinoEngine, import_openvino
from appliance.packs.importing.write import to_toml
from appliance.packs.manifest import MANIFEST
from appliance.packs.pack import load, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

PATCH = (32, 32, 32)
SPACING_MM = 6.0
CHANNELS = 16
#: Airways are never found: nothing can be said of them.
NAMES = ("body", "lung_left", "bone", "airways")
#: Typical Hounsfield units of background, body, lung and bone.
CENTRES = (-1000.0, 0.0, -800.0, 700.0)
BONE = 3


def scan(seed: int, *, bone: bool = True) -> np.ndarray:
    """int16 HU in canonical axes: a body with one lung and a ball of bone, with noise."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices((40, 44, 48)).astype(float)
    shift = random.uniform(-2, 2, 3)
    hu = np.full(z.shape, -1000.0)
    hu[((y - 22) / 17) ** 2 + ((x - 24) / 20) ** 2 < 1] = 0.0
    hu[((z - 20 - shift[0]) / 12) ** 2 + ((y - 20 - shift[1]) / 9) ** 2 + ((x - 32) / 7) ** 2 < 1] = -800.0
    if bone:
        hu[(z - 20) ** 2 + (y - 31) ** 2 + (x - 15 - shift[2]) ** 2 < 4.5**2] = 700.0
    return np.rint(hu + random.normal(0, 12, hu.shape)).astype(np.int16)


def write_scan(path: Path, hu: np.ndarray) -> Path:
    """Write canonical voxels (head, back, left) as NIfTI."""
    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine), path)
    return path


@pytest.fixture
def scans(tmp_path) -> Path:
    """A folder of four scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed in range(4):
        write_scan(folder / f"scan_{seed}.nii.gz", scan(seed))
    return folder


class Graph:
    """A few OpenVINO operations in a row."""

    def __init__(self) -> None:
        self.ops = import_openvino().opset13
        self.input = self.ops.parameter([1, 1, *PATCH], np.float32)
        self.last = self.ops.multiply(self.input, self.ops.constant(np.float32(1e-3)))
        self._count = 0

    def conv(self, weights: np.ndarray, bias: np.ndarray | None = None, *, relu: bool = True) -> None:
        """Convolve; weights ``(out, in)`` for a single voxel or ``(out, in, 3, 3, 3)``."""
        if weights.ndim == 2:
            weights = weights[:, :, None, None, None]
        pad = [weights.shape[-1] // 2] * 3
        constant = self.ops.constant(weights.astype(np.float32))
        found = self.ops.convolution(self.last, constant, [1] * 3, pad, pad, [1] * 3)
        found.set_friendly_name(f"layer_{self._count}")
        self._count += 1
        if bias is not None:
            found = self.ops.add(found, self.ops.constant(bias.astype(np.float32).reshape(1, -1, 1, 1, 1)))
        self.last = self.ops.relu(found) if relu else found

    def instance_norm(self) -> None:
        axes = self.ops.constant(np.array([2, 3, 4]))
        self.last = self.ops.mvn(self.last, axes, True, 1e-5, "inside_sqrt")

    def save(self, path: Path) -> None:
        openvino = import_openvino()
        openvino.save_model(openvino.Model([self.last], [self.input]), path, compress_to_fp16=False)


def membership(hu: np.ndarray) -> np.ndarray:
    """How much each voxel is background, body, lung and bone: tents of 0…1 around their Hounsfield units."""
    order = np.argsort(CENTRES)
    knots = np.asarray(CENTRES)[order]
    found = np.empty((len(CENTRES), hu.size))
    for place, name in enumerate(order):
        found[name] = np.interp(hu, knots, np.eye(len(knots))[place])
    return found


def tents(graph: Graph) -> None:
    """Two layers whose first four channels are background, body, lung and bone, each 0…1."""
    hinges = np.linspace(-1.0, 1.2, CHANNELS)
    graph.conv(np.ones((CHANNELS, 1)), -hinges)
    hu = np.linspace(-1000, 1200, 2000)
    features = np.maximum(hu[None] / 1000 - hinges[:, None], 0)
    wanted = membership(hu)
    solved, *_ = np.linalg.lstsq(np.vstack([features, np.ones_like(hu)]).T, wanted.T, rcond=1e-6)
    weights, bias = np.zeros((CHANNELS, CHANNELS)), np.zeros(CHANNELS)
    weights[: len(CENTRES)], bias[: len(CENTRES)] = solved[:-1].T, solved[-1]
    graph.conv(weights, bias)


def scaled(factors: dict[int, float]) -> np.ndarray:
    """Weights of a layer that only scales channels."""
    weights = np.eye(CHANNELS)
    for channel, factor in factors.items():
        weights[channel, channel] = factor
    return weights


def logits(graph: Graph, scale: dict[int, float] | None = None) -> None:
    """The last layer: background, body, lung, bone, and airways that never win."""
    weights = np.zeros((len(NAMES) + 1, CHANNELS))
    weights[: len(CENTRES), : len(CENTRES)] = 10 * scaled(scale or {})[: len(CENTRES), : len(CENTRES)]
    bias = np.zeros(len(NAMES) + 1)
    bias[-1] = -5.0
    graph.conv(weights, bias, relu=False)


def sound(graph: Graph) -> None:
    """A network that bears INT8."""
    tents(graph)
    graph.conv(np.eye(CHANNELS))
    logits(graph)


#: By this much bone is smaller than the rest of its tensor: less than half a step of 1/255.
FAINT = 1e-3


def one_bad_layer(graph: Graph) -> None:
    """Bone is all but lost in the input of one middle layer, which raises it again; neither first nor last layer."""
    tents(graph)
    graph.conv(scaled({BONE: FAINT}))
    graph.conv(scaled({BONE: 1 / FAINT}))  # layer_3
    for _ in range(4):
        graph.conv(np.eye(CHANNELS))
    logits(graph)


def all_bad(graph: Graph) -> None:
    """Bone is faint all the way to the last layer, so that keeping half of the layers is not enough."""
    tents(graph)
    graph.conv(scaled({BONE: FAINT}))
    for _ in range(6):
        graph.conv(np.eye(CHANNELS))
    logits(graph, {BONE: 1 / FAINT})


def instance_norm(graph: Graph) -> None:
    """Convolution, InstanceNorm, ReLU, twice, as in nnU-Net."""
    random = np.random.default_rng(2)
    graph.conv(random.normal(0, 0.3, (CHANNELS, 1, 3, 3, 3)), relu=False)
    graph.instance_norm()
    graph.last = graph.ops.relu(graph.last)
    graph.conv(random.normal(0, 0.1, (CHANNELS, CHANNELS, 3, 3, 3)), relu=False)
    graph.instance_norm()
    graph.last = graph.ops.relu(graph.last)
    logits(graph)


def write_pack(folder: Path, build) -> Path:
    """Write a pack in single precision around a network."""
    folder.mkdir()
    graph = Graph()
    build(graph)
    graph.save(folder / "network.xml")
    tile = scan(9)[:32, :32, :32].copy()
    labels = OpenVinoEngine(folder / "network.xml", PATCH, "f32", 1, None).run(tile).argmax(axis=0).astype(np.uint8)
    np.savez_compressed(folder / "test_vector.npz", hu=tile, labels_f32=labels)
    (folder / "MODEL_CARD.md").write_text("# small 1.0.0\n\nSynthetic.\n")
    content = {
        "format": 1,
        "name": "small",
        "version": "1.0.0",
        "licence": "Apache-2.0",
        "licence_class": "open",
        "intended_use": "Tests.",
        "exclusions": ["patients"],
        "provenance": {"recipe": "tests", "trained_on": [], "tested_on": [], "labels": "none", "date": "2026-01-01"},
        "input": {
            "orientation": "head-back-left",
            "spacing_mm": [SPACING_MM] * 3,
            "patch": list(PATCH),
            "overlap": 0.25,
            "fill_hu": -1000,
        },
        "structures": [
            {"name": name, "code": STRUCTURES[name].code, "value": value} for value, name in enumerate(NAMES, start=1)
        ],
        "networks": [{"engine": "openvino", "precisions": ["f32"], "path": "network.xml"}],
        "test_vectors": [{"path": "test_vector.npz", "minimum_agreement": 0.98}],
        "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(to_toml(content))
    return folder


@pytest.fixture
def pack_of(tmp_path):
    """Make and load a pack of one of the networks above."""
    return lambda build: load(write_pack(tmp_path / build.__name__, build))
