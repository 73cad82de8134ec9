"""Which packs there are and which of them are used: shipped, in configured folders, installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import appliance
from appliance.durable import PART_SUFFIX
from appliance.errors import PackError
from appliance.packs.choice import NOT_INSTALLED, read_choice
from appliance.packs.key_ring import KeyRing
from appliance.packs.manifest import MANIFEST, SIGNATURE
from appliance.packs.pack import SHIPPED, Pack, load, verify_files
from appliance.packs.rules import Rules
from appliance.packs.signature import trust_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_EVERYTHING_SHIPPED = Rules()
SEGMENTATION = ("segmentation",)
ALL_TASKS = ("segmentation", "detection")


def shipped_folders() -> tuple[Path, ...]:
    """Folders of the packs that came with the appliance.

    An installed package carries them inside itself; a source checkout has them in ``models/`` beside the package.
    """
    package = Path(appliance.__file__).parent
    for parent in (package / "shipped_packs", package.parent / "models"):
        found = tuple(sorted(manifest.parent for manifest in parent.glob(f"*/{MANIFEST}")))
        if found:
            return found
    return ()


def version_key(version: str) -> tuple[int, ...]:
    """Return a version as numbers, which sort as versions do."""
    return tuple(int(part) for part in version.split("."))


def load_trusted(path: Path, rules: Rules, *, at: datetime | None = None) -> Pack:
    """Read a pack, check its signature, then every file of it.

    Parameters
    ----------
    path
        Its folder.
    rules
        The keys, and whether unsigned packs are allowed.
    at
        When the box accepted it; ``None`` is now. See :func:`appliance.packs.signature.trust_of`.

    Raises
    ------
    PackError
        It may not be used; the sentence says why.
    ConfigurationError
        A key file is wrong.
    """
    pack = load(path, verify=False)
    reserved = {folder.name for folder in shipped_folders()}
    trust = trust_of(pack, KeyRing.read(rules.keys), allow_unsigned=rules.allow_unsigned, reserved=reserved, at=at)
    verify_files(path, pack.manifest)
    return replace(pack, trust=trust)


def load_shipped(path: Path, rules: Rules) -> Pack:
    """Read a pack that came with the appliance.

    Whoever could alter it could alter the code that would check its signature: it is as trusted as the package around
    it, and its files are still compared with its manifest. Where it has a signature, that must be good.
    """
    if (path / SIGNATURE).exists():
        return load_trusted(path, rules)
    return replace(load(path), trust=SHIPPED)


def load_installed(rules: Rules, name: str, version: str) -> Pack:
    """Read a pack that was installed, and see that it still is what was accepted.

    Raises
    ------
    PackError
        It is not installed, or not what was installed.
    """
    accepted = read_choice(rules.installed).installed.get(f"{name}/{version}")
    if accepted is None or rules.installed is None:
        raise PackError(f"Pack {name} {version} is not installed; `appliance packs list` shows what is.")
    pack = load_trusted(rules.installed / name / version, rules, at=accepted.at)
    if (pack.name, pack.version, pack.digest) != (name, version, accepted.digest):
        raise PackError(f"Pack {name} {version}: its folder holds another pack than the one that was installed.")
    return pack


def available(
    rules: Rules = _EVERYTHING_SHIPPED,
    *,
    on_failure: Callable[[str, str, str], str] | None = None,
    tasks: tuple[str, ...] = SEGMENTATION,
) -> tuple[Pack, ...]:
    """Load and verify the packs in use.

    Parameters
    ----------
    rules
        Where they lie and which are trusted; by default the shipped ones only.
    on_failure
        Called with name, version and a sentence when an installed pack that is active cannot be used; returns the
        version to use instead. ``None`` raises.
    tasks
        What the packs are for; by default those that make the organ map, ``("detection",)`` those that find boxes.

    Returns
    -------
    tuple[Pack, ...]
        One per name, ordered by name: the installed version that is active, otherwise the highest one of those shipped
        or in a configured folder. A pack none of whose structures (or findings) wins is left out.

    Raises
    ------
    PackError
        A pack is damaged or not trusted, a folder holds none, or two packs provide one structure and ``packs.prefer``
        names neither.
    """
    best: dict[str, Pack] = {}
    for pack in [load_shipped(folder, rules) for folder in shipped_folders()] + [
        load_trusted(folder, rules) for folder in _configured(rules)
    ]:
        if pack.name not in best or version_key(pack.version) > version_key(best[pack.name].version):
            best[pack.name] = pack
    for name, active in read_choice(rules.installed).active.items():
        version = active
        while version != NOT_INSTALLED:
            try:
                best[name] = load_installed(rules, name, version)
                break
            except PackError as error:
                if on_failure is None:
                    raise
                version = on_failure(name, version, str(error))
    chosen = [best[name] for name in sorted(best)]
    winners = set(providers(chosen, rules.prefer).values())
    return tuple(pack for pack in chosen if pack.name in winners and pack.manifest.task in tasks)


def providers(packs: list[Pack] | tuple[Pack, ...], prefer: tuple[str, ...] = ()) -> dict[str, str]:
    """Say which pack gives each structure or finding.

    Parameters
    ----------
    packs
        Of different names.
    prefer
        Names of packs; where two provide one structure, the one named first wins.

    Returns
    -------
    dict[str, str]
        Structure or finding to pack name.

    Raises
    ------
    PackError
        Two packs provide a structure and neither is preferred.
    """
    found: dict[str, str] = {}
    for pack in packs:
        for structure in pack.provides:
            rival = found.setdefault(structure, pack.name)
            if rival == pack.name:
                continue
            named = [name for name in prefer if name in {rival, pack.name}]
            if not named:
                raise PackError(
                    f"The packs {rival} and {pack.name} both provide {structure}; name the one that shall win in "
                    "packs.prefer, or use only one of them."
                )
            found[structure] = named[0]
    return found


def _configured(rules: Rules) -> list[Path]:
    folders = []
    for folder in rules.folders:
        if (folder / MANIFEST).exists():
            folders.append(folder)
            continue
        inner = sorted(
            manifest.parent
            for manifest in folder.glob(f"*/{MANIFEST}")
            if not manifest.parent.name.endswith(PART_SUFFIX)  # of an import that was cut off
        )
        if not inner:
            raise PackError(f"{folder}: there is no model pack here; name a folder with a {MANIFEST}.")
        folders.extend(inner)
    return folders
