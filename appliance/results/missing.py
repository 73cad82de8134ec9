"""Which kinds of result objects could not be made: a file beside them, so that nobody takes absence for a result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NAME = "missing_objects.json"


@dataclass(frozen=True, slots=True)
class MissingKind:
    """A kind of object of which at least one could not be made.

    Attributes
    ----------
    kind
        Such as ``"seg"``.
    error
        Type of the error; never its message, which may quote a header.
    where
        File and line that raised it.
    """

    kind: str
    error: str
    where: str = ""

    def sentence(self) -> str:
        """Return it for people."""
        at = f" at {self.where}" if self.where else ""
        return f"Not all objects of the kind {self.kind} could be made ({self.error}{at}); report it with the version."


def note_missing(folder: Path, missing: Sequence[MissingKind]) -> None:
    """Write it into a results folder; nothing when nothing is missing.

    Raises
    ------
    OSError
        It cannot be written.
    """
    if missing:
        (folder / _NAME).write_text(json.dumps([asdict(item) for item in missing], indent=1), encoding="utf-8")


def read_missing(folder: Path) -> list[MissingKind]:
    """Read it back; empty when all objects are there, or the file is damaged."""
    try:
        tree = json.loads((folder / _NAME).read_bytes())
        return [MissingKind(str(item["kind"]), str(item["error"]), str(item.get("where", ""))) for item in tree]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
