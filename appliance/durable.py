"""Files that are whole or absent after a power cut: written aside, synced, renamed, and the folder synced."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PART_SUFFIX = ".part"
"""Names that end so are files being written; readers skip them and a restart deletes them."""

_FULL_OR_CLOSED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})


def is_the_box_s(error: OSError) -> bool:
    """Whether an error says that the disk is full or read-only or the process has no descriptors left.

    The same would happen to any other file, and none of them is at fault.
    """
    return error.errno in _FULL_OR_CLOSED


def free_bytes(path: Path) -> int:
    """Return the bytes an unprivileged process may still write on the file system that holds ``path``."""
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize


def write_durably(path: Path, data: bytes, *, owner: tuple[int, int] | None = None) -> None:
    """Write a small file so that after a power cut either the old or the new content is there, whole.

    Parameters
    ----------
    path, data
        What to write where.
    owner
        User and group that the file shall belong to; ``None`` leaves it to the process.

    Raises
    ------
    OSError
        It could not be written; the old content stands.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            if owner is not None:
                os.fchown(descriptor, *owner)
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write ``data`` to the end, however little the kernel takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync(path: Path) -> None:
    """Make a file's content, or the names created, renamed or removed in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
