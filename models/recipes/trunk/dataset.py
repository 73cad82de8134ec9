"""Random training patches: where they are cut and how they are disturbed. Nothing is ever mirrored left to right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from pathlib import Path

IGNORE = 255
AIR_HU = -1024.0


class Patches:
    """Draws disturbed patches from prepared scans.

    Parameters
    ----------
    folders
        With ``.npz`` files from ``prepare.py`` or ``phantoms.py``; held-out scans are left out.
    shape
        Slices, rows, columns of a patch.
    seed
        Of everything random.
    phantom_share
        Share of patches taken from phantoms, when there are any.
    """

    def __init__(self, folders: list[Path], shape: tuple[int, int, int], seed: int, phantom_share: float = 0.2) -> None:
        self.shape = shape
        self.phantom_share = phantom_share
        self.random = np.random.default_rng(seed)
        self.torch_random = torch.Generator().manual_seed(seed)
        self.real: list[tuple[str, np.ndarray, np.ndarray]] = []
        self.phantoms: list[tuple[str, np.ndarray, np.ndarray]] = []
        for path in sorted(path for folder in folders for path in folder.glob("*.npz")):
            with np.load(path) as item:
                if bool(item["held_out"]):
                    continue
                entry = (path.stem, item["hu"], item["labels"])
                (self.phantoms if path.stem.startswith("phantom") else self.real).append(entry)
        # In proportion to the square root of its length; plain scans (the product's input) twice as often.
        weight = [np.sqrt(hu.shape[0]) * (2.0 if name.endswith("plain") else 1.0) for name, hu, _ in self.real]
        self.weights = np.asarray(weight) / np.sum(weight)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one patch: float32 HU ``(1, …)`` and int64 labels ``(…)``."""
        r = self.random
        if self.phantoms and r.random() < self.phantom_share:
            _, hu, labels = self.phantoms[r.integers(len(self.phantoms))]
        else:
            _, hu, labels = self.real[r.choice(len(self.real), p=self.weights)]
        if r.random() < 0.25:
            hu, labels = self._shorten(hu, labels)
        return self._disturb(*self._cut(hu, labels))

    def _shorten(self, hu: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pretend that the scan covers less of the patient."""
        length = int(self.random.integers(20, max(21, hu.shape[0])))
        start = int(self.random.integers(0, max(1, hu.shape[0] - length)))
        return hu[start : start + length], labels[start : start + length]

    def _cut(self, hu: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut a rotated and scaled patch around a voxel of a class drawn at random."""
        r = self.random
        wanted = r.choice([1, 2, 3, 4, 5], p=[0.3, 0.15, 0.15, 0.2, 0.2])
        step = 3
        places = np.argwhere(labels[::step, ::step, ::step] == wanted)
        if len(places) == 0:
            places = np.argwhere(labels[::step, ::step, ::step] == 1)
        size = np.asarray(self.shape)
        centre = places[r.integers(len(places))] * step + r.uniform(-0.25, 0.25, 3) * size
        # Prefer patches that lie inside the scan, as tiles do.
        low, high = (
            np.minimum(size / 2, np.asarray(hu.shape) / 2),
            np.asarray(hu.shape) - np.minimum(size, hu.shape) / 2,
        )
        centre = np.clip(centre, low - 10, high + 10)
        angles = np.deg2rad(r.normal(0, [5, 4, 8]).clip(-15, 15))
        scale = np.exp(r.normal(0, 0.09)) * np.exp(r.normal(0, 0.04, 3))
        matrix = _rotation(angles) * scale
        reach = np.ceil(np.abs(matrix) @ (size / 2)).astype(int) + 2
        start = np.floor(centre).astype(int) - reach
        block_hu = _window(hu, start, 2 * reach + 1, AIR_HU)
        block_labels = _window(labels, start, 2 * reach + 1, 0)
        inside = np.asarray(block_hu.shape)
        # grid_sample counts (x, y, z) from −1 to 1 over the block.
        theta = np.zeros((3, 4), np.float32)
        order = [2, 1, 0]
        for i, a in enumerate(order):
            for j, b in enumerate(order):
                theta[i, j] = matrix[a, b] * size[b] / inside[a]
            theta[i, 3] = 2 * (centre[a] - start[a] + 0.5) / inside[a] - 1
        grid = functional.affine_grid(torch.from_numpy(theta)[None], [1, 1, *self.shape], align_corners=False)
        source = torch.from_numpy(block_hu.astype(np.float32))[None, None]
        cut = functional.grid_sample(source - AIR_HU, grid, mode="bilinear", align_corners=False) + AIR_HU
        marks = torch.from_numpy(block_labels.astype(np.float32))[None, None]
        cut_labels = functional.grid_sample(marks, grid, mode="nearest", align_corners=False)
        return cut[0, 0], cut_labels[0, 0].round().long()

    def _disturb(self, hu: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise, blur, thick slices, shifted calibration, a smaller field of view, foreign air values."""
        r = self.random
        if r.random() < 0.3:
            hu = _smooth(hu, float(r.uniform(0.3, 0.9)))
        if r.random() < 0.3:
            factor = int(r.integers(2, 4))
            pooled = functional.avg_pool1d(
                hu.permute(1, 2, 0).reshape(-1, 1, hu.shape[0]), factor, factor, ceil_mode=True
            )
            back = functional.interpolate(pooled, size=hu.shape[0], mode="linear", align_corners=False)
            hu = back.reshape(hu.shape[1], hu.shape[2], hu.shape[0]).permute(2, 0, 1)
        if r.random() < 0.6:
            noise = torch.randn(hu.shape, generator=self.torch_random)
            if r.random() < 0.5:
                noise = _smooth(noise, 0.6) * 2.0
            hu = hu + noise * float(r.uniform(3, 70))
        body = hu > -900
        hu = torch.where(body, hu * float(r.normal(1.0, 0.02)) + float(r.normal(0, 15)), hu)
        if r.random() < 0.2:
            hu = hu + float(r.uniform(-20, 40))
        if r.random() < 0.2:
            hu, labels = self._narrow_field(hu, labels)
        return hu.clamp(-1024, 3071)[None], labels

    def _narrow_field(self, hu: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.arange(hu.shape[1])[:, None] - hu.shape[1] * float(self.random.uniform(0.4, 0.6))
        columns = torch.arange(hu.shape[2])[None, :] - hu.shape[2] * float(self.random.uniform(0.4, 0.6))
        radius = float(self.random.uniform(0.38, 0.6)) * max(hu.shape[1:])
        outside = (rows**2 + columns**2) > radius**2
        return hu.masked_fill(outside, AIR_HU), labels.masked_fill(outside, 0)


def _window(array: np.ndarray, start: np.ndarray, size: np.ndarray, fill: float) -> np.ndarray:
    out = np.full(size, fill, array.dtype)
    low, high = np.maximum(start, 0), np.minimum(start + size, array.shape)
    if (low < high).all():
        out[tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))] = array[
            tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        ]
    return out


def _rotation(angles: np.ndarray) -> np.ndarray:
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        result = result @ turn
    return result


def _smooth(volume: torch.Tensor, sigma: float) -> torch.Tensor:
    taps = torch.exp(-0.5 * (torch.arange(-2, 3) / sigma) ** 2)
    taps /= taps.sum()
    x = volume[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = 5
        padding = [0, 0, 0, 0, 0, 0]
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = 2
        x = functional.conv3d(functional.pad(x, padding, mode="replicate"), taps.view(shape))
    return x[0, 0]
