"""Tells a program of the site's own about alerts, so that a lamp or a buzzer beside the scanner can follow them.

The program learns numbers, words of closed vocabularies and times, and nothing that came out of a DICOM header. It may
be told one thing twice, after a crash between its end and our note of it; number and step are then the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from appliance.store.alert_rules import AlertChannel, ChannelKind
from appliance.store.alerts import AlertState
from appliance.store.announcements import AlertStep, CommandOutcome, CommandRun
from appliance.store.events import EventKind

if TYPE_CHECKING:
    import threading

    from appliance.delivery.backoff import Backoff
    from appliance.store.announcements import Announcement
    from appliance.store.database import Store

log = structlog.get_logger()

CHANNEL = AlertChannel(ChannelKind.COMMAND)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOOK_S = 0.25
# A program that is told to end when the service does gets this long; it is run again at the next start.
_STOP_GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class Program:
    """What is run.

    Attributes
    ----------
    command
        The whole path of a program, and its arguments.
    timeout_s
        It is killed, with everything that it started, when it runs longer.
    tries
        How often it is run until it succeeds.
    """

    command: tuple[str, ...]
    timeout_s: float
    tries: int


def facts(announcement: Announcement, unacknowledged: int) -> dict[str, str | int]:
    """Return what the program learns, as its standard input and, with other names, as its environment.

    Parameters
    ----------
    announcement
        What happened.
    unacknowledged
        How many alerts nobody has acknowledged at present: a lamp is on while there is one.
    """
    alert = announcement.alert
    return {
        "id": alert.id,
        "step": announcement.step.value,
        "screening": alert.screening,
        "urgency": alert.urgency,
        "scan": alert.scan_id,
        "raised_at": datetime.fromtimestamp(alert.raised_at, UTC).isoformat(timespec="seconds"),
        "unacknowledged": unacknowledged,
    }


class AlertCommand:
    """Takes the outbox's entries for the program, one at a time.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    program
        What is run.
    backoff
        Waiting times between tries.
    stop
        Once it is set nothing more is begun.
    """

    def __init__(self, store: Store, program: Program, backoff: Backoff, stop: threading.Event) -> None:
        self._store = store
        self._program = program
        self._backoff = backoff
        self._stop = stop

    def step(self) -> bool:
        """Tell the program of the most pressing thing that is due; return whether there was one.

        It may be interrupted at any line and called again.

        Raises
        ------
        StoreError
            The database cannot be used.
        """
        due = self._store.announcements.due(CHANNEL, limit=1, longest_wait_s=self._backoff.longest_s)
        if not due or self._stop.is_set():
            return False
        announcement = due[0]
        if announcement.step is not AlertStep.ACKNOWLEDGED and announcement.alert.state is AlertState.ACKNOWLEDGED:
            self._store.outbox.give_up(announcement.key, "Somebody had acknowledged it before the command was run.")
            return True
        counts = self._store.alerts.counts()
        unacknowledged = counts[AlertState.OPEN] + counts[AlertState.ESCALATED]
        run = self._run(announcement, unacknowledged)
        if run is not None:
            self._note(announcement, run)
        return run is not None

    def _note(self, announcement: Announcement, run: CommandRun) -> None:
        """Store how a run ended and what follows from it, in one transaction."""
        good = run.exit_status == 0
        last = announcement.attempts + 1 >= self._program.tries
        why = "" if good else _sentence(run, self._program)
        with self._store.atomic():
            self._store.announcements.record(run)
            if good:
                self._store.outbox.done(announcement.key)
            elif last:
                self._store.outbox.give_up(announcement.key, why)
                self._store.events.record(EventKind.ALERT_COMMAND_FAILED, scan_id=announcement.alert.scan_id)
            else:
                wait_s = self._backoff.wait_s(announcement.attempts + 1)
                self._store.outbox.failed(announcement.key, retry_at=time.time() + wait_s, reason=why)
        facts_of_it = {"alert": run.alert_id, "step": run.step.value, "outcome": run.outcome.value}
        if good:
            log.info("alert_command_ran", **facts_of_it)
        else:
            log.error("alert_command_failed", **facts_of_it, exit_status=run.exit_status, given_up=last)

    def _run(self, announcement: Announcement, unacknowledged: int) -> CommandRun | None:
        """Run the program once; ``None`` when the service ends before it does."""
        told = facts(announcement, unacknowledged)
        variables = {f"APPLIANCE_ALERT_{name.upper()}": str(value) for name, value in told.items()}
        ran_at, begun = time.time(), time.monotonic()

        def ended(outcome: CommandOutcome, exit_status: int | None = None) -> CommandRun:
            seconds = time.monotonic() - begun
            return CommandRun(announcement.alert.id, announcement.step, ran_at, seconds, outcome, exit_status)

        try:
            # The site's own program, from its configuration; no shell is involved.
            process = subprocess.Popen(
                self._program.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": _PATH, "LANG": "C.UTF-8", **variables},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            log.warning("alert_command_not_started", why=getattr(error, "strerror", None) or type(error).__name__)
            return ended(CommandOutcome.NOT_STARTED)
        try:
            _hand_in(process, json.dumps(told).encode() + b"\n")
            code = self._wait(process, begun + self._program.timeout_s)
        finally:
            _end(process)
        if code is None:
            return None if self._stop.is_set() else ended(CommandOutcome.TIMED_OUT)
        return ended(CommandOutcome.EXITED, code) if code >= 0 else ended(CommandOutcome.KILLED)

    def _wait(self, process: subprocess.Popen[bytes], deadline: float) -> int | None:
        """Return how the program ended; ``None`` when it does not by the deadline, or soon after the service must."""
        while (left_s := deadline - time.monotonic()) > 0:
            if self._stop.is_set():
                deadline = min(deadline, time.monotonic() + _STOP_GRACE_S)
            try:
                return process.wait(min(left_s, _LOOK_S))
            except subprocess.TimeoutExpired:
                continue
        return None


def _hand_in(process: subprocess.Popen[bytes], content: bytes) -> None:
    """Write the standard input, which fits into any pipe, so that a program that does not read it holds nothing up."""
    if process.stdin is None:
        return
    try:
        process.stdin.write(content)
        process.stdin.close()
    except BrokenPipeError:
        log.debug("alert_command_reads_no_input")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that still runs, and what it has started; what one that has ended left behind is its own affair."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        # It hangs in a driver. Waiting for it would keep every later alert from being told.
        log.warning("alert_command_cannot_be_killed")


def _sentence(run: CommandRun, program: Program) -> str:
    how = {
        CommandOutcome.EXITED: f"ended with exit status {run.exit_status}",
        CommandOutcome.KILLED: "was ended by a signal",
        CommandOutcome.TIMED_OUT: f"was still running after alerts.command_timeout_s = {program.timeout_s:g}",
        CommandOutcome.NOT_STARTED: "cannot be started",
    }[run.outcome]
    return f"The program in alerts.command {how}."
