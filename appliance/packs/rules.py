"""Where this box looks for packs and which it trusts, as one value that is made from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config import Settings


@dataclass(frozen=True, slots=True)
class Rules:
    """What the rooms need to know of the configuration about packs.

    Attributes
    ----------
    folders
        Folders that each are a pack or hold packs (``work.packs``).
    installed
        Folder of the installed packs and of the choice among them; ``None`` looks at none.
    keys
        Public key files or folders of them (``packs.keys``).
    allow_unsigned
        Development mode.
    prefer
        Names of packs; where two provide one structure, the one named first wins.
    """

    folders: tuple[Path, ...] = ()
    installed: Path | None = None
    keys: tuple[Path, ...] = ()
    allow_unsigned: bool = False
    prefer: tuple[str, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> Rules:
        """Make them from the whole configuration."""
        return cls(
            folders=settings.work.packs,
            installed=settings.box.packs,
            keys=settings.packs.keys,
            allow_unsigned=settings.packs.allow_unsigned,
            prefer=settings.packs.prefer,
        )
