"""Scans that calibrate and judge: DICOM series as the appliance reads them, or NIfTI volumes in Hounsfield units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.errors import ConfigurationError, InputRefusedError, PackError
from appliance.scan import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from appliance.dicom.image.headers import InstanceHeader

_NIFTI = (".nii", ".nii.gz")
#: A CT of a patient holds air or fat, so something in it lies below this.
_BELOW_HU = -50
#: int16 in a volume.
_HU_RANGE = (-32768, 32767)


@dataclass(frozen=True, slots=True)
class Source:
    """A scan that is read when it is needed, because several full volumes do not fit into memory.

    Attributes
    ----------
    name
        For messages on the screen; it is never written into a pack.
    group
        Sources of one group (a DICOM study) stay on the same side of calibration and gate.
    read
        Reads the volume; raises :class:`InputRefusedError` or :class:`PackError`.
    """

    name: str
    group: str
    read: Callable[[], Volume]


def find_scans(paths: Sequence[Path], work_directory: Path) -> list[Source]:
    """Find scans in files, folders and .zip archives, in a fixed order.

    Parameters
    ----------
    paths
        NIfTI files, DICOM files, archives of DICOM files, or folders of any of these.
    work_directory
        Existing folder in which archives are unfolded; the caller removes it when all scans have been read.

    Raises
    ------
    ConfigurationError
        A path does not exist.
    InputRefusedError
        There is neither a NIfTI file nor a DICOM series.
    """
    from appliance.dicom.image.files import read_inputs

    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise ConfigurationError(f"there is no {missing[0]}; name NIfTI files, DICOM files, zip archives or folders")
    volumes = sorted({found.resolve() for path in paths for found in _nifti_files(path)})
    sources = [Source(path.name, str(path), partial(read_nifti, path)) for path in volumes]
    others = [path for path in paths if not _is_nifti(path)]
    if not others:
        return sources
    try:
        series = read_inputs(others, work_directory).series
    except InputRefusedError:
        if sources:
            return sources
        raise
    for item in sorted(series, key=lambda item: item.series_instance_uid):
        name = f"series {item.series_instance_uid}"
        group = item.study_instance_uid or name
        sources.append(Source(name, group, partial(_read_series, item.headers)))
    return sources


def split(sources: Sequence[Source]) -> tuple[list[Source], list[Source]]:
    """Part scans into those that calibrate and those that only judge: every second group judges.

    Raises
    ------
    PackError
        There are fewer than two groups.
    """
    groups = list(dict.fromkeys(source.group for source in sources))
    if len(groups) < 2:
        raise PackError(
            "Two scans at least are needed, of two studies: one calibrates and another judges, because a network is "
            "not judged on what it was calibrated with. Name more with --calibrate, or others with --gate."
        )
    judging = set(groups[1::2])
    return (
        [source for source in sources if source.group not in judging],
        [source for source in sources if source.group in judging],
    )


def refuse_overlap(calibrating: Sequence[Source], judging: Sequence[Source]) -> None:
    """Refuse a scan, or two series of one study, on both sides.

    Raises
    ------
    PackError
        There is one, or one side is empty.
    """
    if not calibrating or not judging:
        raise PackError("One scan at least must calibrate and one at least must judge.")
    both = {source.group for source in calibrating} & {source.group for source in judging}
    for source in judging:
        if source.group in both:
            raise PackError(
                f"{source.name} (or another series of its study) is given to calibrate and to judge; a network is not "
                "judged on what it was calibrated with."
            )


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI volume in Hounsfield units as the appliance sees a scan.

    Raises
    ------
    PackError
        It cannot be read, is not three-dimensional, or is not in Hounsfield units.
    """
    import zlib

    import nibabel

    try:
        image: Any = nibabel.load(path)
        array = np.asarray(image.dataobj)
        to_ras = np.asarray(image.affine, np.float64)
    except (OSError, ValueError, EOFError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise PackError(f"{path}: not a readable NIfTI volume ({error}).") from error
    if array.ndim != len("xyz") or not np.isfinite(array).all():
        raise PackError(f"{path}: a volume has three axes and finite values; this one does not.")
    if array.min() > _BELOW_HU:
        raise PackError(
            f"{path}: nothing in it lies below {_BELOW_HU}, so these are not Hounsfield units; subtract what was added "
            "(often 1024) first."
        )
    hu = np.clip(np.rint(array), *_HU_RANGE).astype(np.int16)
    # NIfTI: axes x, y, z, coordinates to the right and the front; here slices first, and left and back.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_ras
    affine[:, :3] = affine[:, 2::-1]
    return Volume(np.ascontiguousarray(hu.transpose(2, 1, 0)), affine)


def _read_series(headers: Sequence[InstanceHeader]) -> Volume:
    from appliance.dicom.image.volume import build_scan

    return build_scan(headers).volume


def _nifti_files(path: Path) -> list[Path]:
    if path.is_dir():
        return [found for found in sorted(path.rglob("*")) if _is_nifti(found)]
    return [path] if _is_nifti(path) else []


def _is_nifti(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(_NIFTI)
