"""Opening a .zip that somebody else made: nothing is written outside the work folder, and nothing without limit."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from appliance.dicom.image.refusals import refuse
from appliance.reasons import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
_ENCRYPTED_FLAG = 0x1
_JUNK_FOLDERS = {"__MACOSX"}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much an archive may unfold to.

    Attributes
    ----------
    maximum_files
        Entries of the archive.
    maximum_bytes
        All entries together, uncompressed.
    maximum_ratio
        Uncompressed to compressed, judged once more than ``ratio_from_bytes`` have come out: CT seldom passes 4, and a
        blank series may pass 100.
    ratio_from_bytes
        Smaller amounts may have any ratio.
    """

    maximum_files: int = 100_000
    maximum_bytes: int = 4_000_000_000
    maximum_ratio: float = 200.0
    ratio_from_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExtractedFile:
    """One entry of an archive on disk.

    Attributes
    ----------
    path
        Where it lies now; the name is ours.
    display_path
        Archive and name within it, for messages.
    """

    path: Path
    display_path: Path


DEFAULT_LIMITS = ArchiveLimits()


def extract_zip(archive: Path, folder: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> list[ExtractedFile]:
    """Unfold an archive into a folder under names of our own.

    Parameters
    ----------
    archive
        The .zip file.
    folder
        Existing folder that receives the files.
    limits
        How much may come out.

    Returns
    -------
    list of ExtractedFile
        Every regular file of the archive, sorted by its name there.

    Raises
    ------
    InputRefusedError
        ``ARCHIVE_UNSAFE`` for entries that point outside or are links; ``ARCHIVE_TOO_LARGE`` beyond the limits, by
        what the archive declares and again by what comes out; ``UNREADABLE_FILE`` when it is damaged or encrypted.
        What was written until then is removed.
    """
    written: list[ExtractedFile] = []
    try:
        with zipfile.ZipFile(archive) as file:
            entries = _checked_entries(file, folder, limits)
            left = limits.maximum_bytes
            compressed = 0
            for number, entry in enumerate(entries, start=1):
                target = folder / f"{number:06d}"
                written.append(ExtractedFile(target, archive / PurePosixPath(entry.filename)))
                compressed += entry.compress_size
                left -= _write(file, entry, target, left)
                _check_ratio(limits.maximum_bytes - left, compressed, limits)
    except BaseException as error:
        for extracted in written:
            extracted.path.unlink(missing_ok=True)
        if isinstance(
            error, zipfile.BadZipFile | zlib.error | EOFError | NotImplementedError | RuntimeError | ValueError
        ):
            refuse(ReasonCode.UNREADABLE_FILE, "The archive is damaged or of an unknown kind; make it again.")
        if isinstance(error, OSError):
            problem = (error.strerror or "input/output error").lower()
            refuse(ReasonCode.UNREADABLE_FILE, f"The archive cannot be unfolded: {problem}.")
        raise
    return written


def _checked_entries(file: zipfile.ZipFile, folder: Path, limits: ArchiveLimits) -> list[zipfile.ZipInfo]:
    entries = file.infolist()
    if len(entries) > limits.maximum_files:
        refuse(
            ReasonCode.ARCHIVE_TOO_LARGE,
            f"The archive holds {len(entries)} entries, at most {limits.maximum_files} are taken.",
        )
    unsafe = sum(map(_is_unsafe, entries))
    if unsafe:
        refuse(
            ReasonCode.ARCHIVE_UNSAFE,
            f"{unsafe} of {len(entries)} entries of the archive are links or point outside it; nothing was unfolded.",
        )
    files = [entry for entry in entries if not entry.is_dir() and not _is_junk(entry)]
    if any(entry.flag_bits & _ENCRYPTED_FLAG for entry in files):
        refuse(ReasonCode.UNREADABLE_FILE, "The archive is protected by a password; make one without.")
    declared = sum(entry.file_size for entry in files)
    if declared > limits.maximum_bytes:
        refuse(
            ReasonCode.ARCHIVE_TOO_LARGE,
            f"The archive unfolds to {declared / 1e9:.1f} GB, at most {limits.maximum_bytes / 1e9:.1f} GB are taken.",
        )
    _check_ratio(declared, sum(entry.compress_size for entry in files), limits)
    free = shutil.disk_usage(folder).free
    if declared > 0.9 * free:
        refuse(
            ReasonCode.ARCHIVE_TOO_LARGE,
            f"The archive unfolds to {declared / 1e9:.1f} GB, only {free / 1e9:.1f} GB are free in the work folder.",
        )
    return sorted(files, key=lambda entry: entry.filename)


def _check_ratio(unfolded: int, compressed: int, limits: ArchiveLimits) -> None:
    if unfolded > limits.ratio_from_bytes and unfolded > limits.maximum_ratio * max(1, compressed):
        refuse(
            ReasonCode.ARCHIVE_TOO_LARGE,
            f"The archive unfolds to more than {limits.maximum_ratio:.0f} times its size, as no scan does.",
        )


def _is_unsafe(entry: zipfile.ZipInfo) -> bool:
    # The original name keeps what ZipInfo cleans from the other one.
    for name in (entry.filename, getattr(entry, "orig_filename", entry.filename)):
        path = name.replace("\\", "/")
        if path.startswith("/") or ".." in path.split("/") or path[1:2] == ":" or "\0" in name:
            return True
    mode = entry.external_attr >> 16
    return stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}


def _is_junk(entry: zipfile.ZipInfo) -> bool:
    return bool(_JUNK_FOLDERS & set(entry.filename.split("/")))


def _write(file: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one entry, never more than it declared nor than is left; return its size."""
    total = 0
    with file.open(entry) as source, target.open("xb") as out:
        for chunk in _chunks(source):
            total += len(chunk)
            if total > entry.file_size or total > left:
                refuse(
                    ReasonCode.ARCHIVE_TOO_LARGE,
                    "The archive unfolds to more than it declares; it was made to harm or is damaged.",
                )
            out.write(chunk)
    return total


def _chunks(source: object) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):  # type: ignore[attr-defined]
        yield chunk
