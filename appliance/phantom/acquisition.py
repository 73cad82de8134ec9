"""The digital scanner: where each slice lies in the patient, and the slices it makes of the painted patient."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.grid import Banded, Grid, interpolation_matrix
from appliance.phantom.resolution import KERNEL_BLUR, spread_mm
from appliance.phantom.texture import generator, noise_amplitude, noise_gain, noise_slice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from appliance.phantom.canvas import Canvas
    from appliance.phantom.grid import Floats
    from appliance.phantom.lesions import Lesion
    from appliance.phantom.options import PhantomOptions

_ROW = {"HFS": (1.0, 0.0, 0.0), "HFP": (-1.0, 0.0, 0.0), "FFS": (-1.0, 0.0, 0.0), "FFP": (1.0, 0.0, 0.0)}
_COLUMN = {"HFS": (0.0, 1.0, 0.0), "HFP": (0.0, -1.0, 0.0), "FFS": (0.0, 1.0, 0.0), "FFP": (0.0, -1.0, 0.0)}
_MOST_LEFT_MM, _MOST_FRONT_MM, _MOST_BACK_MM = 235.0, -190.0, 215.0
# Numbers of the slices in hand at once; every slice has its own generator, so threads do not change the bytes.
_THREADS, _AHEAD = 2, 12
_DETECTOR_LOW_HU, _DETECTOR_HIGH_HU = -1024, 3071


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Planes of a series.

    Attributes
    ----------
    row_direction, column_direction
        Image Orientation (Patient): the direction in which the column index grows, then the row index, LPS.
    first_position_mm, step_mm
        Centre of the first pixel of the slice nearest the feet, and the way from slice to slice, LPS mm.
    slices
        How many.
    """

    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    first_position_mm: NDArray[np.float64]
    step_mm: NDArray[np.float64]
    slices: int
    pixel_spacing_mm: float

    def position_mm(self, index: int) -> NDArray[np.float64]:
        """Return Image Position (Patient) of a slice counted from the feet."""
        return np.asarray(self.first_position_mm + index * self.step_mm)

    def affine(self) -> NDArray[np.float64]:
        """Return index ``(slice, row, column, 1)`` to LPS mm; its first column leans when the gantry is tilted."""
        matrix = np.eye(4)
        matrix[:3, 0] = self.step_mm
        matrix[:3, 1] = self.column_direction * self.pixel_spacing_mm
        matrix[:3, 2] = self.row_direction * self.pixel_spacing_mm
        matrix[:3, 3] = self.first_position_mm
        return matrix


def _rotation(about_x_degrees: float, about_z_degrees: float) -> NDArray[np.float64]:
    a, b = np.deg2rad(about_x_degrees), np.deg2rad(about_z_degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x)


def series_geometry(options: PhantomOptions) -> Geometry:
    """Return where the slices of a series lie."""
    row = np.array(_ROW[options.patient_position])
    column = np.array(_COLUMN[options.patient_position])
    low, high = options.coverage_low_mm * options.height_scale, options.coverage_high_mm * options.height_scale
    spacing = options.slice_spacing_mm
    slices = int(np.floor((high - low) / spacing + 1e-9)) + 1
    step = np.array([0.0, 0.0, spacing])
    middle = np.array([options.centre_left_mm, options.centre_posterior_mm, low + 0.5 * spacing * (slices - 1)])
    if options.gantry_tilt_degrees:
        turn = _rotation(options.gantry_tilt_degrees, 0.0)
        row, column = turn @ row, turn @ column
    elif options.oblique_degrees:
        turn = _rotation(options.oblique_degrees, 0.5 * options.oblique_degrees)
        row, column, step = turn @ row, turn @ column, turn @ step
    pixel = options.pixel_spacing_mm
    first = middle - 0.5 * (slices - 1) * step
    first = first - 0.5 * pixel * ((options.columns - 1) * row + (options.rows - 1) * column)
    return Geometry(row, column, first, step, slices, pixel)


def patient_grid(options: PhantomOptions) -> Grid:
    """Return the grid the patient is painted on: what the scan sees, fine enough for its pixels."""
    geometry = series_geometry(options)
    corners = np.array(
        [
            geometry.position_mm(k) + geometry.row_direction * c + geometry.column_direction * r
            for k in (0, geometry.slices - 1)
            for c in (0.0, (options.columns - 1) * options.pixel_spacing_mm)
            for r in (0.0, (options.rows - 1) * options.pixel_spacing_mm)
        ]
    )
    low, high = corners.min(axis=0) - 3.0, corners.max(axis=0) + 3.0
    low = np.maximum(low, (-_MOST_LEFT_MM * options.width_scale, _MOST_FRONT_MM * options.depth_scale, -1e9))
    high = np.minimum(high, (_MOST_LEFT_MM * options.width_scale, _MOST_BACK_MM * options.depth_scale, 1e9))
    in_plane = float(np.clip(1.5 * options.pixel_spacing_mm, 1.1, 2.5))
    through = float(np.clip(options.slice_spacing_mm, 1.25, 2.5))
    margin = options.slice_thickness_mm + through
    low[2] -= margin
    high[2] += margin
    spacing = (through, in_plane, in_plane)
    origin = (float(low[2]), float(low[1]), float(low[0]))
    shape = tuple(int(np.ceil((high[a] - low[a]) / spacing[i])) + 1 for i, a in enumerate((2, 1, 0)))
    return Grid(origin, spacing, (shape[0], shape[1], shape[2]))


def _profile(grid: Grid, targets_mm: Floats, thickness_mm: float) -> Floats:
    """Weights that average a column of the grid over a box of the slice's thickness around each target."""
    samples = max(int(np.ceil(2.0 * thickness_mm / grid.spacing_mm[0])), 1)
    offsets = ((np.arange(samples) + 0.5) / samples - 0.5) * thickness_mm
    total = np.zeros((len(targets_mm), grid.shape[0]), dtype=np.float32)
    for offset in offsets:
        shifted = np.asarray(targets_mm + offset, dtype=np.float32)
        total += interpolation_matrix(grid.origin_mm[0], grid.spacing_mm[0], grid.shape[0], shifted, "linear")
    return np.asarray(total / samples, dtype=np.float32)


def _in_plane(grid: Grid, index: int, targets_mm: Floats, kernel: str) -> Floats:
    """Interpolate along one image axis with the kernel's blur or edge enhancement folded in."""
    kind = "cubic" if kernel == "sharp" else "linear"
    step, count = grid.spacing_mm[index], grid.shape[index]
    matrix = interpolation_matrix(grid.origin_mm[index], step, count, targets_mm, kind)  # type: ignore[arg-type]
    sigma, unsharp = KERNEL_BLUR[kernel]
    if sigma == 0.0:
        return matrix
    place = np.arange(count)
    gauss = np.exp(-0.5 * ((place[:, None] - place[None, :]) * step / sigma) ** 2)
    gauss[gauss < 1e-4] = 0.0  # keeps the matrix banded
    gauss = (gauss / gauss.sum(axis=1, keepdims=True)).astype(np.float32)
    if unsharp == 0.0:
        return np.asarray(matrix @ gauss, dtype=np.float32)
    return np.asarray((1.0 + unsharp) * matrix - unsharp * (matrix @ gauss), dtype=np.float32)


def scanner_blur_mm(options: PhantomOptions, grid: Grid) -> tuple[float, float]:
    """Return the standard deviation of the scanner's blur along the body and in plane, mm.

    Along the body it is the slice profile, in plane the kernel, both with the interpolation between the voxels on which
    the patient is painted. An edge-enhancing kernel counts as no blur.
    """
    low = options.coverage_low_mm * options.height_scale
    slices = (low + options.slice_spacing_mm * np.arange(series_geometry(options).slices)).astype(np.float32)
    along = spread_mm(_profile(grid, slices, options.slice_thickness_mm), grid.axis(0), slices)
    columns = (np.arange(options.columns) - 0.5 * (options.columns - 1)) * options.pixel_spacing_mm
    columns = columns + options.centre_left_mm
    inside = columns[(columns > grid.axis(2)[2]) & (columns < grid.axis(2)[-3])].astype(np.float32)
    in_plane = spread_mm(_in_plane(grid, 2, inside, options.kernel), grid.axis(2), inside)
    return along, in_plane


class Scanner:
    """Makes slices of a painted patient.

    Parameters
    ----------
    options
        How to scan.
    canvas
        The painted patient; its densities are consumed.
    lesions
        Plaques to digitise on the slices' own pixels.
    """

    def __init__(self, options: PhantomOptions, canvas: Canvas, lesions: tuple[Lesion, ...] = ()) -> None:
        self.options = options
        self.geometry = series_geometry(options)
        self.grid = canvas.grid
        self.lesions = lesions
        self._hu = canvas.hu
        self._amplitude = noise_amplitude(options.rows, options.columns, options.pixel_spacing_mm, options.kernel)
        self._stack: Floats | None = None
        if not options.oblique_degrees:
            self._prepare_straight()

    def _prepare_straight(self) -> None:
        """Average along z first; a tilted gantry only shifts the slices from row to row."""
        options, geometry, grid = self.options, self.geometry, self.grid
        tilt = np.deg2rad(options.gantry_tilt_degrees)
        middle_z = geometry.first_position_mm[2] + geometry.step_mm[2] * np.arange(geometry.slices)
        middle_z = middle_z + 0.5 * (options.rows - 1) * options.pixel_spacing_mm * geometry.column_direction[2]
        heights = grid.axis(1) - np.float32(options.centre_posterior_mm)
        thickness = options.slice_thickness_mm / float(np.cos(tilt))
        if tilt == 0.0:
            weights = _profile(grid, middle_z.astype(np.float32), thickness)
            flat = Banded(weights).left(self._hu.reshape(grid.shape[0], -1))
            self._stack = flat.reshape(geometry.slices, *grid.shape[1:])
            self._hu = self._hu[:0]
        else:
            self._stack = np.empty((geometry.slices, *grid.shape[1:]), dtype=np.float32)
            for j in range(grid.shape[1]):
                weights = _profile(grid, (middle_z + heights[j] * np.tan(tilt)).astype(np.float32), thickness)
                self._stack[:, j] = Banded(weights).left(self._hu[:, j])
        y = geometry.first_position_mm[1] + geometry.column_direction[1] * options.pixel_spacing_mm * np.arange(
            options.rows
        )
        x = geometry.first_position_mm[0] + geometry.row_direction[0] * options.pixel_spacing_mm * np.arange(
            options.columns
        )
        self._rows = Banded(_in_plane(grid, 1, y.astype(np.float32), options.kernel))
        self._columns = Banded(_in_plane(grid, 2, x.astype(np.float32), options.kernel))

    def clean_slice(self, index: int) -> Floats:
        """Return one slice without noise, float32 HU ``(rows, columns)``; slices count from the feet."""
        if self._stack is not None:
            image = np.ascontiguousarray(self._columns.along(self._rows.left(self._stack[index]), 1))
        else:
            image = self._oblique_slice(index)
        for lesion in self.lesions:
            lesion.draw(image, index)
        return np.asarray(image, dtype=np.float32)

    def _oblique_slice(self, index: int) -> Floats:
        from scipy.ndimage import affine_transform

        options, geometry, grid = self.options, self.geometry, self.grid
        flip = [2, 1, 0]
        spacing = np.array(grid.spacing_mm)
        matrix = (
            np.column_stack(
                [
                    geometry.step_mm[flip],
                    geometry.column_direction[flip] * geometry.pixel_spacing_mm,
                    geometry.row_direction[flip] * geometry.pixel_spacing_mm,
                ]
            )
            / spacing[:, None]
        )
        normal = geometry.step_mm / np.linalg.norm(geometry.step_mm)
        samples = max(round(options.slice_thickness_mm / grid.spacing_mm[0]), 1)
        total = np.zeros((options.rows, options.columns), dtype=np.float32)
        for k in range(samples):
            shift = ((k + 0.5) / samples - 0.5) * options.slice_thickness_mm * normal
            start = ((geometry.position_mm(index) + shift)[flip] - np.array(grid.origin_mm)) / spacing
            plane = affine_transform(
                self._hu, matrix, start, (1, options.rows, options.columns), np.float32, 1, cval=-1000.0
            )
            total += plane[0]
        return np.asarray(total / samples, dtype=np.float32)

    def noise_map(self, index: int) -> Floats:
        """Return the standard deviation of the noise, HU ``(rows, columns)``: highest behind the longest paths."""
        options = self.options
        height = self.geometry.position_mm(index)[2] / options.height_scale
        thick = float(
            np.interp(height, (-330, -180, -60, 40, 120, 190, 235, 270), (1.15, 1.05, 1.0, 0.85, 0.85, 1.2, 1.35, 0.8))
        )
        pixel = options.pixel_spacing_mm
        y = ((np.arange(options.rows) - 0.5 * (options.rows - 1)) * pixel / (140.0 * options.depth_scale)).astype(
            np.float32
        )
        x = ((np.arange(options.columns) - 0.5 * (options.columns - 1)) * pixel / (190.0 * options.width_scale)).astype(
            np.float32
        )
        falloff = np.exp(-(y * y))[:, None] * np.exp(-(x * x))[None, :]
        sd = options.noise_hu * noise_gain(options.kernel) * thick
        return np.asarray(sd * (0.35 + 0.65 * falloff), dtype=np.float32)

    def slice_hu(self, index: int) -> NDArray[np.int16]:
        """Return one finished slice, int16 HU ``(rows, columns)``."""
        options = self.options
        image = self.clean_slice(index)
        if options.noise_hu > 0.0:
            random = generator(options.seed, f"noise/{options.kernel}/{index}")
            image += noise_slice(self._amplitude, options.columns, random) * self.noise_map(index)
        np.clip(image, _DETECTOR_LOW_HU, _DETECTOR_HIGH_HU, out=image)
        np.rint(image, out=image)
        finished = image.astype(np.int16)
        if options.circular_padding_hu is not None:
            row = (np.arange(options.rows) - 0.5 * (options.rows - 1)) / (0.5 * options.rows)
            column = (np.arange(options.columns) - 0.5 * (options.columns - 1)) / (0.5 * options.columns)
            finished[row[:, None] ** 2 + column[None, :] ** 2 > 1.0] = options.circular_padding_hu
        return finished

    def slices(self, order: Sequence[int] | None = None) -> Iterator[NDArray[np.int16]]:
        """Yield slices in an order, by default all from the feet to the head; two threads work ahead of the reader."""
        indices = list(range(self.geometry.slices)) if order is None else list(order)
        with ThreadPoolExecutor(_THREADS) as pool:
            for first in range(0, len(indices), _AHEAD):
                yield from pool.map(self.slice_hu, indices[first : first + _AHEAD])
