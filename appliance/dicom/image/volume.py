"""From the files of one series to a scan: Hounsfield units on a regular grid in the patient, or a coded refusal."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from appliance.dicom.image.codec_process import CodecProcesses
from appliance.dicom.image.eligibility import select_axial_frames
from appliance.dicom.image.geometry import SAME_PLACE_MM, Grid, common_axes, make_grid, place_slice
from appliance.dicom.image.hounsfield import AIR_HU, to_hounsfield
from appliance.dicom.image.pixels import PixelDataError, read_stored_values
from appliance.dicom.image.refusals import refuse
from appliance.dicom.image.stack import (
    DEFAULT_LIMITS,
    BuildLimits,
    acquisition_of,
    check_axial,
    check_count,
    check_pixel_data_present,
    check_regular,
    check_size,
    common_geometry,
    overlapping_acquisitions,
    positions_mm,
    read_headers,
    refuse_two_acquisitions,
    refuse_unreadable,
    sorted_by_height,
)
from appliance.reasons import ReasonCode
from appliance.scan import Scan, SourceFrame, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.dicom.image.codec_process import CodecProcess
    from appliance.dicom.image.eligibility import Frame
    from appliance.dicom.image.functional_groups import FrameHeader
    from appliance.dicom.image.headers import InstanceHeader

_DARKEST_TISSUE_HU = -20


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
    headers = read_headers(series)
    notes: list[str] = []
    frames = select_axial_frames(headers, notes)
    check_pixel_data_present(frames)
    size, spacing_mm = common_geometry(frames)
    check_size(len(frames) * size[0] * size[1], limits)
    axes = common_axes([header.frames[index] for header, index in frames])
    check_axial(axes, limits)
    frames, heights_mm = sorted_by_height(frames, axes)
    with CodecProcesses() as codecs:
        frames, heights_mm = _without_duplicates(frames, heights_mm, codecs.mine(), notes)
    check_count(heights_mm, limits)
    check_regular(frames, heights_mm)
    grid = make_grid(positions_mm(frames), axes, spacing_mm, size, limits.maximum_tilt_degrees)
    check_size(int(np.prod(grid.shape)), limits)
    if grid.tilt_degrees:
        notes.append(f"Gantry tilt of {grid.tilt_degrees:.1f}° sheared back by interpolation within the slices.")
    hu = _fill(frames, grid, size, threads, on_progress)
    source = tuple(_source_frame(header, header.frames[index]) for header, index in frames)
    acquisition = acquisition_of(frames, grid.tilt_degrees, notes)
    return Scan(
        volume=Volume(hu, grid.affine, source),
        acquisition=acquisition,
        study_instance_uid=max(header.study_instance_uid for header, _ in frames),  # all the same, or empty
        series_instance_uid=frames[0][0].series_instance_uid,
        frame_of_reference_uid=max(header.frame_of_reference_uid for header, _ in frames),
        notes=tuple(notes),
    )


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
        if overlapping_acquisitions(frames, heights_mm):
            refuse_two_acquisitions()
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
        refuse_unreadable([str(error)], 1)
    return out


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
    refuse_unreadable([result for result in results if isinstance(result, str)], len(jobs))
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
