"""What engines have in common: the devices they may compute on, and how they complain."""

from __future__ import annotations

import re

DEVICES = ("CPU", "GPU", "NPU")

#: Characters of an engine's own complaint that are passed on.
_LONGEST_COMPLAINT = 300

#: How engines say that they do not know an operation.
_UNKNOWN_OPERATION = re.compile(
    r"doesn't contain the operation with type: (?P<a>\S+)|No conversion rule found for operations: (?P<b>[^\n]+)"
    r"|No Op registered for (?P<c>\S+)|(?P<d>\S+?)(\(-?\d+\))? is not a registered function/op"
)


def complaint(error: Exception) -> str:
    """What an engine has to say, in one line."""
    unknown = _UNKNOWN_OPERATION.search(str(error))
    if unknown is not None:
        names = next(name for name in unknown.groupdict().values() if name)
        return f"the network uses operators that it does not know ({names.strip()})"
    return " ".join(str(error).split())[:_LONGEST_COMPLAINT] or type(error).__name__
