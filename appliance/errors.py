"""The one tree of exceptions; each message is a sentence for the person who must act."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.reasons import Reason


class ApplianceError(Exception):
    """Anything this package raises on purpose."""


class ConfigurationError(ApplianceError):
    """The command line or the configuration is wrong (exit code 2)."""


class InputRefusedError(ApplianceError):
    """The input cannot be used (exit code 3); nothing was lost.

    Parameters
    ----------
    reason
        Coded reason with its sentence.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


class PackError(ApplianceError):
    """A model pack is missing, altered or unusable."""


class InferenceError(ApplianceError):
    """A network could not be run or gave an impossible output."""


class NotEnoughMemoryError(InferenceError):
    """A network needs more memory than there is; neither it nor the scan is at fault."""


class StoreError(ApplianceError):
    """The database cannot be opened, is damaged, or a transition is not allowed."""
