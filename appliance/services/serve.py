"""All services in one terminal: what ``appliance serve`` does where systemd is not there to do it.

Each service stays its own process, as under systemd, so that one that crashes takes nothing with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from appliance.logs import LOG_FORMAT_VARIABLE
from appliance.services.lifecycle import stop_event_on_signals
from appliance.services.tether import tethered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SERVICES = ("receive", "work", "deliver", "health")
BOARD = "board"
"""The fifth; it runs only where ``[board]`` is configured."""

CONFIGURATION_WRONG = 2
INTERNAL_FAILURE = 4

_COLOURS = ("\x1b[36m", "\x1b[35m", "\x1b[33m", "\x1b[32m", "\x1b[34m")
_RESET = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a service that ended is started again, and when it is left alone.

    Attributes
    ----------
    first_delay_s, longest_delay_s
        The delay doubles with each start within the window.
    limit, window_s
        A service that ends more often than ``limit`` times within ``window_s`` stays down.
    stop_s
        How long a service may take to stop before it is killed.
    """

    first_delay_s: float = 1.0
    longest_delay_s: float = 30.0
    limit: int = 5
    window_s: float = 300.0
    stop_s: float = 20.0

    def delay_s(self, ends: int) -> float:
        """Return how long to wait after the ``ends``-th end within the window."""
        return min(self.longest_delay_s, self.first_delay_s * 2.0 ** max(0, ends - 1))


@dataclass(slots=True)
class _Child:
    """One service, its present process, and when it ended before."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    pump: threading.Thread | None = None
    ended_at_s: list[float] = field(default_factory=list)
    start_again_at_s: float = 0.0
    given_up: bool = False


class _Terminal:
    """Writes whole lines of several services to one stream, each behind the name of its service."""

    def __init__(self, output: TextIO, names: Sequence[str]) -> None:
        self._output = output
        self._lock = threading.Lock()
        colour = output.isatty() and "NO_COLOR" not in os.environ
        width = max(map(len, names))
        self._prefixes = {
            name: f"{_COLOURS[place % len(_COLOURS)]}{name:<{width}} |{_RESET} " if colour else f"{name:<{width}} | "
            for place, name in enumerate(names)
        }

    def write(self, name: str, line: str) -> None:
        with self._lock:
            self._output.write(f"{self._prefixes[name]}{line.rstrip()}\n")
            self._output.flush()


def commands(config_path: Path | None, *, board: bool = False) -> dict[str, list[str]]:
    """Return the command line of each of the four services, and of the alert board where there is one."""
    options = [] if config_path is None else ["--config", str(config_path)]
    names = (*SERVICES, BOARD) if board else SERVICES
    return {name: [sys.executable, "-m", "appliance", name, *options] for name in names}


def run(
    config_path: Path | None = None,
    stop: threading.Event | None = None,
    *,
    services: Mapping[str, Sequence[str]] | None = None,
    policy: RestartPolicy | None = None,
    output: TextIO | None = None,
) -> int:
    """Run the services until told to stop.

    Call it from the main thread: the services are tied to the thread that starts them.

    Parameters
    ----------
    config_path
        Configuration file handed to every service; ``None`` lets each read the usual place.
    stop
        Set to stop. ``None`` stops on SIGINT and SIGTERM.
    services
        Command line by name; ``None`` runs the four services.
    policy
        When to start an ended service again.
    output
        Where the services' lines are written; ``None`` is standard output.

    Returns
    -------
    int
        Exit code: 0 after a clean stop; 2 when a service says that the configuration is wrong; 4 when a
        service stayed down.
    """
    stop = stop or stop_event_on_signals()
    policy = policy or RestartPolicy()
    services = services or commands(config_path)
    terminal = _Terminal(output or sys.stdout, ["serve", *services])
    children = [_Child(name, command) for name, command in services.items()]
    exit_code = 0
    try:
        while not stop.is_set() and exit_code != CONFIGURATION_WRONG:
            for child in children:
                exit_code = max(exit_code, _look_after(child, policy, terminal, stop), key=_severity)
            if all(child.given_up for child in children):
                terminal.write("serve", "no service is left running; stopping.")
                break
            stop.wait(0.1)
    finally:
        _stop_all(children, policy, terminal)
    return exit_code


def _severity(exit_code: int) -> int:
    return (0, INTERNAL_FAILURE, CONFIGURATION_WRONG).index(exit_code)


def _look_after(child: _Child, policy: RestartPolicy, terminal: _Terminal, stop: threading.Event) -> int:
    """Start the service when it is due, notice when it ended; return the exit code that this means."""
    now_s = time.monotonic()
    if child.given_up:
        return INTERNAL_FAILURE
    if child.process is None:
        if now_s >= child.start_again_at_s:
            _start(child, terminal, stop)
        return 0
    code = child.process.poll()
    if code is None:
        return 0
    _kill_group(child.process)
    _finish_pump(child)
    child.process = None
    if code == CONFIGURATION_WRONG:
        terminal.write("serve", f"{child.name} says that the configuration is wrong; stopping.")
        child.given_up = True
        return CONFIGURATION_WRONG
    child.ended_at_s = [ended_s for ended_s in child.ended_at_s if ended_s > now_s - policy.window_s] + [now_s]
    ends = len(child.ended_at_s)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    if ends > policy.limit:
        terminal.write(
            "serve",
            f"{child.name} {how}, {ends} times within {policy.window_s:.0f} s; it stays down. "
            f"Read its lines above, mend the cause and start `appliance serve` again.",
        )
        child.given_up = True
        return INTERNAL_FAILURE
    delay_s = policy.delay_s(ends)
    terminal.write("serve", f"{child.name} {how}; starting it again in {delay_s:g} s.")
    child.start_again_at_s = now_s + delay_s
    return 0


def _start(child: _Child, terminal: _Terminal, stop: threading.Event) -> None:
    child.process = subprocess.Popen(
        tethered(child.command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={LOG_FORMAT_VARIABLE: "text", "PYTHONUNBUFFERED": "1"} | os.environ,
        # Its own group: Ctrl-C reaches only this process, which then stops the services in good order.
        process_group=0,
    )
    child.pump = threading.Thread(
        target=_pump,
        args=(child.name, child.process, terminal, stop),
        name=f"lines of {child.name}",
        daemon=True,
    )
    child.pump.start()
    terminal.write("serve", f"{child.name} started, process {child.process.pid}.")


def _pump(name: str, process: subprocess.Popen[bytes], terminal: _Terminal, stop: threading.Event) -> None:
    if process.stdout is None:
        return
    with process.stdout as lines:
        for line in lines:
            try:
                terminal.write(name, line.decode(errors="replace"))
            except (OSError, ValueError):
                # Nobody reads any more (`appliance serve | head`): the same as closing the terminal.
                stop.set()
                return


def _finish_pump(child: _Child) -> None:
    if child.pump is not None:
        # A grandchild may still hold the pipe; its last lines are not worth waiting for.
        child.pump.join(timeout=2.0)


def _stop_all(children: Sequence[_Child], policy: RestartPolicy, terminal: _Terminal) -> None:
    running = [(child, child.process) for child in children if child.process is not None]
    for _, process in running:
        process.terminate()
    deadline_s = time.monotonic() + policy.stop_s
    for child, process in running:
        try:
            process.wait(timeout=max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            _say(terminal, f"{child.name} did not stop within {policy.stop_s:g} s; killing it.")
        _kill_group(process)
        process.wait()
        _finish_pump(child)
    _say(terminal, "all services stopped.")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the service's process group, its own children included."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _say(terminal: _Terminal, line: str) -> None:
    try:
        terminal.write("serve", line)
    except (OSError, ValueError):
        return  # the terminal is gone; stopping matters more than saying so
