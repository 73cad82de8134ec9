"""Deterministic irregularity: smooth random fields for shapes and tissue, and image noise with a kernel's spectrum."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.grid import Field, interpolation_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.phantom.grid import Floats, Grid
    from appliance.phantom.options import Kernel

_PERIOD = 96

# (half-power frequency of the apodisation in 1/mm, its order); the ramp rises before it as in filtered backprojection.
_SPECTRUM = {"soft": (0.32, 4.0), "medium": (0.45, 4.0), "sharp": (0.75, 6.0)}
_NOISE_GAIN = {"soft": 1.0, "medium": 1.5, "sharp": 3.2}


def generator(seed: int, name: str) -> np.random.Generator:
    """Return an independent generator for a named purpose."""
    return np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(name.encode())])


def random_field(seed: int, name: str, length_mm: float, grid: Grid) -> Field:
    """Return a smooth random field on ``grid``: mean 0, standard deviation 1, features of about ``length_mm``.

    The field is a function of the place in the patient, so two grids see the same texture; it repeats after
    ``96 × length_mm``.
    """
    along, places = [], []
    for index in range(3):
        axis = grid.axis(index)
        low = int(np.floor(float(axis[0]) / length_mm)) - 1
        count = int(np.ceil(float(axis[-1]) / length_mm)) + 3 - low
        along.append(interpolation_matrix(low * length_mm, length_mm, count, axis, "spline"))
        places.append((low + np.arange(count)) % _PERIOD)
    planes = {
        int(plane): generator(seed, f"{name}/{plane}").standard_normal((_PERIOD, _PERIOD), dtype=np.float32)
        for plane in np.unique(places[0])
    }
    lattice = np.stack([planes[int(plane)][np.ix_(places[1], places[2])] for plane in places[0]])
    # Interpolation averages neighbours: bring the variance back to one.
    power = np.prod([float((matrix.astype(np.float64) ** 2).sum(axis=1).mean()) for matrix in along])
    lattice *= np.float32(1.0 / np.sqrt(power))
    return Field(lattice, along)


def smooth_field(seed: int, name: str, length_mm: float, grid: Grid) -> Floats:
    """Return :func:`random_field` on the whole grid."""
    return random_field(seed, name, length_mm, grid).whole()


def noise_amplitude(rows: int, columns: int, pixel_spacing_mm: float, kernel: Kernel) -> NDArray[np.float32]:
    """Return the amplitude ``(rows, columns // 2 + 1)`` of unit-variance noise with the kernel's spectrum."""
    half_power, order = _SPECTRUM[kernel]
    fy = np.fft.fftfreq(rows, pixel_spacing_mm)[:, None]
    fx = np.fft.rfftfreq(columns, pixel_spacing_mm)[None, :]
    radius = np.hypot(fy, fx)
    amplitude = np.sqrt(radius + 0.01) / (1.0 + (radius / half_power) ** order)
    # The noise is drawn in the frequency domain: undo the transform's scale so that the image has unit variance.
    twice = np.full(fx.shape, 2.0)
    twice[:, 0] = 1.0
    if columns % 2 == 0:
        twice[:, -1] = 1.0
    power = float((amplitude**2 * twice).sum())
    return np.asarray(amplitude / np.sqrt(power) * rows * columns, dtype=np.float32)


def noise_slice(amplitude: NDArray[np.float32], columns: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return one slice of coloured noise of unit variance, shape ``(rows, columns)``."""
    from scipy.fft import irfft2

    rows = amplitude.shape[0]
    parts = random.standard_normal((*amplitude.shape, 2), dtype=np.float32)
    spectrum = parts.view(np.complex64)[..., 0] * amplitude
    spectrum *= np.float32(np.sqrt(0.5))
    return np.asarray(irfft2(spectrum, s=(rows, columns), overwrite_x=True), dtype=np.float32)


def noise_gain(kernel: Kernel) -> float:
    """How much noisier a kernel is than the soft one on the same raw data."""
    return _NOISE_GAIN[kernel]
