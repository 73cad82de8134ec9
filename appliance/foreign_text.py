"""What a peer says in words, made fit to be kept and shown: one line, no control characters, not endless.

It is shown on this box only. A peer may quote a patient in it, so it goes into no log at the default level and to no
broker.
"""

from __future__ import annotations

import unicodedata

LONGEST = 160
"""Characters that are kept."""


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return foreign text as one bounded line.

    Parameters
    ----------
    text
        Anything.
    longest
        Characters that are kept; what is cut off is marked by an ellipsis.

    Returns
    -------
    str
        Without control, format (such as those that turn the direction of writing), private and unassigned characters;
        white space of any kind and length is one space.
    """
    head = text[: 8 * longest]  # a bound on the work, whatever was sent
    kept = "".join(" " if character.isspace() else character for character in head if _stays(character))
    line = " ".join(kept.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _stays(character: str) -> bool:
    return character.isspace() or not unicodedata.category(character).startswith("C")
