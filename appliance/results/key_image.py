"""The key image: one slice in the patient's orientation, with what was counted, the number and the threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.results.report import NOTICE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.scan import Scan
    from appliance.screenings.contract import Evidence

_SIDE_PX = 768
_COUNTED_RGB = (235, 64, 52)
_OUTLINE_RGB = (64, 200, 255)


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
    from PIL import Image, ImageDraw, ImageFont

    plane = scan.volume.hu[evidence.key_slice]
    rgb = _paint(plane, evidence)
    rgb, height_mm, width_mm = _to_patient_view(rgb, scan)
    scale = _SIDE_PX / max(height_mm, width_mm)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    picture = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)

    font = ImageFont.load_default(size=18)
    small = ImageFont.load_default(size=15)
    lines = (*evidence.lines, f"slice {evidence.key_slice + 1} of {scan.volume.shape[0]}")
    band_px = 40 + 24 * len(lines)
    canvas = Image.new("RGB", (_SIDE_PX, _SIDE_PX + band_px + 32), (0, 0, 0))
    canvas.paste(picture, ((_SIDE_PX - size[0]) // 2, (_SIDE_PX - size[1]) // 2))
    draw = ImageDraw.Draw(canvas)
    middle = _SIDE_PX // 2
    for letter, place in (("R", (8, middle - 10)), ("L", (_SIDE_PX - 22, middle - 10)), ("A", (middle - 6, 4))):
        draw.text(place, letter, font=font, fill=(255, 255, 0), stroke_width=2, stroke_fill=(0, 0, 0))
    draw.text((12, _SIDE_PX + 8), title, font=font, fill=(255, 255, 255))
    for row, line in enumerate(lines):
        draw.text((12, _SIDE_PX + 36 + 24 * row), line, font=font, fill=(220, 220, 220))
    draw.text((12, _SIDE_PX + band_px + 6), NOTICE, font=small, fill=(255, 190, 90))
    canvas.save(path, format="PNG")


def _paint(plane: NDArray[np.int16], evidence: Evidence) -> NDArray[np.uint8]:
    from scipy import ndimage

    low, high = evidence.window_hu
    grey = np.clip((plane.astype(np.float32) - low) / (high - low) * 255.0, 0, 255).astype(np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    rgb[evidence.mask] = (0.35 * rgb[evidence.mask] + 0.65 * np.array(_COUNTED_RGB)).astype(np.uint8)
    organ = ndimage.binary_fill_holes(evidence.outline if evidence.outline is not None else evidence.mask)
    rgb[organ & ~ndimage.binary_erosion(organ)] = _OUTLINE_RGB
    return rgb


def _to_patient_view(rgb: NDArray[np.uint8], scan: Scan) -> tuple[NDArray[np.uint8], float, float]:
    """Turn an axial slice so that anterior is up and the patient's right is at the left of the picture.

    Returns
    -------
    rgb, height_mm, width_mm
        The turned picture and its size in the patient.
    """
    affine = scan.volume.affine
    row, column = affine[:2, 1], affine[:2, 2]  # what one step along rows and columns does to L and P
    height_mm = scan.volume.spacing_mm[1] * rgb.shape[0]
    width_mm = scan.volume.spacing_mm[2] * rgb.shape[1]
    if abs(row[0]) > abs(row[1]):
        rgb = rgb.transpose(1, 0, 2)
        row, column = column, row
        height_mm, width_mm = width_mm, height_mm
    if row[1] < 0:
        rgb = rgb[::-1]
    if column[0] < 0:
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb), height_mm, width_mm
