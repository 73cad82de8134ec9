"""Where slices lie in the patient: order, spacing and tilt, from Image Position and Orientation (Patient) only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.dicom.image.refusals import refuse
from appliance.reasons import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from appliance.dicom.image.functional_groups import FrameHeader

SAME_PLACE_MM = 0.02
"""Two slices nearer than this lie at the same place; no scanner reconstructs at a finer step."""

STEP_TOLERANCE_MM = 0.12
STEP_TOLERANCE_SHARE = 0.03
"""A step may differ from the median step by the larger of both: positions are often rounded to 0.1 mm."""

DRIFT_TOLERANCE_MM = 0.15
DRIFT_TOLERANCE_SHARE = 0.06
"""A slice may lie this far from the regular grid, along the normal, the larger of both counting."""

SIDEWAYS_TOLERANCE_MM = 1.0
"""Image origins may leave the straight line of a tilted gantry by this much."""

ORIENTATION_TOLERANCE = 0.01
"""Largest difference of a direction cosine between two slices of one series (0.6°)."""

_NEGLIGIBLE_SHIFT_PIXELS = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """Directions that all slices of a series share.

    Attributes
    ----------
    row, column
        Unit vectors, LPS, in which the row index and the column index grow.
    normal
        Unit vector in which slices are stacked: along the row of an image × down its columns.
    """

    row: NDArray[np.float64]
    column: NDArray[np.float64]
    normal: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A regular stack of slices.

    Attributes
    ----------
    affine
        As documented for ``Volume``.
    shape
        Slices, rows, columns of the volume: with a tilt, larger than the images.
    shifts
        float64, ``(slices, 2)``: row and column of the volume at which the first pixel of each image lies; zero
        without a tilt.
    tilt_degrees
        Angle between the stacking direction and the normal of the images.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    shifts: NDArray[np.float64]
    tilt_degrees: float

    @property
    def sheared(self) -> bool:
        """Whether slices must be moved within their planes."""
        return bool(self.shifts.any())


def common_axes(frames: Sequence[FrameHeader]) -> Axes:
    """Find the orientation that all frames share.

    Parameters
    ----------
    frames
        Frames that all have an orientation.

    Returns
    -------
    Axes
        Orthonormal directions, their mean over the frames.

    Raises
    ------
    InputRefusedError
        ``MISSING_GEOMETRY`` when a pair of directions is not two perpendicular unit vectors, ``MIXED_ORIENTATION``
        when frames differ.
    """
    cosines = np.array([frame.orientation for frame in frames], dtype=np.float64)
    along_row, along_column = cosines[:, :3], cosines[:, 3:]
    lengths = np.concatenate([np.linalg.norm(along_row, axis=1), np.linalg.norm(along_column, axis=1)])
    dots = np.einsum("ij,ij->i", along_row, along_column)
    if np.abs(lengths - 1).max() > 0.02 or np.abs(dots).max() > 0.02:
        refuse(
            ReasonCode.MISSING_GEOMETRY,
            "Image Orientation (Patient) is not a pair of perpendicular unit vectors; the patient's axes are unknown.",
        )
    differing = int((np.abs(cosines - np.median(cosines, axis=0)).max(axis=1) > ORIENTATION_TOLERANCE).sum())
    if differing:
        refuse(
            ReasonCode.MIXED_ORIENTATION,
            f"{differing} of {len(frames)} slices are oriented differently from the others; one series must have one "
            "orientation.",
        )
    columns_grow = along_row.mean(axis=0)
    columns_grow /= np.linalg.norm(columns_grow)
    rows_grow = along_column.mean(axis=0)
    rows_grow -= (rows_grow @ columns_grow) * columns_grow
    rows_grow /= np.linalg.norm(rows_grow)
    return Axes(row=rows_grow, column=columns_grow, normal=np.cross(columns_grow, rows_grow))


def check_spacing(heights_mm: NDArray[np.float64]) -> None:
    """Make sure that sorted slices lie on a regular grid.

    Parameters
    ----------
    heights_mm
        float64, ``(slices,)``: position along the normal, growing, no two at the same place.

    Raises
    ------
    InputRefusedError
        ``MISSING_SLICE`` when every odd step is a whole multiple of the usual one, else ``IRREGULAR_SPACING``.
    """
    steps = np.diff(heights_mm)
    usual = float(np.median(steps))
    tolerance = max(STEP_TOLERANCE_MM, STEP_TOLERANCE_SHARE * usual)
    multiples = np.rint(steps / usual)
    odd = np.abs(steps - usual) > tolerance
    if odd.any():
        whole = (multiples >= 2) & (np.abs(steps - multiples * usual) <= tolerance)
        # Pieces with another spacing are not gaps: a few missing slices leave most steps as they were.
        if whole[odd].all() and odd.mean() <= 0.25:
            missing = int((multiples[odd] - 1).sum())
            refuse(
                ReasonCode.MISSING_SLICE,
                f"{missing} {'slice is' if missing == 1 else 'slices are'} missing in {int(odd.sum())} "
                f"{'gap' if odd.sum() == 1 else 'gaps'} (slices every {usual:.2f} mm, largest step "
                f"{steps.max():.2f} mm); send the series again.",
            )
        refuse(
            ReasonCode.IRREGULAR_SPACING,
            f"Slices are {steps.min():.2f} to {steps.max():.2f} mm apart ({int(odd.sum())} of {steps.size} steps "
            f"differ from the usual {usual:.2f} mm by more than {tolerance:.2f} mm); the series joins pieces that "
            "must be sent as series of their own.",
        )
    grid = np.linspace(heights_mm[0], heights_mm[-1], heights_mm.size)
    drift = float(np.abs(heights_mm - grid).max())
    if drift > max(DRIFT_TOLERANCE_MM, DRIFT_TOLERANCE_SHARE * usual):
        refuse(
            ReasonCode.IRREGULAR_SPACING,
            f"Slices leave the regular grid by up to {drift:.2f} mm at a spacing of {usual:.2f} mm.",
        )


def make_grid(
    positions_mm: NDArray[np.float64],
    axes: Axes,
    spacing_mm: tuple[float, float],
    size: tuple[int, int],
    maximum_tilt_degrees: float,
) -> Grid:
    """Lay a regular grid with perpendicular axes over sorted slices.

    The slices stay in their planes. Where the stacking direction is not their normal (a tilted gantry), each slice is
    to be moved within its plane, and the grid is made large enough for nothing to be cut off.

    Parameters
    ----------
    positions_mm
        float64, ``(slices, 3)``, LPS: first pixel of each slice, sorted along the normal.
    axes
        Orientation of the slices.
    spacing_mm
        Between rows, between columns.
    size
        Rows, columns of an image.
    maximum_tilt_degrees
        Steeper stacks are refused.

    Returns
    -------
    Grid
        Where every voxel of the volume lies.

    Raises
    ------
    InputRefusedError
        ``MIXED_GEOMETRY`` when the slices are shifted sideways in another way than a tilt does, or tilted too much.
    """
    slices = len(positions_mm)
    offsets = positions_mm - positions_mm[0]
    height = float(offsets[-1] @ axes.normal)
    sideways_mm = np.stack([offsets @ axes.row, offsets @ axes.column], axis=1)
    line = np.linspace(0.0, 1.0, slices)[:, None] * sideways_mm[-1]
    scatter = float(np.abs(sideways_mm - line).max())
    if scatter > SIDEWAYS_TOLERANCE_MM:
        refuse(
            ReasonCode.MIXED_GEOMETRY,
            f"The slices' origins jump sideways by up to {scatter:.1f} mm; the field of view changed in the series.",
        )
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(sideways_mm[-1]), height)))
    if tilt > maximum_tilt_degrees:
        refuse(
            ReasonCode.MIXED_GEOMETRY,
            f"Positions and orientation disagree: slices are stacked at {tilt:.0f}° to their normal, at most "
            f"{maximum_tilt_degrees:.0f}° can be a gantry tilt.",
        )
    shifts = sideways_mm / np.asarray(spacing_mm)
    if np.abs(shifts).max() < _NEGLIGIBLE_SHIFT_PIXELS:
        shifts = np.zeros_like(shifts)
        tilt = 0.0
    first = np.floor(shifts.min(axis=0) + 1e-6)
    extra = np.ceil(shifts.max(axis=0) - first - 1e-6).astype(int)
    origin = positions_mm[0] + first[0] * spacing_mm[0] * axes.row + first[1] * spacing_mm[1] * axes.column
    affine = np.eye(4)
    affine[:3, 0] = axes.normal * (height / (slices - 1))
    affine[:3, 1] = axes.row * spacing_mm[0]
    affine[:3, 2] = axes.column * spacing_mm[1]
    affine[:3, 3] = origin
    shape = (slices, size[0] + int(extra[0]), size[1] + int(extra[1]))
    return Grid(affine, shape, shifts - first, tilt)


def place_slice(image: NDArray[np.int16], shift: NDArray[np.float64], out: NDArray[np.int16], fill: int) -> None:
    """Move one image within its plane by linear interpolation.

    Parameters
    ----------
    image
        int16, ``(rows, columns)``.
    shift
        Row and column of ``out`` at which the image's first pixel lies; not negative.
    out
        int16, filled completely.
    fill
        Value where the image does not reach.
    """
    out[...] = fill
    whole = np.floor(shift + 1e-6).astype(int)
    rest = np.clip(shift - whole, 0.0, 1.0)
    moved: NDArray[np.float32] = image.astype(np.float32)
    edge = [0, 0]  # rows and columns that have only one neighbour and stay unfilled
    for axis in (0, 1):
        if rest[axis] > 1e-4:
            here, before = (moved[1:], moved[:-1]) if axis == 0 else (moved[:, 1:], moved[:, :-1])
            moved = here * np.float32(1 - rest[axis]) + before * np.float32(rest[axis])
            edge[axis] = 1
    top, left = whole[0] + edge[0], whole[1] + edge[1]
    rows, columns = moved.shape
    out[top : top + rows, left : left + columns] = np.rint(moved)
