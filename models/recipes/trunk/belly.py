"""Organs of the belly in scans without labels: outlines drawn by eye on a few slices, cut by Hounsfield units.

python belly.py WORK/prepared WORK/abdomen

``belly.txt`` holds the outlines. Between two of them the signed distance is interpolated; what touches soft tissue
is "do not know" for a voxel to either side of the outline.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from labels import AIRWAYS, LUNG_LEFT, LUNG_RIGHT
from PIL import Image, ImageDraw
from scipy import ndimage
from sources import NO, UNKNOWN, YES

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: An organ reaches this many slices beyond its last outline; from there to where it is said to end, nothing is known.
_BEYOND = 1
#: How far an outline may be wrong, voxels.
_UNSURE = 1.2
#: Where nothing is known of an organ in a slice, it is at least not further than this from its nearest outline, voxels.
_FARTHEST = 7


@dataclass(slots=True)
class Outline:
    """What was drawn of one organ of one scan."""

    lowest_hu: float = 0.0
    highest_hu: float = 4000.0
    slices: dict[int, list[list[tuple[float, float]]]] = field(default_factory=dict)
    start: int | None = None
    end: int | None = None
    unknown: list[tuple[int, int]] = field(default_factory=list)
    absent: bool = False


def read_contours() -> dict[str, dict[str, Outline]]:
    """Read ``belly.txt``: scan, then organ."""
    scans: dict[str, dict[str, Outline]] = {}
    organs: dict[str, Outline] = {}
    outline = Outline()
    for line in Path(__file__).with_name("belly.txt").read_text().splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if line.startswith("["):
            organs = scans.setdefault(line.strip("[]"), {})
        elif words[0].endswith(":"):
            points = [(float(x), float(y)) for x, y in (word.split(",") for word in words[1:])]
            outline.slices.setdefault(int(words[0][:-1]), []).append(points)
        elif words[0] in {"start", "end"}:
            setattr(outline, words[0], int(words[1]))
        elif words[0] == "unknown":
            outline.unknown.append((int(words[1]), int(words[2])))
        else:
            outline = organs.setdefault(words[0], Outline())
            if words[1] == "absent":
                outline.absent = True
            elif words[1] in {"start", "end"}:
                setattr(outline, words[1], int(words[2]))
            else:
                outline.lowest_hu, outline.highest_hu = float(words[1]), float(words[2])
    return scans


def _filled(parts: list[list[tuple[float, float]]], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Signed distance to the outlines of a slice in voxels, negative inside."""
    mask = np.zeros(shape, bool)
    for points in parts:
        fine = Image.new("1", (shape[1] * 4, shape[0] * 4))
        # Points name voxels' middles.
        ImageDraw.Draw(fine).polygon([(4 * x + 2, 4 * y + 2) for x, y in points], fill=1)
        mask |= np.asarray(fine, np.float32).reshape(shape[0], 4, shape[1], 4).mean(axis=(1, 3)) > 0.5
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    return np.where(mask, 0.5 - inside, outside - 0.5).astype(np.float32)


def answer(
    outline: Outline, hu: NDArray[np.int16], labels: NDArray[np.uint8], *, rim: bool = True
) -> NDArray[np.uint8]:
    """Yes, no and unknown for one organ.

    Parameters
    ----------
    outline
        What was drawn.
    hu, labels
        The prepared scan and its rules' labels, ``(slices, rows, columns)``.
    rim
        Leave open what lies near an outline and looks no different outside; to judge a network, it is not left open.
    """
    result = np.full(hu.shape, UNKNOWN, np.uint8)
    z = np.arange(hu.shape[0])
    if outline.start is not None:
        result[z <= outline.start] = NO
    if outline.end is not None:
        result[z >= outline.end] = NO
    if outline.absent:
        result[:] = NO
    if not outline.slices:
        return result
    keys = sorted(outline.slices)
    distances = {key: _filled(outline.slices[key], hu.shape[1:]) for key in keys}
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.8)
    hollow = np.isin(labels, (LUNG_LEFT, LUNG_RIGHT, AIRWAYS))
    tissue = (smooth > outline.lowest_hu) & (smooth < outline.highest_hu) & ~hollow
    # Where fat or lung lies beside the organ, density draws the border; beside other soft tissue, only the eye did.
    plain_border = ~ndimage.binary_dilation((smooth < -20) | hollow)
    for index in np.nonzero((result == UNKNOWN).all(axis=(1, 2)))[0]:
        below = max((key for key in keys if key <= index), default=keys[0])
        above = min((key for key in keys if key >= index), default=keys[-1])
        share = 0.0 if above == below else (index - below) / (above - below)
        distance = (1 - share) * distances[below] + share * distances[above]
        beyond = not keys[0] - _BEYOND <= index <= keys[-1] + _BEYOND
        if beyond or any(low <= index <= high for low, high in outline.unknown):
            result[index][(distance > _FARTHEST) & rim] = NO
            continue
        here = np.full(hu.shape[1:], NO, np.uint8)
        organ = ndimage.binary_opening((distance < 0) & tissue[index])
        here[organ] = YES
        if not rim:
            result[index] = here
            continue
        here[(np.abs(distance) < _UNSURE) & plain_border[index] & tissue[index]] = UNKNOWN
        here[(distance < 0) & ~organ & (smooth[index] > -20) & ~hollow[index]] = UNKNOWN
        result[index] = here
    return result


def main() -> None:
    """Write the answers of every scan that has outlines."""
    prepared, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name, organs in read_contours().items():
        with np.load(prepared / f"{name}.npz") as item:
            hu, labels = item["hu"], item["labels"]
        answers = {organ: answer(outline, hu, labels) for organ, outline in organs.items()}
        np.savez_compressed(out / f"{name}.npz", **answers)
        print(name, {organ: f"{np.count_nonzero(a == YES) * 0.027:.0f} mL" for organ, a in answers.items()})


if __name__ == "__main__":
    main()
