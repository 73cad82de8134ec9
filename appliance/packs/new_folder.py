"""The folder of a new pack: written beside its place under another name, synced, renamed; whole or not there at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.durable import PART_SUFFIX, sync
from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def refuse_existing(out: Path) -> None:
    """See that nothing lies where a pack is to be written.

    Raises
    ------
    PackError
        Something does; no pack is ever written over.
    """
    if out.exists():
        raise PackError(f"{out}: is there already; give a folder that does not exist yet.")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into that gets its name, durably, when the block ends well.

    A block that raises leaves nothing. A process that is killed leaves a hidden folder beside the place, which no
    registry takes for a pack and which the next one that writes there empties.

    Parameters
    ----------
    out
        Folder of the pack; it must not exist yet. Folders above it are made.

    Raises
    ------
    PackError
        It is there already, another process is writing it, or it cannot be written.
    """
    refuse_existing(out)
    part = out.with_name(f".{out.name}{PART_SUFFIX}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(exist_ok=True)
        descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _claim(part, descriptor)
            try:
                yield part
                for path in (*part.rglob("*"), part):
                    sync(path)
                refuse_existing(out)
                part.rename(out)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            sync(out.parent)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PackError(f"{out}: the pack cannot be written ({error.strerror or error}).") from error


def _claim(part: Path, descriptor: int) -> None:
    """Take the folder for this process, and out of it what one that was ended has left.

    The kernel lets go of the lock when a process ends, however it ends.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.path.samestat(os.fstat(descriptor), part.stat())
    except (BlockingIOError, FileNotFoundError):
        mine = False
    if not mine:  # the other one may have given it its name between the two lines above
        raise PackError(f"{part}: another process is writing this pack.")
    for leftover in part.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
