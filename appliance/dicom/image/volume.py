"""From the files of one series to a scan: Hounsfield units on a regular grid in the patient, or a coded refusal."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from appliance.dicom.image.codec_process import CodecProcesses
from appliance.dicom.image.eligibility import select_axial_frames
from appliance.dicom.image.geometry import (
    SAME_PLACE_MM,
    Grid,
    check_spacing,
    common_axes,
    make_grid,
    place_slice,
)
from appliance.dicom.image.headers import InstanceHeader, UnreadableFileError, read_header
from appliance.dicom.image.hounsfield import AIR_HU, to_hounsfield
from appliance.dicom.image.kernels import kernel_family
from appliance.dicom.image.pixels import PixelDataError, check_complete, read_stored_values
from appliance.dicom.image.refusals import refuse
from appliance.errors import InputRefusedError
from appliance.reasons import ReasonCode
from appliance.scan import Acquisition, ContrastTag, Scan, SourceFrame, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from appliance.dicom.image.codec_process import CodecProcess
    from appliance.dicom.image.eligibility import Frame
    from appliance.dicom.image.functional_groups import FrameHeader
    from appliance.dicom.image.geometry import Axes

_DARKEST_TISSUE_HU = -20


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


def build_scan(
    series: Iterable[InstanceHeader | Path],
    *,
    on_progress: Callable[[int, int], None] | None = None,
    limits: BuildLimits = DEFAULT_LIMITS,
    threads: int | None = None,
) -> Scan:
    """Build the volume of one series.

    Parameters
    ----------
    series
        Headers or files of all instances of the series, in any order.
    on_progress
        Called with the number of decoded slices and of all slices, from the decoding threads, one at a time.
    limits
        What is refused.
    threads
        Decoding threads; by default one per processor, at most four, fewer for a short series.

    Returns
    -------
    Scan
        With ``notes`` about everything that was mended.

    Raises
    ------
    InputRefusedError
        When the series is no original axial CT on a regular grid, with a coded reason and the facts of the case.
    """
    headers = _headers(series)
    notes: list[str] = []
    frames = select_axial_frames(headers, notes)
    _check_pixel_data_present(frames)
    size, spacing_mm = _common_geometry(frames)
    _check_size(len(frames) * size[0] * size[1], limits)
    axes = common_axes([header.frames[index] for header, index in frames])
    _check_axial(axes, limits)
    frames, heights_mm = _sorted_by_height(frames, axes)
    with CodecProcesses() as codecs:
        frames, heights_mm = _without_duplicates(frames, heights_mm, codecs.mine(), notes)
    _check_count(heights_mm, limits)
    _check_regular(frames, heights_mm)
    grid = make_grid(_positions_mm(frames), axes, spacing_mm, size, limits.maximum_tilt_degrees)
    _check_size(int(np.prod(grid.shape)), limits)
    if grid.tilt_degrees:
        notes.append(f"Gantry tilt of {grid.tilt_degrees:.1f}° sheared back by interpolation within the slices.")
    hu = _fill(frames, grid, size, threads, on_progress)
    source = tuple(_source_frame(header, header.frames[index]) for header, index in frames)
    acquisition = _acquisition(frames, grid.tilt_degrees, notes)
    return Scan(
        volume=Volume(hu, grid.affine, source),
        acquisition=acquisition,
        study_instance_uid=max(header.study_instance_uid for header, _ in frames),  # all the same, or empty
        series_instance_uid=frames[0][0].series_instance_uid,
        frame_of_reference_uid=max(header.frame_of_reference_uid for header, _ in frames),
        notes=tuple(notes),
    )


def _headers(series: Iterable[InstanceHeader | Path]) -> list[InstanceHeader]:
    try:
        return [item if isinstance(item, InstanceHeader) else read_header(Path(item)) for item in series]
    except UnreadableFileError as error:
        raise InputRefusedError(error.reason) from error


def _check_pixel_data_present(frames: Sequence[Frame]) -> None:
    cut: list[str] = []
    headers = {id(header): header for header, _ in frames}
    for header in headers.values():
        try:
            check_complete(header)
        except PixelDataError as error:
            cut.append(str(error))
    _refuse_unreadable(cut, len(headers))


def _refuse_unreadable(problems: list[str], total: int) -> None:
    if problems:
        refuse(
            ReasonCode.PIXEL_DATA_UNREADABLE,
            f"{len(problems)} of {total} files cannot be decoded (the first: {problems[0]}); send the series again.",
        )


def _common_geometry(frames: Sequence[Frame]) -> tuple[tuple[int, int], tuple[float, float]]:
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


def _check_size(voxels: int, limits: BuildLimits) -> None:
    if voxels > limits.maximum_voxels:
        refuse(
            ReasonCode.TOO_LARGE,
            f"The series has {voxels / 1e6:.0f} million voxels, at most {limits.maximum_voxels / 1e6:.0f} million are "
            "taken.",
        )


def _check_axial(axes: Axes, limits: BuildLimits) -> None:
    angle = float(np.degrees(np.arccos(min(1.0, abs(float(axes.normal[2]))))))
    if angle > limits.maximum_angle_to_axial_degrees + 1e-6:
        refuse(
            ReasonCode.NOT_ORIGINAL_AXIAL,
            f"The slices lie at {angle:.0f}° to the axial plane, at most {limits.maximum_angle_to_axial_degrees:.0f}° "
            "are taken; send the original axial series.",
        )


def _sorted_by_height(frames: list[Frame], axes: Axes) -> tuple[list[Frame], NDArray[np.float64]]:
    heights_mm = _positions_mm(frames) @ axes.normal
    # Ties are broken by the identifier, so that the result does not depend on the order of arrival.
    order = sorted(range(len(frames)), key=lambda i: (heights_mm[i], frames[i][0].sop_instance_uid, frames[i][1]))
    return [frames[i] for i in order], heights_mm[order]


def _positions_mm(frames: Sequence[Frame]) -> NDArray[np.float64]:
    return np.array([header.frames[index].position_mm for header, index in frames], dtype=np.float64)


def _without_duplicates(
    frames: list[Frame], heights_mm: NDArray[np.float64], codec: CodecProcess, notes: list[str]
) -> tuple[list[Frame], NDArray[np.float64]]:
    kept = [0]
    conflicts = 0
    for i in range(1, len(frames)):
        if heights_mm[i] - heights_mm[kept[-1]] >= SAME_PLACE_MM:
            kept.append(i)
        elif not _same_image(frames[i], frames[kept[-1]], codec):
            conflicts += 1
    if conflicts:
        if _overlapping_acquisitions(frames, heights_mm):
            _refuse_two_acquisitions()
        refuse(
            ReasonCode.CONFLICTING_DUPLICATES,
            f"{conflicts} {'slice lies' if conflicts == 1 else 'slices lie'} at the same place as another slice with "
            "other values; nothing says which one is right.",
        )
    dropped = len(frames) - len(kept)
    if dropped:
        notes.append(f"{dropped} identical {'copy of a slice' if dropped == 1 else 'copies of slices'} left out.")
    return [frames[i] for i in kept], heights_mm[kept]


def _same_image(one: Frame, other: Frame, codec: CodecProcess) -> bool:
    a, b = one[0].frames[one[1]], other[0].frames[other[1]]
    if not np.allclose(a.position_mm or (), b.position_mm or (), atol=SAME_PLACE_MM):
        return False
    return bool(np.array_equal(_decode_one(one, codec), _decode_one(other, codec)))


def _decode_one(frame: Frame, codec: CodecProcess) -> NDArray[np.int16]:
    header, wanted = frame
    out = np.empty((header.rows, header.columns), np.int16)
    try:
        for index, stored in read_stored_values(header, codec):
            if index == wanted:
                to_hounsfield(stored, header, header.frames[index], out)
                break
    except PixelDataError as error:
        _refuse_unreadable([str(error)], 1)
    return out


def _check_count(heights_mm: NDArray[np.float64], limits: BuildLimits) -> None:
    slices = heights_mm.size
    spacing = float(np.median(np.diff(heights_mm))) if slices > 1 else 0.0
    extent_mm = float(heights_mm[-1] - heights_mm[0]) + spacing
    if slices < max(2, limits.minimum_slices) or extent_mm < limits.minimum_extent_mm:
        refuse(
            ReasonCode.TOO_FEW_SLICES,
            f"{slices} {'slice' if slices == 1 else 'slices'} over {extent_mm:.0f} mm; at least "
            f"{limits.minimum_slices} slices over {limits.minimum_extent_mm:.0f} mm are needed.",
        )


def _check_regular(frames: list[Frame], heights_mm: NDArray[np.float64]) -> None:
    try:
        check_spacing(heights_mm)
    except InputRefusedError:
        if _overlapping_acquisitions(frames, heights_mm):
            _refuse_two_acquisitions()
        raise


def _overlapping_acquisitions(frames: list[Frame], heights_mm: NDArray[np.float64]) -> bool:
    """Tell whether acquisitions, stacks or phases share a stretch of the patient."""
    ranges: dict[object, list[float]] = {}
    for (header, index), height in zip(frames, heights_mm, strict=True):
        frame = header.frames[index]
        key = (frame.acquisition_number, frame.temporal_position, frame.stack_id)
        ranges.setdefault(key, []).append(float(height))
    spans = sorted((min(values), max(values)) for values in ranges.values() if len(values) > 2)
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def _refuse_two_acquisitions() -> None:
    refuse(
        ReasonCode.MIXED_GEOMETRY,
        "The series interleaves several acquisitions or phases of the same stretch; send each as a series of its own.",
    )


def _fill(
    frames: list[Frame],
    grid: Grid,
    size: tuple[int, int],
    threads: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> NDArray[np.int16]:
    """Decode every slice into its place; only one slice per thread is ever held beside the volume."""
    try:
        hu = np.empty(grid.shape, dtype=np.int16)
    except MemoryError:
        refuse(ReasonCode.TOO_LARGE, f"{int(np.prod(grid.shape)) * 2 / 1e6:.0f} MB for the volume are not free.")
    jobs: dict[int, tuple[InstanceHeader, dict[int, int]]] = {}
    for slot, (header, index) in enumerate(frames):
        jobs.setdefault(id(header), (header, {}))[1][index] = slot
    done = 0
    lock = Lock()

    def decode(job: tuple[InstanceHeader, dict[int, int]]) -> int | str:
        nonlocal done
        header, slots = job
        image = np.empty(size, dtype=np.int16) if grid.sheared else None
        lowest = np.iinfo(np.int16).max
        try:
            for index, stored in read_stored_values(header, codecs.mine()):
                slot = slots.get(index)
                if slot is None:
                    continue
                out = hu[slot] if image is None else image
                lowest = min(lowest, to_hounsfield(stored, header, header.frames[index], out))
                if image is not None:
                    place_slice(image, grid.shifts[slot], hu[slot], AIR_HU)
                with lock:
                    done += 1
                    if on_progress is not None:
                        on_progress(done, len(frames))
        except PixelDataError as error:
            return str(error)
        return lowest

    # A codec process takes half a second to start: a short series is decoded sooner by few of them.
    workers = threads or max(1, min(4, os.cpu_count() or 1, len(jobs) // 16))
    with CodecProcesses() as codecs, ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        results = list(pool.map(decode, jobs.values()))
    _refuse_unreadable([result for result in results if isinstance(result, str)], len(jobs))
    darkest = min(result for result in results if isinstance(result, int))
    if darkest > _DARKEST_TISSUE_HU:
        refuse(
            ReasonCode.NOT_HOUNSFIELD,
            f"No voxel is below {darkest} HU: there is neither air nor fat, so the values cannot be Hounsfield units.",
        )
    return hu


def _source_frame(header: InstanceHeader, frame: FrameHeader) -> SourceFrame:
    x, y, z = frame.position_mm or (0.0, 0.0, 0.0)
    return SourceFrame(header.sop_instance_uid, frame.frame_number, (x, y, z))


def _acquisition(frames: list[Frame], tilt_degrees: float, notes: list[str]) -> Acquisition:
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
