"""The images of one series as a stack: sorted by height, checked from their headers alone, and sketched.

What is refused here is refused before a pixel is decoded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from appliance.dicom.image.eligibility import select_axial_frames
from appliance.dicom.image.geometry import SAME_PLACE_MM, check_spacing, common_axes
from appliance.dicom.image.headers import InstanceHeader, UnreadableFileError, read_header
from appliance.dicom.image.kernels import kernel_family
from appliance.dicom.image.pixels import PixelDataError, check_complete
from appliance.dicom.image.refusals import refuse
from appliance.errors import InputRefusedError
from appliance.reasons import ReasonCode
from appliance.scan import Acquisition, ContrastTag, SeriesSketch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from appliance.dicom.image.eligibility import Frame
    from appliance.dicom.image.geometry import Axes


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """What a series must be to become a scan.

    Attributes
    ----------
    minimum_slices
        Fewer slices are refused.
    minimum_extent_mm
        Slices × spacing must cover at least this much of the patient.
    maximum_voxels
        Checked before memory is asked for; a voxel takes two bytes.
    maximum_tilt_degrees
        Steepest gantry tilt; scanners reach 30°.
    maximum_angle_to_axial_degrees
        Largest angle between the slices' normal and the patient's long axis.
    """

    minimum_slices: int = 10
    minimum_extent_mm: float = 30.0
    maximum_voxels: int = 512 * 1024 * 1024
    maximum_tilt_degrees: float = 35.0
    maximum_angle_to_axial_degrees: float = 45.0


DEFAULT_LIMITS = BuildLimits()


def sketch_series(series: Iterable[InstanceHeader | Path], *, limits: BuildLimits = DEFAULT_LIMITS) -> SeriesSketch:
    """Tell what a series is from its headers alone, as :func:`~appliance.dicom.image.volume.build_scan` would build it.

    Images that claim the same place count once here; whether they are the same image is known only from their pixels.

    Raises
    ------
    InputRefusedError
        When the headers already show that no volume can be built.
    """
    frames = select_axial_frames(read_headers(series), [])
    check_pixel_data_present(frames)
    common_geometry(frames)
    axes = common_axes([header.frames[index] for header, index in frames])
    check_axial(axes, limits)
    frames, heights_mm = sorted_by_height(frames, axes)
    first = np.flatnonzero(np.diff(heights_mm, prepend=-np.inf) > SAME_PLACE_MM)
    frames, heights_mm = [frames[index] for index in first], heights_mm[first]
    check_count(heights_mm, limits)
    check_regular(frames, heights_mm)
    numbers = {number for header, index in frames if (number := header.frames[index].acquisition_number) is not None}
    return SeriesSketch(
        study_instance_uid=max(header.study_instance_uid for header, _ in frames),
        series_instance_uid=frames[0][0].series_instance_uid,
        frame_of_reference_uid=max(header.frame_of_reference_uid for header, _ in frames),
        series_number=frames[0][0].series_number,
        acquisition_numbers=frozenset(numbers),
        extent_mm=(float(heights_mm[0]), float(heights_mm[-1])),
        slice_spacing_mm=float(np.median(np.diff(heights_mm))),
        acquisition=acquisition_of(frames, 0.0, []),
    )


def read_headers(series: Iterable[InstanceHeader | Path]) -> list[InstanceHeader]:
    """Read what is not read yet; one unreadable file refuses the series."""
    try:
        return [item if isinstance(item, InstanceHeader) else read_header(Path(item)) for item in series]
    except UnreadableFileError as error:
        raise InputRefusedError(error.reason) from error


def check_pixel_data_present(frames: Sequence[Frame]) -> None:
    """Refuse a series with files that end before their pixels do."""
    cut: list[str] = []
    headers = {id(header): header for header, _ in frames}
    for header in headers.values():
        try:
            check_complete(header)
        except PixelDataError as error:
            cut.append(str(error))
    refuse_unreadable(cut, len(headers))


def refuse_unreadable(problems: list[str], total: int) -> None:
    """Refuse files that cannot be decoded."""
    if problems:
        refuse(
            ReasonCode.PIXEL_DATA_UNREADABLE,
            f"{len(problems)} of {total} files cannot be decoded (the first: {problems[0]}); send the series again.",
        )


def common_geometry(frames: Sequence[Frame]) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return rows and columns, and row and column spacing in mm, that all slices share."""
    described = [header.frames[index] for header, index in frames]
    silent = sum(
        frame.position_mm is None or frame.orientation is None or frame.pixel_spacing_mm is None for frame in described
    )
    if silent:
        refuse(
            ReasonCode.MISSING_GEOMETRY,
            f"{silent} of {len(frames)} slices lack Image Position (Patient), Image Orientation (Patient) or Pixel "
            "Spacing, so their place in the patient is unknown.",
        )
    sizes = Counter((header.rows, header.columns) for header, _ in frames)
    if len(sizes) > 1:
        listed = ", ".join(f"{count} of {rows} × {columns}" for (rows, columns), count in sizes.most_common(4))
        refuse(ReasonCode.MIXED_GEOMETRY, f"The slices differ in size: {listed}.")
    spacings = np.array([frame.pixel_spacing_mm for frame in described], dtype=np.float64)
    middle = np.median(spacings, axis=0)
    if (np.abs(spacings / middle - 1) > 1e-3).any():
        refuse(
            ReasonCode.MIXED_GEOMETRY,
            f"The slices differ in pixel spacing: {spacings.min():.3f} to {spacings.max():.3f} mm.",
        )
    return next(iter(sizes)), (float(middle[0]), float(middle[1]))


def check_size(voxels: int, limits: BuildLimits) -> None:
    """Refuse what would not fit into memory."""
    if voxels > limits.maximum_voxels:
        refuse(
            ReasonCode.TOO_LARGE,
            f"The series has {voxels / 1e6:.0f} million voxels, at most {limits.maximum_voxels / 1e6:.0f} million are "
            "taken.",
        )


def check_axial(axes: Axes, limits: BuildLimits) -> None:
    """Refuse slices that lie across the axial plane."""
    angle = float(np.degrees(np.arccos(min(1.0, abs(float(axes.normal[2]))))))
    if angle > limits.maximum_angle_to_axial_degrees + 1e-6:
        refuse(
            ReasonCode.NOT_ORIGINAL_AXIAL,
            f"The slices lie at {angle:.0f}° to the axial plane, at most {limits.maximum_angle_to_axial_degrees:.0f}° "
            "are taken; send the original axial series.",
        )


def sorted_by_height(frames: list[Frame], axes: Axes) -> tuple[list[Frame], NDArray[np.float64]]:
    """Return frames in the order of their height along the common normal, and the heights in mm."""
    heights_mm = positions_mm(frames) @ axes.normal
    # Ties are broken by the identifier, so that the result does not depend on the order of arrival.
    order = sorted(range(len(frames)), key=lambda i: (heights_mm[i], frames[i][0].sop_instance_uid, frames[i][1]))
    return [frames[i] for i in order], heights_mm[order]


def positions_mm(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return Image Position (Patient) of each frame, ``(n, 3)``, LPS mm."""
    return np.array([header.frames[index].position_mm for header, index in frames], dtype=np.float64)


def check_count(heights_mm: NDArray[np.float64], limits: BuildLimits) -> None:
    """Refuse too short a series."""
    slices = heights_mm.size
    spacing = float(np.median(np.diff(heights_mm))) if slices > 1 else 0.0
    extent_mm = float(heights_mm[-1] - heights_mm[0]) + spacing
    if slices < max(2, limits.minimum_slices) or extent_mm < limits.minimum_extent_mm:
        refuse(
            ReasonCode.TOO_FEW_SLICES,
            f"{slices} {'slice' if slices == 1 else 'slices'} over {extent_mm:.0f} mm; at least "
            f"{limits.minimum_slices} slices over {limits.minimum_extent_mm:.0f} mm are needed.",
        )


def check_regular(frames: list[Frame], heights_mm: NDArray[np.float64]) -> None:
    """Refuse gaps and uneven distances between slices."""
    try:
        check_spacing(heights_mm)
    except InputRefusedError:
        if overlapping_acquisitions(frames, heights_mm):
            refuse_two_acquisitions()
        raise


def overlapping_acquisitions(frames: list[Frame], heights_mm: NDArray[np.float64]) -> bool:
    """Tell whether acquisitions, stacks or phases share a stretch of the patient."""
    ranges: dict[object, list[float]] = {}
    for (header, index), height in zip(frames, heights_mm, strict=True):
        frame = header.frames[index]
        key = (frame.acquisition_number, frame.temporal_position, frame.stack_id)
        ranges.setdefault(key, []).append(float(height))
    spans = sorted((min(values), max(values)) for values in ranges.values() if len(values) > 2)
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def refuse_two_acquisitions() -> None:
    """Refuse acquisitions that are interleaved within one series."""
    refuse(
        ReasonCode.MIXED_GEOMETRY,
        "The series interleaves several acquisitions or phases of the same stretch; send each as a series of its own.",
    )


def acquisition_of(frames: list[Frame], tilt_degrees: float, notes: list[str]) -> Acquisition:
    """Return how the frames were made, as far as they agree; what they differ in becomes a note."""
    header = frames[0][0]
    kernel = next((kernel for h, i in frames if (kernel := h.frames[i].kernel)), "")
    voltages = sorted({h.kvp for h, _ in frames if h.kvp is not None})
    if len(voltages) > 1:
        listed = " and ".join(f"{kvp:g}" for kvp in voltages[:4])
        notes.append(f"The slices differ in tube voltage ({listed} kV), so the scan counts as one of unknown voltage.")
    tags = {each.contrast_tag for each, _ in frames} - {ContrastTag.UNKNOWN}
    thickness = [f.slice_thickness_mm for h, i in frames if (f := h.frames[i]).slice_thickness_mm is not None]
    return Acquisition(
        manufacturer=header.manufacturer,
        model=header.model,
        kvp=voltages[0] if len(voltages) == 1 else None,
        kernel=kernel,
        kernel_family=kernel_family(kernel),
        slice_thickness_mm=max(thickness, default=None),
        contrast_tag=tags.pop() if len(tags) == 1 else ContrastTag.UNKNOWN,
        patient_age_years=header.patient_age_years,
        patient_sex=header.patient_sex,
        patient_height_m=header.patient_height_m,
        patient_position=header.patient_position,
        gantry_tilt_degrees=tilt_degrees,
    )
