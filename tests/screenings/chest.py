"""A chest made of a few ellipsoids, with its true organ map: small enough to reason about every number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.scan import Acquisition, ContrastTag, KernelFamily, Scan, SourceFrame, Volume

VALUES = {"body": 1, "lung_left": 2, "lung_right": 3, "airways": 4, "bone": 5}
PLAIN = Acquisition(
    kvp=120.0, kernel="B31f", kernel_family=KernelFamily.SOFT, contrast_tag=ContrastTag.NONE, slice_thickness_mm=1.0
)
PACK = PackUse("test", "0.0.0", "sha256:0", "f32", "CPU", "none")


@dataclass(frozen=True)
class Chest:
    """Options of the test chest; sizes in mm, density in HU."""

    spacing_mm: tuple[float, float, float] = (2.5, 2.0, 2.0)
    height_mm: float = 280.0
    width_mm: float = 330.0
    lung_hu: int = -860
    low_fraction: float = 0.0
    low_hu: int = -980
    blood_hu: int = 40
    air_hu: int = -1000
    noise_hu: float = 0.0
    offset_hu: int = 0
    lung_scale: float = 1.0
    cut_mm: tuple[float, float] = (0.0, 0.0)
    acquisition: Acquisition = PLAIN

    def with_acquisition(self, **changes) -> Chest:
        return replace(self, acquisition=replace(self.acquisition, **changes))


def _labels(points: np.ndarray, chest: Chest) -> np.ndarray:
    """Label of each LPS point (…, 3) in mm; the origin is the middle of the chest."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]

    def ellipsoid(center, radii):
        return ((x - center[0]) / radii[0]) ** 2 + ((y - center[1]) / radii[1]) ** 2 + (
            (z - center[2]) / radii[2]
        ) ** 2 < 1

    labels = np.zeros(points.shape[:-1], dtype=np.uint8)
    labels[(x / 150) ** 2 + (y / 105) ** 2 < 1] = VALUES["body"]
    scale = chest.lung_scale
    labels[ellipsoid((75, 0, 0), (52 * scale, 72 * scale, 115 * scale))] = VALUES["lung_left"]
    labels[ellipsoid((-75, 0, 0), (52 * scale, 72 * scale, 115 * scale))] = VALUES["lung_right"]
    labels[((x / 9) ** 2 + ((y - 20) / 9) ** 2 < 1) & (z > 0)] = VALUES["airways"]
    labels[((x / 18) ** 2 + ((y - 75) / 18) ** 2) < 1] = VALUES["bone"]
    return labels


def _grid(spacing, height, width) -> tuple[np.ndarray, np.ndarray]:
    """Affine and points of a grid centred on the chest."""
    shape = [max(1, round(extent / step)) for extent, step in zip((height, width, width), spacing, strict=True)]
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    affine[:3, 3] = [
        -(shape[2] - 1) / 2 * spacing[2],
        -(shape[1] - 1) / 2 * spacing[1],
        -(shape[0] - 1) / 2 * spacing[0],
    ]
    index = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), axis=-1)
    return affine, index @ affine[:3, :3].T + affine[:3, 3]


@lru_cache(maxsize=6)
def make(chest: Chest) -> tuple[Scan, OrganMap]:
    """The scan and its true map."""
    affine, points = _grid(chest.spacing_mm, chest.height_mm, chest.width_mm)
    labels = _labels(points, chest)
    random = np.random.default_rng(7)
    table = np.array([chest.air_hu, chest.blood_hu, chest.lung_hu, chest.lung_hu, chest.air_hu, 300], dtype=np.float32)
    hu = table[labels]
    lung = (labels == 2) | (labels == 3)
    hu[lung & (random.random(labels.shape) < chest.low_fraction)] = chest.low_hu
    hu += random.normal(0, chest.noise_hu, hu.shape) if chest.noise_hu else 0
    hu = np.maximum(np.rint(hu) + chest.offset_hu, -1024).astype(np.int16)
    low, high = (round(cut / chest.spacing_mm[0]) for cut in chest.cut_mm)
    hu = np.ascontiguousarray(hu[low : hu.shape[0] - high])
    affine = affine.copy()
    affine[:3, 3] += low * affine[:3, 0]
    frames = tuple(SourceFrame(f"1.2.3.{k}", None, (0.0, 0.0, float(k))) for k in range(hu.shape[0]))
    scan = Scan(Volume(hu, affine, frames), chest.acquisition, "1.2", "1.2.3")

    map_affine, map_points = _grid((3.0, 3.0, 3.0), chest.height_mm, chest.width_mm)
    map_labels = _labels(map_points, chest)
    below, above = (round(cut / 3.0) for cut in chest.cut_mm)
    map_labels = np.ascontiguousarray(map_labels[below : map_labels.shape[0] - above])
    map_affine[:3, 3] += below * map_affine[:3, 0]
    return scan, OrganMap(map_labels, map_affine, VALUES, PACK)
