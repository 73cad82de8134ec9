"""Which packs there are: those shipped with the appliance and those a site has added."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import appliance
from appliance.errors import PackError
from appliance.packs.pack import MANIFEST, Pack, load

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def _version(pack: Pack) -> tuple[int, ...]:
    return tuple(int(part) for part in pack.version.split("."))


def available(extra: Sequence[Path] = ()) -> tuple[Pack, ...]:
    """Load and verify the shipped packs and further ones.

    Parameters
    ----------
    extra
        Folders that each are a pack or hold packs.

    Returns
    -------
    tuple[Pack, ...]
        One per name, the highest version of it, ordered by name.

    Raises
    ------
    PackError
        A pack is damaged, a folder holds none, or two packs of different names provide one structure.
    """
    folders = list(shipped_folders())
    for folder in extra:
        if (folder / MANIFEST).exists():
            folders.append(folder)
            continue
        inner = sorted(manifest.parent for manifest in folder.glob(f"*/{MANIFEST}"))
        if not inner:
            raise PackError(f"{folder}: there is no model pack here; name a folder with a {MANIFEST}.")
        folders.extend(inner)
    best: dict[str, Pack] = {}
    for folder in folders:
        pack = load(folder)
        if pack.name not in best or _version(pack) > _version(best[pack.name]):
            best[pack.name] = pack
    chosen = tuple(best[name] for name in sorted(best))
    providers: dict[str, Pack] = {}
    for pack in chosen:
        for structure in pack.structures:
            if structure in providers:
                raise PackError(
                    f"The packs {providers[structure].name} and {pack.name} both provide {structure}; "
                    f"remove one of them from the configuration (work.packs)."
                )
            providers[structure] = pack
    return chosen
