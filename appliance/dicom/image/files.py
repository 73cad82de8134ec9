"""What the one-shot command was given: files, folders and archives, sorted into series.

Whatever cannot be read is named and does not stop the rest.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from appliance.dicom.image.archive import ArchiveLimits, extract_zip
from appliance.dicom.image.headers import InstanceHeader, UnreadableFileError, read_header
from appliance.dicom.image.refusals import refuse
from appliance.dicom.uids import MEDIA_STORAGE_DIRECTORY
from appliance.errors import InputRefusedError
from appliance.reasons import Reason, ReasonCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = structlog.get_logger()

_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True, slots=True)
class SeriesFiles:
    """The instances of one series.

    Attributes
    ----------
    series_instance_uid, study_instance_uid, modality
        As in the first header.
    headers
        One per instance, by path; each knows its file.
    """

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    headers: tuple[InstanceHeader, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files of the instances."""
        return tuple(header.path for header in self.headers)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that was found.

    Attributes
    ----------
    series
        In order of first appearance.
    rejected
        Files that hold no instance, each with its reason; an entry of an archive is named ``archive.zip/entry``.
    """

    series: tuple[SeriesFiles, ...]
    rejected: tuple[tuple[Path, Reason], ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    path: Path
    display_path: Path


def read_inputs(paths: Sequence[Path], work_directory: Path, archive_limits: ArchiveLimits | None = None) -> Inputs:
    """Find the series in files, folders and .zip archives.

    Parameters
    ----------
    paths
        Folders are walked in sorted order; links that lead in circles are followed once.
    work_directory
        Existing folder in which archives are unfolded; the caller removes it.
    archive_limits
        How much an archive may unfold to.

    Returns
    -------
    Inputs
        At least one series.

    Raises
    ------
    InputRefusedError
        When there is no series at all: with the archive's reason when an archive was refused, ``UNREADABLE_FILE`` when
        something looked like DICOM or could not be opened, else ``NO_DICOM``.
    """
    rejected: list[tuple[Path, Reason]] = []
    series: dict[tuple[str, ...], list[InstanceHeader]] = {}
    seen: set[str] = set()
    for candidate in _candidates(paths, work_directory, archive_limits or ArchiveLimits(), rejected):
        real = os.path.realpath(candidate.path)
        if real in seen:
            continue
        seen.add(real)
        try:
            header = read_header(candidate.path)
        except UnreadableFileError as error:
            rejected.append((candidate.display_path, error.reason))
            continue
        if header.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
            continue
        series.setdefault(_series_key(header, candidate), []).append(header)
    log.debug("inputs_read", series=len(series), rejected=len(rejected))
    if not series:
        _refuse_all(rejected)
    return Inputs(
        tuple(
            SeriesFiles(
                headers[0].series_instance_uid, headers[0].study_instance_uid, headers[0].modality, tuple(headers)
            )
            for headers in series.values()
        ),
        tuple(rejected),
    )


def _series_key(header: InstanceHeader, candidate: _Candidate) -> tuple[str, ...]:
    if header.series_instance_uid:
        return (header.series_instance_uid,)
    # Where an anonymiser emptied the UIDs, a folder and a series number are the next best thing.
    return ("", str(candidate.display_path.parent), str(header.series_number), header.modality)


def _refuse_all(rejected: list[tuple[Path, Reason]]) -> None:
    """Raise the most telling of the reasons."""
    ranks = (ReasonCode.ARCHIVE_UNSAFE, ReasonCode.ARCHIVE_TOO_LARGE, ReasonCode.UNREADABLE_FILE)
    for code in ranks:
        reasons = [reason for _, reason in rejected if reason.code is code]
        if reasons:
            more = len(rejected) - 1
            others = f" ({more} more {'file' if more == 1 else 'files'} without a usable image.)" if more else ""
            refuse(code, reasons[0].text + others)
    looked = f"None of {len(rejected)} files is DICOM" if rejected else "There is no file in it"
    if len(rejected) == 1:
        looked = rejected[0][1].text.rstrip(".")
    refuse(ReasonCode.NO_DICOM, f"{looked}; give the folder, the files or the .zip of a CT series.")


def _candidates(
    paths: Sequence[Path], work_directory: Path, limits: ArchiveLimits, rejected: list[tuple[Path, Reason]]
) -> Iterator[_Candidate]:
    for path in _files(paths, rejected):
        if not _is_zip(path):
            yield _Candidate(path, path)
            continue
        folder = Path(tempfile.mkdtemp(prefix="archive-", dir=work_directory))
        try:
            extracted = extract_zip(path, folder, limits)
        except InputRefusedError as error:
            rejected.append((path, error.reason))
            continue
        for file in extracted:
            if not _is_hidden(file.display_path.name):
                yield _Candidate(file.path, file.display_path)


def _files(paths: Sequence[Path], rejected: list[tuple[Path, Reason]]) -> Iterator[Path]:
    visited: set[str] = set()
    # os.path, not pathlib: it answers "no" where pathlib raises, for a folder that may not be entered.
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112
            yield from _walk(path, visited, rejected)
        elif os.path.isfile(path):  # noqa: PTH113
            yield path
        else:
            text = "There is no such file or folder, or it may not be read."
            rejected.append((path, Reason(ReasonCode.UNREADABLE_FILE, text)))


def _walk(folder: Path, visited: set[str], rejected: list[tuple[Path, Reason]]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        problem = (error.strerror or "input/output error").lower()
        rejected.append((folder, Reason(ReasonCode.UNREADABLE_FILE, f"The folder cannot be read: {problem}.")))
        return
    for name in names:
        path = folder / name
        if _is_hidden(name):
            continue
        if os.path.isdir(path):  # noqa: PTH112
            yield from _walk(path, visited, rejected)
        elif os.path.isfile(path):  # noqa: PTH113
            yield path
        else:
            text = "This is neither a file nor a folder, or a link that leads nowhere."
            rejected.append((path, Reason(ReasonCode.UNREADABLE_FILE, text)))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.upper() in {"DICOMDIR", "THUMBS.DB", "__MACOSX"}


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _ZIP_SIGNATURES
    except OSError:
        return False  # read_header says why
