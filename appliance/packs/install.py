"""Bringing a pack onto the box, choosing it, and going back.

A pack counts only after its signature, every file and its self-test on this machine were good; until then it lies in a
folder that nobody looks into.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from appliance.durable import sync
from appliance.errors import InferenceError, PackError
from appliance.packs.choice import NOT_INSTALLED, Acceptance, Choice, changing, locked, owner_of, read_choice
from appliance.packs.manifest import MANIFEST
from appliance.packs.registry import (
    ALL_TASKS,
    available,
    load_installed,
    load_shipped,
    load_trusted,
    providers,
    shipped_folders,
    version_key,
)
from appliance.packs.runtime import Computing, open_tested

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from appliance.packs.pack import Pack
    from appliance.packs.rules import Rules

#: What a user writes for the pack that came with the appliance.
SHIPPED_WORD = "shipped"
_STAGING = ".staging"
_LOCK = ".install.lock"
_BLOCK = 1 << 20
_LARGEST_BYTES = 16 << 30
_MOST_FILES = 10_000


def install(source: Path, rules: Rules, computing: Computing | None = None) -> Pack:
    """Copy a pack onto the box, verify it, test it, and let it count.

    Parameters
    ----------
    source
        A folder with a ``pack.toml``, or a zip file of one.
    rules
        Where packs are installed and which are trusted.
    computing
        How networks are run on this box.

    Returns
    -------
    Pack
        As it lies on the box; not active yet.

    Raises
    ------
    PackError
        It may not or cannot be used; nothing has changed.
    """
    root = _root(rules)
    with locked(root, _LOCK), _staging(root) as staging:
        _fetch(source, staging)
        pack = load_trusted(staging, rules)
        if _is_there(pack, rules):
            return load_installed(rules, pack.name, pack.version)
        _refuse_downgrade(pack, rules)
        share = _tested(pack, computing or Computing())
        target = root / pack.name / pack.version
        _publish(staging, target)
        accepted = Acceptance(digest=pack.digest, trust=pack.trust, at=datetime.now(UTC), self_test=share)
        with changing(root) as choice:
            choice.installed[f"{pack.name}/{pack.version}"] = accepted
            choice.highest[pack.name] = pack.version
            choice.failed.pop(f"{pack.name}/{pack.version}", None)
    return load_installed(rules, pack.name, pack.version)


def activate(name: str, version: str, rules: Rules, computing: Computing | None = None) -> None:
    """Use an installed version from the next scan on; ``"shipped"`` returns to what came with the appliance.

    Raises
    ------
    PackError
        It is not installed, may not be used, fails its self-test, or gives a structure that another pack gives too.
    """
    root = _root(rules)
    target = NOT_INSTALLED if version == SHIPPED_WORD else version
    _check_usable(name, target, rules, computing or Computing())
    with changing(root) as choice:
        choice.switch(name, target)
        if choice.shadow.get(name) == target:
            del choice.shadow[name]


def rollback(name: str, rules: Rules, computing: Computing | None = None) -> str:
    """Return to the version that was active before.

    Returns
    -------
    str
        The version, or ``"shipped"``.

    Raises
    ------
    PackError
        There is nothing to go back to, or it cannot be used.
    """
    with changing(_root(rules)) as choice:
        before = choice.active.get(name, NOT_INSTALLED)
        if before == NOT_INSTALLED:
            raise PackError(f"No installed version of the pack {name} is active, so there is nothing to roll back.")
        version = choice.step_back(name)
        _check_usable(name, version, rules, computing or Computing())
        for key in [key for key in choice.failed if key.partition("/")[0] == name]:
            del choice.failed[key]
    return version or SHIPPED_WORD


def set_shadow(name: str, version: str | None, rules: Rules, computing: Computing | None = None) -> None:
    """Run an installed version beside the active one on live scans; ``None`` switches it off.

    Raises
    ------
    PackError
        It is not installed, may not be used, fails its self-test, or is the active one.
    """
    root = _root(rules)
    if version is None:
        with changing(root) as choice:
            choice.shadow.pop(name, None)
        return
    if read_choice(root).active.get(name) == version:
        raise PackError(f"Pack {name} {version} is the active one; a shadow is another version.")
    pack = load_installed(rules, name, version)
    pack.require("segmentation")  # what a shadow is compared in is voxels
    _tested(pack, computing or Computing())
    with changing(root) as choice:
        choice.shadow[name] = version
        choice.failed.pop(f"{name}/{version}", None)


def remove(name: str, version: str, rules: Rules) -> None:
    """Delete an installed version that is not in use.

    Raises
    ------
    PackError
        It is not installed, or is active or a shadow.
    """
    root = _root(rules)
    key = f"{name}/{version}"
    with changing(root) as choice:
        if key not in choice.installed:
            raise PackError(f"Pack {name} {version} is not installed; `appliance packs list` shows what is.")
        if version in {choice.active.get(name), choice.shadow.get(name)}:
            raise PackError(f"Pack {name} {version} is in use; activate another version first.")
        del choice.installed[key]
        choice.failed.pop(key, None)
        choice.history[name] = [item for item in choice.history.get(name, []) if item != version]
    shutil.rmtree(root / name / version, ignore_errors=True)


def _root(rules: Rules) -> Path:
    if rules.installed is None:
        raise PackError("There is no folder to install packs into; set box.state_directory.")
    return rules.installed


def _tested(pack: Pack, computing: Computing) -> float:
    if not pack.manifest.test_vectors:
        raise PackError(
            f"Pack {pack.name} {pack.version} has no test vectors, so nobody can tell whether it works here."
        )
    try:
        return open_tested(pack, computing).self_test
    except InferenceError as error:
        raise PackError(str(error)) from error


def _check_usable(name: str, version: str, rules: Rules, computing: Computing) -> None:
    if version == NOT_INSTALLED:
        return  # tested by whoever opens it; there is nothing behind it to fall back to
    pack = load_installed(rules, name, version)
    _tested(pack, computing)
    try:
        others = [item for item in available(rules, tasks=ALL_TASKS) if item.name != name]
    except PackError:
        return  # what is in use now is broken; that must not keep a good pack out
    providers([*others, pack], rules.prefer)


def _is_there(pack: Pack, rules: Rules) -> bool:
    accepted = read_choice(rules.installed).installed.get(f"{pack.name}/{pack.version}")
    if accepted is None or accepted.digest != pack.digest:
        return False
    try:
        load_installed(rules, pack.name, pack.version)
    except PackError:
        return False  # damaged on the disk: this install mends it
    return True


def _refuse_downgrade(pack: Pack, rules: Rules) -> None:
    choice: Choice = read_choice(rules.installed)
    known = choice.installed.get(f"{pack.name}/{pack.version}")
    if known is not None:
        if known.digest != pack.digest:
            raise PackError(
                f"Pack {pack.name} {pack.version}: another pack of this version is installed already; a version is "
                "given once only."
            )
        return
    highest = choice.highest.get(pack.name)
    for folder in shipped_folders():
        shipped = load_shipped(folder, rules)
        if shipped.name == pack.name and (highest is None or version_key(shipped.version) > version_key(highest)):
            highest = shipped.version
    if highest is not None and version_key(pack.version) <= version_key(highest):
        raise PackError(
            f"Pack {pack.name} {pack.version}: this box has had version {highest}, and an older or equal one is not "
            "installed over it; to go back to what was active before, use `appliance packs rollback`."
        )


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    for leftover in root.glob(f"{_STAGING}*"):  # of an install that was cut off; nobody else is in here
        shutil.rmtree(leftover, ignore_errors=True)
    folder = root / f"{_STAGING}-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(source: Path, staging: Path) -> None:
    try:
        if source.is_dir():
            if not (source / MANIFEST).is_file():
                raise PackError(f"{source}: there is no {MANIFEST} in this folder, so it is no model pack.")
            _copy_folder(source, staging)
        elif zipfile.is_zipfile(source):
            _unpack(source, staging)
        else:
            raise PackError(f"{source}: neither a folder nor a zip file of a model pack.")
    except OSError as error:
        raise PackError(f"{source}: the pack cannot be copied onto this box ({error.strerror}).") from error
    except (zipfile.BadZipFile, EOFError, RuntimeError, zlib.error) as error:
        raise PackError(
            f"{source}: the zip file is damaged, encrypted, or packed in a way that is not known."
        ) from error


def _copy_folder(source: Path, staging: Path) -> None:
    for count, path in enumerate(sorted(source.rglob("*"))):
        if count >= _MOST_FILES:
            raise PackError(f"{source}: more than {_MOST_FILES} files; this is no model pack.")
        target = staging / path.relative_to(source)
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            target.mkdir()
        elif stat.S_ISREG(mode):
            shutil.copyfile(path, target)
        else:
            raise PackError(f"{path}: a link or a special file; a pack holds plain files only.")


def _unpack(source: Path, staging: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        manifests = [member.filename for member in members if member.filename.rpartition("/")[2] == MANIFEST]
        if len(manifests) != 1:
            raise PackError(f"{source}: the zip file must hold exactly one {MANIFEST}; it holds {len(manifests)}.")
        prefix = manifests[0].removesuffix(MANIFEST)
        if len(members) > _MOST_FILES or sum(member.file_size for member in members) > _LARGEST_BYTES:
            raise PackError(f"{source}: unpacks to more than any model pack needs.")
        for member in members:
            name = member.filename.removeprefix(prefix)
            unsafe = name.startswith("/") or "\\" in name or ".." in name.split("/")
            if not member.filename.startswith(prefix) or unsafe or stat.S_ISLNK(member.external_attr >> 16):
                raise PackError(f"{source}: {member.filename!r} may not be in the zip file of a pack.")
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, target.open("xb") as stream:
                # zipfile ends a member at the size that it declares, which the sum above has limited
                shutil.copyfileobj(packed, stream, _BLOCK)


def _publish(staging: Path, target: Path) -> None:
    """Give the verified copy its name, durably."""
    owner = owner_of(target.parent.parent)
    try:
        for path in (*staging.rglob("*"), staging):
            path.chmod(0o755 if path.is_dir() else 0o644)
            if owner is not None:
                os.chown(path, *owner)
            sync(path)
        target.parent.mkdir(exist_ok=True, mode=0o755)
        if owner is not None:
            os.chown(target.parent, *owner)
        if target.exists():  # damaged, or of an install that was cut off before it counted
            shutil.rmtree(target)
        staging.rename(target)
        sync(target.parent)
        sync(target.parent.parent)
    except OSError as error:
        raise PackError(f"{target}: the pack cannot be written ({error.strerror}).") from error
