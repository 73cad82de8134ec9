"""The phantom's front door: as a volume, as a labelled training pair, or as a DICOM series on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.acquisition import Scanner, patient_grid, scanner_blur_mm, series_geometry
from appliance.phantom.grid import Grid
from appliance.phantom.lesions import digitise
from appliance.phantom.patient import paint_patient
from appliance.phantom.texture import generator, smooth_field
from appliance.phantom.tissues import LEVEL_VALUES, STRUCTURE_VALUES, structure_table
from appliance.phantom.truth import tell_truth
from appliance.scan import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.phantom.options import PhantomOptions
    from appliance.phantom.truth import Truth


def scan_patient(options: PhantomOptions) -> tuple[Scanner, Truth]:
    """Paint the patient, put it in the scanner, and tell the truth about it."""
    grid = patient_grid(options)
    canvas = paint_patient(options, grid, scanner_blur_mm(options, grid))
    lesions = digitise(options)
    truth = tell_truth(options, canvas, lesions)
    return Scanner(options, canvas, lesions), truth


def render(options: PhantomOptions) -> tuple[Volume, Truth]:
    """Render the scan as a volume, without DICOM.

    Slices run from the feet to the head whatever ``slice_order`` says.

    Raises
    ------
    ValueError
        With a tilted gantry or a missing slice: such a scan is not a regular volume, write it as a series.
    """
    if options.gantry_tilt_degrees or options.missing_slice is not None:
        raise ValueError("a tilted or gapped scan is not a regular volume; use write_series")
    scanner, truth = scan_patient(options)
    hu = np.empty((scanner.geometry.slices, options.rows, options.columns), dtype=np.int16)
    for index, image in enumerate(scanner.slices()):
        hu[index] = image
    return Volume(hu, series_geometry(options).affine()), truth


def label_map(
    options: PhantomOptions, spacing_mm: float = 3.0, *, levels: bool = False
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64], dict[str, int]]:
    """Return a labelled volume on a canonical grid, for training networks.

    The slice axis grows towards the head, rows towards the back, columns towards the patient's left. The image is what
    the scan of ``options`` looks like when it is resampled to ``spacing_mm``: cut by its field of view, with its noise
    averaged over the larger voxels.

    Parameters
    ----------
    options
        The patient and the scan.
    spacing_mm
        Of the grid.
    levels
        Label every vertebral body by its level instead of all as ``vertebral_bodies``.

    Returns
    -------
    hu, labels, affine, values
        int16 HU; uint8 labels of the same shape; index ``(slice, row, column, 1)`` to LPS mm; structure name to label.
    """
    half_columns = 0.5 * options.columns * options.pixel_spacing_mm
    half_rows = 0.5 * options.rows * options.pixel_spacing_mm
    low = (
        options.coverage_low_mm * options.height_scale,
        options.centre_posterior_mm - half_rows,
        options.centre_left_mm - half_columns,
    )
    high = (
        options.coverage_high_mm * options.height_scale,
        options.centre_posterior_mm + half_rows,
        options.centre_left_mm + half_columns,
    )
    shape = tuple(max(int((h - lo) / spacing_mm), 1) for lo, h in zip(low, high, strict=True))
    origin = tuple(lo + 0.5 * spacing_mm for lo in low)
    grid = Grid((origin[0], origin[1], origin[2]), (spacing_mm,) * 3, (shape[0], shape[1], shape[2]))
    canvas = paint_patient(options, grid)
    image = canvas.hu
    if options.noise_hu > 0.0:
        # Noise at working resolution is nearly white in plane; averaging leaves about a third of the pixel's.
        random = generator(options.seed, "label map noise")
        gain = {"soft": 0.45, "medium": 0.5, "sharp": 0.7}[options.kernel]
        slow = 1.0 + 0.3 * smooth_field(options.seed, "label map noise map", 120.0, grid)
        image += (options.noise_hu * gain) * slow * random.standard_normal(grid.shape, dtype=np.float32)
    np.clip(image, -1024, 3071, out=image)
    if options.circular_padding_hu is not None:
        row = (grid.axis(1) - options.centre_posterior_mm) / half_rows
        column = (grid.axis(2) - options.centre_left_mm) / half_columns
        image[:, row[:, None] ** 2 + column[None, :] ** 2 > 1.0] = options.circular_padding_hu
    labels = structure_table(levels=levels, stone_side=options.kidney_stone_side)[canvas.tissue]
    values = dict(STRUCTURE_VALUES)
    if levels:
        del values["vertebral_bodies"]
        values |= LEVEL_VALUES
    affine = np.array(
        [
            [0.0, 0.0, spacing_mm, origin[2]],
            [0.0, spacing_mm, 0.0, origin[1]],
            [spacing_mm, 0.0, 0.0, origin[0]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    return np.rint(image).astype(np.int16), labels, affine, values


def write_series(options: PhantomOptions, folder: Path) -> Truth:
    """Write the scan as a DICOM series and ``truth.json`` into a folder.

    The folder is made when it does not exist; files of the same names are replaced. The same options give the same
    bytes.

    Returns
    -------
    Truth
        The known answers, as in ``truth.json``.
    """
    from appliance.phantom.dicom_writer import write_files

    scanner, truth = scan_patient(options)
    write_files(options, scanner, truth, folder)
    return truth
