"""Free text in the source's character set: what it cannot write is spelt out, never lost in an escape."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_UTF8 = "ISO_IR 192"
_CHINESE = {_UTF8, "GB18030", "GBK"}
_SPELT = str.maketrans({
    "≥": ">=", "≤": "<=", "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "²": "2", "³": "3", "°": " degrees",
    "“": '"', "”": '"', "’": "'", "·": "-", "→": "->", "±": "+/-", "µ": "u",
})  # fmt: skip


def choose_character_set(modules: Dataset, language: str) -> bool:
    """Make sure that a data set can hold the language, without changing what the patient's modules say.

    Parameters
    ----------
    modules
        Data set with the source's modules. One in the default repertoire (ASCII) is declared UTF-8 when Chinese is to
        be written, which leaves every byte of it as it was.
    language
        ``"en"`` or ``"zh"``.

    Returns
    -------
    bool
        Whether Chinese may be written.
    """
    sets = _sets(modules)
    if language == "zh" and sets <= {"", "ISO_IR 6", "ISO 2022 IR 6"} and _is_ascii(modules):
        modules.SpecificCharacterSet = _UTF8
        return True
    return bool(sets & _CHINESE) or "ISO 2022 IR 58" in sets


def _is_ascii(modules: Dataset) -> bool:
    """Whether the text is what it claims to be; some scanners write GBK and declare nothing."""
    values = (getattr(modules.get_item(tag), "value", None) for tag in list(modules.keys()))
    return all(value.isascii() for value in values if isinstance(value, bytes | str))


def fit(text: str, modules: Dataset) -> str:
    """Return text that the data set's character set can write."""
    sets = _sets(modules)
    if sets & _CHINESE:
        return text
    text = text.translate(_SPELT)
    if "ISO 2022 IR 58" in sets:  # GB 2312
        return text.encode("gb2312", "replace").decode("gb2312")
    return text.encode("ascii", "replace").decode("ascii")


def _sets(modules: Dataset) -> set[str]:
    value = modules.get("SpecificCharacterSet") or ""
    return {str(item) for item in ([value] if isinstance(value, str) else value)}
