"""Coronary plaques, digitised on the scan's own pixels so that their Agatston score can be counted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.acquisition import series_geometry
from appliance.phantom.frame import Frame
from appliance.phantom.mediastinum import Mediastinum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.phantom.grid import Floats
    from appliance.phantom.options import Calcification, PhantomOptions

_HALO_HU = 122.0
_HALO_MM = 1.3
_THRESHOLD_HU = 130.0
_SMALLEST_AREA_MM2 = 1.0
_REFERENCE_SPACING_MM = 3.0


def density_weight(peak_hu: float) -> int:
    """Return Agatston's weight for the highest density of a lesion (J Am Coll Cardiol 1990;15:827)."""
    return int(np.clip(peak_hu // 100.0, 1, 4)) if peak_hu >= _THRESHOLD_HU else 0


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """A plaque on the pixel grid: the same disc of pixels in a run of slices.

    Attributes
    ----------
    plaque
        What was asked for.
    centre_mm
        Its middle, LPS mm.
    first_slice, last_slice
        The run, counted from the feet, both included; clipped to the scan.
    pixels, halo
        Flat indices of the disc's pixels, and of the ring around it that keeps the plaque from looking cut out; the
        ring never reaches 130 HU.
    halo_weight
        How much of the ring's density each halo pixel takes.
    """

    plaque: Calcification
    centre_mm: tuple[float, float, float]
    first_slice: int
    last_slice: int
    pixels: NDArray[np.int64]
    halo: NDArray[np.int64]
    halo_weight: Floats
    pixel_area_mm2: float
    spacing_mm: float

    def draw(self, image: Floats, index: int) -> None:
        """Draw the plaque on a slice when it passes through it."""
        if not self.first_slice <= index <= self.last_slice:
            return
        flat = image.reshape(-1)
        around = flat[self.halo]
        flat[self.halo] = np.maximum(around, around + self.halo_weight * (_HALO_HU - around))
        flat[self.pixels] = self.plaque.peak_hu

    @property
    def slices(self) -> int:
        """How many slices of the scan the plaque is on."""
        return max(self.last_slice - self.first_slice + 1, 0)

    @property
    def area_mm2(self) -> float:
        """Area of the plaque in each of its slices."""
        return float(len(self.pixels)) * self.pixel_area_mm2

    @property
    def agatston_score(self) -> float:
        """Area × weight in every slice, summed, scaled from the scan's spacing to slices of 3 mm."""
        if self.area_mm2 < _SMALLEST_AREA_MM2:
            return 0.0
        weight = density_weight(self.plaque.peak_hu)
        return self.slices * self.area_mm2 * weight * self.spacing_mm / _REFERENCE_SPACING_MM

    @property
    def volume_mm3(self) -> float:
        """Volume of the digitised plaque when it reaches 130 HU."""
        if self.plaque.peak_hu < _THRESHOLD_HU:
            return 0.0
        return self.slices * self.area_mm2 * self.spacing_mm


def digitise(options: PhantomOptions) -> tuple[Lesion, ...]:
    """Return the plaques on the pixels of the series; plaques that would overlap are refused.

    Raises
    ------
    ValueError
        When two plaques share a pixel, because their score would no longer be the sum.
    """
    if not options.calcifications:
        return ()
    mediastinum = Mediastinum(Frame(options))
    lesions = tuple(_digitise_one(options, mediastinum, plaque) for plaque in options.calcifications)
    for k, one in enumerate(lesions):
        for other in lesions[k + 1 :]:
            apart = one.last_slice < other.first_slice - 1 or other.last_slice < one.first_slice - 1
            touching = np.intersect1d(np.r_[one.pixels, one.halo], np.r_[other.pixels, other.halo]).size
            if not apart and touching:
                raise ValueError("two calcifications touch each other; move them apart so that their score is exact")
    return lesions


def _digitise_one(options: PhantomOptions, mediastinum: Mediastinum, plaque: Calcification) -> Lesion:
    course = mediastinum.coronary(plaque.vessel)
    place = course[round(plaque.position_fraction * (len(course) - 1))]
    centre = np.array([place[2], place[1], place[0]])
    geometry = series_geometry(options)
    index = np.linalg.solve(geometry.affine()[:3, :3], centre - geometry.first_position_mm)
    spacing = float(np.linalg.norm(geometry.step_mm))
    count = max(round(plaque.height_mm / spacing), 1)
    first = round(float(index[0]) - 0.5 * (count - 1))
    rows = (np.arange(options.rows) - index[1]) * options.pixel_spacing_mm
    columns = (np.arange(options.columns) - index[2]) * options.pixel_spacing_mm
    distance = np.hypot(rows[:, None], columns[None, :]).ravel() - 0.5 * plaque.diameter_mm
    pixels = np.flatnonzero(distance <= 0.0)
    halo = np.flatnonzero((distance > 0.0) & (distance < _HALO_MM))
    return Lesion(
        plaque,
        (float(centre[0]), float(centre[1]), float(centre[2])),
        max(first, 0),
        min(first + count - 1, geometry.slices - 1),
        pixels,
        halo,
        np.asarray(1.0 - distance[halo] / _HALO_MM, dtype=np.float32),
        options.pixel_spacing_mm**2,
        spacing,
    )
