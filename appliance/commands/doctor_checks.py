"""A line of the doctor's: what was looked at, how it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One line.

    Attributes
    ----------
    name
        What was looked at.
    verdict
        How it is.
    text
        What was seen.
    fix
        What to do; empty when all is well.
    """

    name: str
    verdict: Verdict
    text: str
    fix: str = ""
