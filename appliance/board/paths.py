"""Numbers and paths that a browser sends: opaque row numbers, and nothing that leads out of the board."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

_MOST_ALERTS_AT_ONCE = 100
_MOST_DIGITS = 18  # what SQLite can hold as a number


class _RowNumber(Convertor[int]):
    """``{name:row}`` in a route: a number of a row, never too large for the database."""

    regex = f"[0-9]{{1,{_MOST_DIGITS}}}"

    def convert(self, value: str) -> int:
        """Return the number in a path."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Return the path's part for a number."""
        return str(value)


register_url_convertor("row", _RowNumber())


def numbers_of(text: str) -> tuple[int, ...]:
    """Return row numbers that are separated by spaces; none where anything else is among them."""
    parts = text.split()
    good = all(part.isascii() and part.isdigit() and len(part) <= _MOST_DIGITS for part in parts)
    return tuple(map(int, parts)) if good and len(parts) <= _MOST_ALERTS_AT_ONCE else ()


def path_of(text: str) -> str:
    """Return a path of this board that somebody came from; the first page's where it could be another site's."""
    known = text.startswith("/") and text.replace("/", "").isalnum() and text.isascii() and "//" not in text
    return text if known else "/"
