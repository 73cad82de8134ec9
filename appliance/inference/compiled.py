"""Compiled networks kept on the disk, so that a process that is replaced need not compile them again.

What is read back is what was written: every file carries its SHA-256, because a plug-in that is given a damaged network
may crash. A folder that cannot be used costs a warning and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

import appliance

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = structlog.get_logger()

_ENDING = ".compiled"
_DIGEST_BYTES = 32
_MOST_BYTES = 2 << 30
_UNUSED_S = 60 * 86400.0


@lru_cache(maxsize=1)
def processor() -> str:
    """Name of the processor and a digest of what it can do: what is compiled for one may not run on another."""
    name, abilities = "unknown", ""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            if key.strip() in {"flags", "Features"}:
                abilities = " ".join(sorted(value.split()))
                break
    return f"{name} {hashlib.sha256(abilities.encode()).hexdigest()[:12]}"


class CompiledNetworks:
    """A folder of compiled networks.

    Parameters
    ----------
    folder
        Made when it is not there. Whoever can write into it decides what is computed, as in the folder of the packs.
    engine_version
        Version of the engine that compiles.
    most_bytes
        The least recently used go when there is more than this.
    """

    def __init__(self, folder: Path, engine_version: str, *, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._world = {"appliance": appliance.__version__, "engine": engine_version, "processor": processor()}

    def path(self, facts: Mapping[str, Any]) -> Path:
        """Name of the file for a network.

        Parameters
        ----------
        facts
            What tells it from others: digest of the pack, file, device, precision, shape, threads.
        """
        text = json.dumps({**self._world, **facts}, sort_keys=True, default=str)
        return self._folder / f"{self._family()}-{hashlib.sha256(text.encode()).hexdigest()[:32]}{_ENDING}"

    def _family(self) -> str:
        return hashlib.sha256(json.dumps(self._world, sort_keys=True).encode()).hexdigest()[:8]

    def read(self, facts: Mapping[str, Any]) -> memoryview | None:
        """Return what was kept for a network, not copied; ``None`` when nothing was, or it is damaged."""
        path = self.path(facts)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("compiled_cache_unusable", folder=str(self._folder), why=error.strerror)
            return None
        blob = memoryview(content)[_DIGEST_BYTES:]
        if hashlib.sha256(blob).digest() != content[:_DIGEST_BYTES]:
            _log.warning("compiled_cache_damaged", file=path.name)
            self.forget(facts)
            return None
        with suppress(OSError):
            os.utime(path)
        return blob

    def write(self, facts: Mapping[str, Any], blob: bytes | memoryview) -> None:
        """Keep a compiled network, and let old ones go."""
        path = self.path(facts)
        try:
            self._make_folder()
            descriptor, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    if os.geteuid() == 0:  # a command run by root writes for the services, which are not
                        owner = self._folder.stat()
                        os.fchown(descriptor, owner.st_uid, owner.st_gid)
                    stream.write(hashlib.sha256(blob).digest())
                    stream.write(blob)
                Path(name).replace(path)  # not synced: what a power cut leaves is checked when it is read
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            self._prune(path)
        except OSError as error:
            _log.warning("compiled_cache_unusable", folder=str(self._folder), why=error.strerror)

    def _make_folder(self) -> None:
        """Make the folder; made by root, it belongs to whom the folder above belongs to."""
        if self._folder.is_dir():
            return
        self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.mkdir(exist_ok=True, mode=0o700)
        if os.geteuid() == 0:
            owner = self._folder.parent.stat()
            os.chown(self._folder, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def forget(self, facts: Mapping[str, Any]) -> None:
        """Delete what was kept for a network."""
        with suppress(OSError):
            self.path(facts).unlink(missing_ok=True)

    def _prune(self, newest: Path) -> None:
        """Delete what another version or processor made, what nobody used for long, and the oldest of too many."""
        now, room = time.time(), self._most_bytes
        for leftover in self._folder.glob("*.part"):  # of a process that was ended; an hour is long enough to write
            if now - leftover.stat().st_mtime > 3600:
                leftover.unlink(missing_ok=True)
        kept = sorted(self._folder.glob(f"*{_ENDING}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept:
            facts = path.stat()
            room -= facts.st_size
            strange = not path.name.startswith(self._family())
            if path != newest and (strange or room < 0 or now - facts.st_mtime > _UNUSED_S):
                path.unlink(missing_ok=True)
