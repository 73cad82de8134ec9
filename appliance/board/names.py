"""Names that people acknowledge with."""

from __future__ import annotations

import unicodedata

MOST_CHARACTERS = 64


def clean_name(text: str) -> str:
    """Return a name without what cannot be seen; empty where nothing is left of it, or it is too long."""
    normal = unicodedata.normalize("NFC", text)
    seen = "".join(" " if character.isspace() else character for character in normal)
    # Control and format characters (C*) could turn the direction of what stands beside a name.
    name = " ".join("".join(c for c in seen if not unicodedata.category(c).startswith("C")).split())
    return name if len(name) <= MOST_CHARACTERS else ""
