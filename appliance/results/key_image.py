"""The key image: one slice in the patient's orientation, with what was counted, the number and the threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.results.report import NOTICE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image as Picture
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from appliance.scan import Scan
    from appliance.screenings.contract import Evidence

_SIDE_PX = 768
_COUNTED_RGB = (235, 64, 52)
_OUTLINE_RGB = (64, 200, 255)
_STROKE_RGB = (255, 225, 64)


def write_key_image(path: Path, scan: Scan, title: str, evidence: Evidence) -> None:
    """Write an 8-bit colour PNG.

    Parameters
    ----------
    path
        File to write.
    scan
        The scan the evidence points into.
    title
        Name of the screening, for people.
    evidence
        Slice, masks, window and words.
    """
    draw_key_image(scan, title, evidence).save(path, format="PNG")


def _built_in(size_px: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size=size_px)


def draw_key_image(
    scan: Scan,
    title: str,
    evidence: Evidence,
    *,
    lines: tuple[str, ...] | None = None,
    notice: str = NOTICE,
    font_of: Callable[[int], FreeTypeFont | ImageFont] = _built_in,
) -> Picture:
    """Draw the picture that :func:`write_key_image` writes.

    Parameters
    ----------
    scan, title, evidence
        As there.
    lines
        The words below the picture; by default those of the evidence and which plane it is.
    notice
        What stands at the bottom.
    font_of
        Size in pixels to font.
    """
    from PIL import Image, ImageDraw

    view = _view(scan, evidence.axis)
    rgb = view.turn(_paint(np.take(scan.volume.hu, evidence.key_slice, axis=evidence.axis), evidence))
    scale = _SIDE_PX / max(view.size_mm)
    size = (max(1, round(view.size_mm[1] * scale)), max(1, round(view.size_mm[0] * scale)))
    picture = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)
    lines_drawn = ImageDraw.Draw(picture)
    for stroke in evidence.strokes:
        ends = [view.place(end, size) for end in stroke]
        lines_drawn.line(ends, fill=_STROKE_RGB, width=3)

    font, small = font_of(18), font_of(15)
    if lines is None:
        what = ("slice", "row", "column")[evidence.axis]
        lines = (*evidence.lines, f"{what} {evidence.key_slice + 1} of {scan.volume.shape[evidence.axis]}")
    band_px = 40 + 24 * len(lines)
    canvas = Image.new("RGB", (_SIDE_PX, _SIDE_PX + band_px + 32), (0, 0, 0))
    canvas.paste(picture, ((_SIDE_PX - size[0]) // 2, (_SIDE_PX - size[1]) // 2))
    draw = ImageDraw.Draw(canvas)
    middle = _SIDE_PX // 2
    places = ((8, middle - 10), (_SIDE_PX - 22, middle - 10), (middle - 6, 4))
    for letter, place in zip(view.letters, places, strict=True):
        draw.text(place, letter, font=font, fill=(255, 255, 0), stroke_width=2, stroke_fill=(0, 0, 0))
    draw.text((12, _SIDE_PX + 8), title, font=font, fill=(255, 255, 255))
    for row, line in enumerate(lines):
        draw.text((12, _SIDE_PX + 36 + 24 * row), line, font=font, fill=(220, 220, 220))
    draw.text((12, _SIDE_PX + band_px + 6), notice, font=small, fill=(255, 190, 90))
    return canvas


def _paint(plane: NDArray[np.int16], evidence: Evidence) -> NDArray[np.uint8]:
    from scipy import ndimage

    low, high = evidence.window_hu
    grey = np.clip((plane.astype(np.float32) - low) / (high - low) * 255.0, 0, 255).astype(np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    rgb[evidence.mask] = (0.35 * rgb[evidence.mask] + 0.65 * np.array(_COUNTED_RGB)).astype(np.uint8)
    organ = ndimage.binary_fill_holes(evidence.outline if evidence.outline is not None else evidence.mask)
    rgb[organ & ~ndimage.binary_erosion(organ)] = _OUTLINE_RGB
    return rgb


@dataclass(frozen=True, slots=True)
class _View:
    """How a plane of the volume is turned for people.

    Attributes
    ----------
    transposed, flipped
        What is done to the plane's two axes, in that order.
    shape
        Of the plane as it lies in the volume.
    size_mm
        Height and width of the picture in the patient.
    letters
        What lies at the left, right and upper edge.
    """

    transposed: bool
    flipped: tuple[bool, bool]
    shape: tuple[int, int]
    size_mm: tuple[float, float]
    letters: tuple[str, str, str]

    def turn(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture of the plane, ``(first axis, second axis, 3)``."""
        if self.transposed:
            rgb = rgb.transpose(1, 0, 2)
        return np.ascontiguousarray(rgb[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flipped)])

    def place(self, index: tuple[float, float], size_px: tuple[int, int]) -> tuple[float, float]:
        """Return where a fractional index of the plane lies in the turned and resized picture, ``(x, y)``."""
        lengths = self.shape[::-1] if self.transposed else self.shape
        ordered = index[::-1] if self.transposed else index
        down, right = (
            (length - 1 - at if flip else at) for at, length, flip in zip(ordered, lengths, self.flipped, strict=True)
        )
        return (right + 0.5) * size_px[0] / lengths[1], (down + 0.5) * size_px[1] / lengths[0]


def _view(scan: Scan, axis: int) -> _View:
    """Anterior or the head is up, the patient's right or front at the left, whatever the volume's orientation."""
    volume = scan.volume
    first, second = (other for other in range(3) if other != axis)
    directions = volume.affine[:3, [first, second]] / np.linalg.norm(volume.affine[:3, [first, second]], axis=0)
    # the patient's axis (L, P or H) that each axis of the plane follows best, together
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    along = max(pairs, key=lambda pair: abs(directions[pair[0], 0]) + abs(directions[pair[1], 1]))
    # the higher of the patient's axes goes up the picture: P under L or H over either
    transposed = along[0] < along[1]
    order = (1, 0) if transposed else (0, 1)
    down, right = along[order[0]], along[order[1]]
    downwards, rightwards = directions[down, order[0]], directions[right, order[1]]
    flipped = (bool(downwards > 0) if down == 2 else bool(downwards < 0), bool(rightwards < 0))
    lengths_mm = [volume.spacing_mm[item] * volume.shape[item] for item in (first, second)]
    return _View(
        transposed,
        flipped,
        (volume.shape[first], volume.shape[second]),
        (lengths_mm[order[0]], lengths_mm[order[1]]),
        ("RA"[right], "LP"[right], "RAH"[down]),
    )
