"""Ties a process to its parent: when the parent dies, however it dies, the kernel ends the process.

Started as ``python -m appliance.services.tether PARENT COMMAND…``; it asks the kernel and then becomes the
command, so that no process is left behind when ``appliance serve`` is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; the setting survives execve


def tethered(command: Sequence[str]) -> list[str]:
    """Return the command line that runs ``command`` tied to the calling process.

    The kernel watches the *thread* that starts the child: start
    it from one that lasts as long as the process.
    """
    return [sys.executable, "-m", "appliance.services.tether", str(os.getpid()), *command]


def tie_to_parent(parent_pid: int, ending: signal.Signals = signal.SIGTERM) -> bool:
    """Ask the kernel for a signal when the parent dies; return whether the parent is still alive."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, ending, 0, 0, 0)
    # It may have died before the kernel was asked.
    return os.getppid() == parent_pid


def main(arguments: Sequence[str]) -> None:
    """Tie this process to ``arguments[0]`` and become the command that follows."""
    parent_pid, *command = arguments
    if tie_to_parent(int(parent_pid)):
        os.execvp(command[0], command)  # noqa: S606  # the command is built by this package, no shell is involved


if __name__ == "__main__":
    main(sys.argv[1:])
