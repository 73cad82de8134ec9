"""Which installed pack is active: one small file, replaced as a whole, so that a power cut leaves the old or new."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from appliance.durable import write_durably
from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "choice.json"
_LOCK = ".lock"

#: In a history, stands for the pack that came with the appliance or lies in a configured folder.
NOT_INSTALLED = ""


class Acceptance(BaseModel):
    """What was known when a version was installed; its key need not outlive it."""

    model_config = ConfigDict(extra="forbid")

    digest: str
    trust: str
    at: AwareDatetime
    self_test: float = Field(title="Least share of the test vectors' labels reproduced on this machine")


class Failure(BaseModel):
    """Why a version is not used any more."""

    model_config = ConfigDict(extra="forbid")

    text: str
    at: AwareDatetime


class Choice(BaseModel):
    """The content of ``choice.json``. Keys of ``installed`` and ``failed`` are ``name/version``."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    active: dict[str, str] = Field(default_factory=dict)
    history: dict[str, list[str]] = Field(default_factory=dict, title="Versions that were active before, oldest first")
    highest: dict[str, str] = Field(default_factory=dict, title="Highest version ever installed")
    installed: dict[str, Acceptance] = Field(default_factory=dict)
    failed: dict[str, Failure] = Field(default_factory=dict)
    shadow: dict[str, str] = Field(default_factory=dict)

    def switch(self, name: str, version: str) -> None:
        """Make a version active and remember the one before; :data:`NOT_INSTALLED` returns to the shipped one."""
        before = self.active.get(name, NOT_INSTALLED)
        if before == version:
            return
        self.history[name] = [*self.history.get(name, []), before][-10:]
        self._set(name, version)
        for key in [key for key in self.failed if key.partition("/")[0] == name]:
            del self.failed[key]  # somebody has looked at it and decided

    def step_back(self, name: str) -> str:
        """Return to the last version that is still there and has not failed; say which."""
        history = self.history.get(name, [])
        while history:
            version = history.pop()
            key = f"{name}/{version}"
            if version == NOT_INSTALLED or (key in self.installed and key not in self.failed):
                self._set(name, version)
                return version
        self._set(name, NOT_INSTALLED)
        return NOT_INSTALLED

    def _set(self, name: str, version: str) -> None:
        if version == NOT_INSTALLED:
            self.active.pop(name, None)
        else:
            self.active[name] = version


def read_choice(root: Path | None) -> Choice:
    """Read the choice; nothing was chosen where there is no file.

    Raises
    ------
    PackError
        The file cannot be read or is damaged.
    """
    if root is None:
        return Choice()
    path = root / FILE
    try:
        return Choice.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return Choice()
    except OSError as error:
        raise PackError(f"{path}: the choice of packs cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise PackError(
            f"{path}: the choice of packs is damaged; delete the file, then install and activate the packs again."
        ) from error


def fingerprint(root: Path | None) -> tuple[int, int, int]:
    """Return something that changes whenever the choice does, cheap enough to ask for before every scan."""
    if root is None:
        return 0, 0, 0
    try:
        found = (root / FILE).stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def changing(root: Path) -> Iterator[Choice]:
    """Change the choice: others wait, and what was done to it is on the disk when the block ends.

    An exception in the block leaves the file as it was.

    Raises
    ------
    PackError
        The folder cannot be written, or the file is damaged.
    """
    with locked(root, _LOCK):
        choice = read_choice(root)
        yield choice
        text = json.dumps(choice.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
        try:
            write_durably(root / FILE, text.encode(), owner=owner_of(root))
        except OSError as error:
            raise PackError(f"{root / FILE}: the choice of packs cannot be written ({error.strerror}).") from error


@contextmanager
def locked(root: Path, name: str) -> Iterator[None]:
    """Let nobody else into the block; the kernel lets go when the process ends, however it ends.

    Raises
    ------
    PackError
        The folder cannot be written.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        root.mkdir(exist_ok=True, mode=0o755)
        owner = owner_of(root)
        descriptor = os.open(root / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if owner is not None:
            os.chown(root, *owner)
            os.fchown(descriptor, *owner)
    except OSError as error:
        raise PackError(f"{root}: the folder of the installed packs cannot be written ({error.strerror}).") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def owner_of(root: Path) -> tuple[int, int] | None:
    """Return whom files in the folder of packs shall belong to: root works for the owner of the state directory."""
    if os.geteuid() != 0:
        return None
    found = root.parent.stat()
    return found.st_uid, found.st_gid
