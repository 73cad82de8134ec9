"""Draw label overlays of every scan, to be looked at by a person; the pictures must stay out of the repository.

python overlay.py WORK/prepared WORK/pictures    # the rules' labels
python overlay.py WORK/training WORK/pictures    # all that is taught; grey is where several classes are possible
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from classes import ANYTHING, UNSURE, VALUE, sure
from PIL import Image

_NOTHING_TAUGHT = 254
COLOURS = {1: (90, 60, 50), 2: (0, 120, 255), 3: (0, 200, 90), 4: (255, 255, 0), 5: (255, 60, 60), 255: (255, 0, 255)}
ORGANS = {
    "vertebral_bodies": (80, 160, 255),
    "heart": (255, 110, 110),
    "aorta": (255, 0, 0),
    "pulmonary_trunk": (60, 60, 255),
    "liver": (255, 140, 0),
    "spleen": (200, 0, 255),
    "kidney_left": (255, 255, 0),
    "kidney_right": (0, 255, 255),
}
TAUGHT = COLOURS | {VALUE[name]: colour for name, colour in ORGANS.items()} | {_NOTHING_TAUGHT: (255, 0, 255)}
del TAUGHT[UNSURE]


def _plane(hu: np.ndarray, labels: np.ndarray, aspect: float, colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    grey = np.clip((hu.astype(np.float32) + 1000) / 1600, 0, 1) ** 1.2 * 255
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    for value, colour in colours.items():
        mask = labels == value
        share = 0.18 if value == 1 else 0.45
        rgb[mask] = (1 - share) * rgb[mask] + share * np.array(colour)
    image = Image.fromarray(rgb.astype(np.uint8))
    return image.resize((image.width, max(1, round(image.height * aspect))))


def sheet(
    hu: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    colours: dict[int, tuple[int, int, int]] = COLOURS,
) -> Image.Image:
    """Return one picture: eight axial, four coronal and two sagittal planes."""
    z, y, x = hu.shape
    tiles = [_plane(hu[i], labels[i], 1.0, colours) for i in np.linspace(2, z - 3, 8).astype(int)]
    aspect = spacing[0] / spacing[2]
    rows = np.linspace(y * 0.32, y * 0.68, 4).astype(int)
    tiles += [_plane(hu[::-1, i], labels[::-1, i], aspect, colours) for i in rows]
    tiles += [_plane(hu[::-1, :, i], labels[::-1, :, i], aspect, colours) for i in (int(x * 0.38), x // 2)]
    width, height = max(t.width for t in tiles), max(t.height for t in tiles)
    canvas = Image.new("RGB", (width * 5, height * 3))
    for index, tile in enumerate(tiles):
        canvas.paste(tile, ((index % 5) * width, (index // 5) * height))
    return canvas


if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as item:
            if "allowed" in item:
                labels = sure(item["allowed"])
                labels[item["allowed"] == ANYTHING] = _NOTHING_TAUGHT
                picture = sheet(item["hu"], labels, tuple(item["spacing_mm"]), TAUGHT)
            else:
                picture = sheet(item["hu"], item["labels"], tuple(item["spacing_mm"]))
            picture.save(out / f"{path.stem}.png")
