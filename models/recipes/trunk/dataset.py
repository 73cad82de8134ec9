"""Random training patches: where they are cut and how they are disturbed. Nothing is ever mirrored left to right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from classes import NAMES, UNSURE, VALUE, bits, sure
from torch.nn import functional

if TYPE_CHECKING:
    from pathlib import Path

AIR_HU = -1024.0
_BODY = bits(["body"])
#: How often a patch is cut around a class, among those that the scan has.
_WANTED = {"body": 3.0, "airways": 3.0, "bone": 2.0, "vertebral_bodies": 2.5, "aorta": 2.5, "pulmonary_trunk": 2.5}
_SHARES = np.array([0.0, *(_WANTED.get(name, 2.0) for name in NAMES)])
#: Organs whose density is shifted at random, one by one.
_SHIFTED = np.array([VALUE[name] for name in NAMES if name not in {"lung_left", "lung_right", "airways"}])


class Entry:
    """One scan in memory, with the places of each class.

    Parameters
    ----------
    name
        File stem.
    hu, allowed
        Hounsfield units and sets of possible classes, ``(slices, rows, columns)``.
    """

    def __init__(self, name: str, hu: np.ndarray, allowed: np.ndarray) -> None:
        self.name, self.hu, self.allowed = name, hu, allowed
        step = 3
        thinned = allowed[::step, ::step, ::step]
        classes = sure(thinned)
        # Where organs have no labels yet, what is surely soft tissue stands for the body, and what is bone for bone.
        classes[(classes == UNSURE) & (thinned & _BODY > 0) & (thinned & bits(["background"]) == 0)] = VALUE["body"]
        classes[thinned == bits(["bone", "vertebral_bodies"])] = VALUE["bone"]
        self._places = {value: np.argwhere(classes == value) * step for value in range(1, len(NAMES) + 1)}

    def place(self, random: np.random.Generator, low: int, high: int) -> np.ndarray:
        """Draw a voxel between two slices, of a class drawn first."""
        within = {v: p[np.searchsorted(p[:, 0], low) : np.searchsorted(p[:, 0], high)] for v, p in self._places.items()}
        present = [value for value, places in within.items() if len(places) > 0]
        if not present:
            return np.array([(low + high) / 2, self.hu.shape[1] / 2, self.hu.shape[2] / 2])
        share = _SHARES[present] / _SHARES[present].sum()
        places = within[int(random.choice(present, p=share))]
        return places[random.integers(len(places))]


class Patches:
    """Draws disturbed patches from prepared scans.

    Parameters
    ----------
    folders
        With ``.npz`` files from ``combine.py`` or ``phantoms.py``; held-out scans are left out.
    shape
        Slices, rows, columns of a patch.
    seed
        Of everything random.
    phantom_share
        Share of patches taken from phantoms, when there are any.
    """

    def __init__(self, folders: list[Path], shape: tuple[int, int, int], seed: int, phantom_share: float = 0.4) -> None:
        self.shape = shape
        self.phantom_share = phantom_share
        self.random = np.random.default_rng(seed)
        self.torch_random = torch.Generator().manual_seed(seed)
        self.real: list[Entry] = []
        self.phantoms: list[Entry] = []
        for path in sorted(path for folder in folders for path in folder.glob("*.npz")):
            with np.load(path) as item:
                if bool(item["held_out"]):
                    continue
                entry = Entry(path.stem, item["hu"], item["allowed"])
                (self.phantoms if path.stem.startswith("phantom") else self.real).append(entry)
        # In proportion to the square root of its length; plain scans (the product's input) twice as often.
        weight = [np.sqrt(e.hu.shape[0]) * (2.0 if e.name.endswith("plain") else 1.0) for e in self.real]
        self.weights = np.asarray(weight) / np.sum(weight)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one patch: float32 HU ``(1, …)`` and int64 sets of classes ``(…)``."""
        r = self.random
        if self.phantoms and r.random() < self.phantom_share:
            entry = self.phantoms[r.integers(len(self.phantoms))]
        else:
            entry = self.real[r.choice(len(self.real), p=self.weights)]
        low, high = 0, entry.hu.shape[0]
        if r.random() < 0.25:
            # Pretend that the scan covers less of the patient.
            length = int(r.integers(20, max(21, high)))
            low = int(r.integers(0, max(1, high - length)))
            high = min(high, low + length)
        return self._disturb(*self._cut(entry, low, high))

    def _cut(self, entry: Entry, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut a rotated, scaled and bent patch around a voxel of a class drawn at random."""
        r = self.random
        hu, allowed = entry.hu[low:high], entry.allowed[low:high]
        size, extent = np.asarray(self.shape), np.asarray(hu.shape)
        centre = entry.place(r, low, high) - (low, 0, 0) + r.uniform(-0.25, 0.25, 3) * size
        # Prefer patches that lie inside the scan, as tiles do.
        nearest, farthest = np.minimum(size / 2, extent / 2), extent - np.minimum(size, extent) / 2
        centre = np.clip(centre, nearest - 10, farthest + 10)
        angles = np.deg2rad(r.normal(0, [5, 4, 8]).clip(-15, 15))
        scale = np.exp(r.normal(0, 0.09)) * np.exp(r.normal(0, 0.05, 3))
        matrix = _rotation(angles) * scale
        reach = np.ceil(np.abs(matrix) @ (size / 2)).astype(int) + 2
        start = np.floor(centre).astype(int) - reach
        block_hu = _window(hu, start, 2 * reach + 1, AIR_HU)
        block_allowed = _window(allowed, start, 2 * reach + 1, bits(["background"]))
        inside = np.asarray(block_hu.shape)
        # grid_sample counts (x, y, z) from −1 to 1 over the block.
        theta = np.zeros((3, 4), np.float32)
        order = [2, 1, 0]
        for i, a in enumerate(order):
            for j, b in enumerate(order):
                theta[i, j] = matrix[a, b] * size[b] / inside[a]
            theta[i, 3] = 2 * (centre[a] - start[a] + 0.5) / inside[a] - 1
        grid = functional.affine_grid(torch.from_numpy(theta)[None], [1, 1, *self.shape], align_corners=False)
        if r.random() < 0.5:
            grid = grid + self._bend(inside)
        source = torch.from_numpy(block_hu.astype(np.float32))[None, None]
        cut = functional.grid_sample(source - AIR_HU, grid, mode="bilinear", align_corners=False) + AIR_HU
        # Single precision holds every set of fewer than 24 classes exactly.
        marks = torch.from_numpy(block_allowed.astype(np.float32))[None, None]
        cut_allowed = functional.grid_sample(marks, grid, mode="nearest", align_corners=False)[0, 0].round().long()
        # Nothing comes from beyond the block but air.
        return cut[0, 0], cut_allowed.masked_fill(cut_allowed == 0, bits(["background"]))

    def _bend(self, inside: np.ndarray) -> torch.Tensor:
        """Draw a smooth displacement of a few voxels, in grid_sample's units."""
        knots = torch.randn((1, 3, 4, 4, 4), generator=self.torch_random) * float(self.random.uniform(0.5, 3.0))
        field = functional.interpolate(knots, size=self.shape, mode="trilinear", align_corners=True)
        unit = torch.tensor([2.0 / inside[axis] for axis in (2, 1, 0)], dtype=torch.float32)
        return field.movedim(1, -1) * unit

    def _disturb(self, hu: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Organs' densities, noise, blur, thick slices, shifted calibration, a smaller field of view."""
        r = self.random
        if r.random() < 0.6:
            shift = np.zeros(256, np.float32)
            shift[_SHIFTED] = r.normal(0, 12, _SHIFTED.size)
            shift[VALUE["liver"]] += float(r.uniform(-50, 10)) if r.random() < 0.3 else 0.0
            offset = torch.from_numpy(shift[sure(labels.numpy())])
            hu = hu + _smooth(offset, 0.7)
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
        return hu.masked_fill(outside, AIR_HU), labels.masked_fill(outside, bits(["background"]))


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
