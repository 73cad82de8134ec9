"""One scan at a time through the screening child, to a stored result, a refusal or a lost attempt.

What the child has said is kept until it is in the database, so that a full disk or a locked file delays an end but
never loses it.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from appliance.durable import sync
from appliance.reasons import Reason, ReasonCode
from appliance.services.alert_rules import alert_rules
from appliance.services.screener import SCREEN_SERIES
from appliance.services.screener_process import ScreenerLostError, ScreenerProcess
from appliance.store import rebuild
from appliance.store.events import EventKind
from appliance.store.lifecycle import ScanState, TransitionError
from appliance.store.results import ReportInvalidError

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config import Settings
    from appliance.store.database import Store
    from appliance.store.instances import UsedInstance
    from appliance.store.leases import Owner
    from appliance.store.scan_rows import ScanRow

_log = structlog.get_logger()

PART_PREFIX = ".part-"
_REPLACED_PREFIX = ".replaced-"

_START_WITHIN_S = 180.0
_WATCH_INTERVAL_S = 0.25
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_MOST_SERIES = 12  # a study has a handful of reconstructions; their headers are read for every one of them

_DOES_NOT_START = "screener_does_not_start"
_ENDS = {"result", "refused", "error", "unable"}
_STATES = {"planned": ScanState.PLANNED, "organ map": ScanState.SCREENING, "screening": ScanState.SCREENING}


@dataclass(slots=True)
class Attempt:
    """One scan in the child's hands.

    Attributes
    ----------
    scan
        As it was claimed.
    used
        What it is made of.
    folder
        Where the child writes.
    started
        On the monotonic clock.
    stage
        What the child last said it does.
    heard
        What the child has said and the database does not know yet.
    end
        What the child said or suffered last of all; kept until it is stored.
    """

    scan: ScanRow
    used: list[UsedInstance]
    folder: Path
    started: float = field(default_factory=time.monotonic)
    renewed: float = field(default_factory=time.monotonic)
    stage: str = "starting"
    heard: deque[dict[str, Any]] = field(default_factory=deque)
    end: dict[str, Any] | None = None


class _NotOnDiskError(Exception):
    """What the child wrote could not be made durable."""


class Attempts:
    """The child and what it is doing.

    Parameters
    ----------
    store
        The database.
    settings
        The whole configuration.
    owner
        This worker.
    screen_with
        See :class:`~appliance.services.screener_process.ScreenerProcess`.

    Attributes
    ----------
    current
        The attempt at hand.
    finished
        How many ended with a result or a refusal.
    unable
        Why no scan can be screened at present, as a word for ``status``; ``None`` when all is well.
    """

    def __init__(self, store: Store, settings: Settings, owner: Owner, screen_with: str = SCREEN_SERIES) -> None:
        self._store = store
        self._settings = settings
        self._owner = owner
        self._screen_with = screen_with
        self._rules = alert_rules(settings)
        self._child: ScreenerProcess | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._resume_at = 0.0
        self.current: Attempt | None = None
        self.finished = 0
        self.unable: str | None = None

    @property
    def child_pid(self) -> int | None:
        """Process id of the child."""
        return self._child.pid if self._child is not None else None

    @property
    def child_resident_mib(self) -> float:
        """Resident size of the child, MiB."""
        return self._child.resident_mib() if self._child is not None else 0.0

    def prepare(self) -> bool:
        """Keep a fresh child ready, and return whether a scan can be given to it now."""
        if self.current is not None:
            return False
        child = self._child
        if child is None:
            if time.monotonic() >= self._resume_at:
                self._start_child()
            return False
        if not child.ready:
            messages = child.messages(0.0)
            self._note_fallbacks(messages)
            began = any(message["event"] == "ready" for message in messages)
            if began and self.unable == _DOES_NOT_START:
                self.unable, self._pause_s = None, _FIRST_PAUSE_S
        code = child.ended()
        if code is not None or (not child.ready and child.age_s > _START_WITHIN_S):
            self._end_child()
            if not child.ready:  # the box is at fault: no scan pays for it with an attempt
                self._pause(_DOES_NOT_START, exit_code=code)
            return False
        if child.jobs >= self._settings.work.recycle_after_scans or self._too_large(child):
            _log.info("screener_recycled", scans=child.jobs)
            child.stop()
            self._child = None
            if not child.jobs:  # work.memory_limit_mib leaves no room for any scan
                self._pause("screener_too_large")
            return False
        return child.ready and time.monotonic() >= self._resume_at

    def _start_child(self) -> None:
        try:
            self._child = ScreenerProcess(self._settings, screen_with=self._screen_with)
        except ScreenerLostError as error:
            self._pause(_DOES_NOT_START, error=str(error))

    def begin(self, scan: ScanRow) -> None:
        """Give a claimed scan to the child, unless its result lies there already."""
        used = self._store.instances.of_scan(scan.id)
        results = self._settings.box.results
        if rebuild.belongs_to(results / scan.folder, scan):
            # A predecessor was killed between the last rename and the commit.
            self.current = Attempt(scan, used, results / scan.folder, end={"event": "result"})
            return
        gone = scan.instances - sum(not item.pruned for item in used)
        if gone > 0:
            self._refuse_incomplete(scan, gone)
            return
        folder = results / f"{PART_PREFIX}{scan.folder}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True, mode=0o700)
        self.current = Attempt(scan, used, folder)
        paths = [self._settings.box.spool / item.path for item in used]
        if self._child is None:
            return  # as good as one that ended; the limits notice it
        try:
            self._child.screen(scan.id, paths, folder, scan.revision, self._others(scan), self._predecessor(scan))
        except ScreenerLostError as error:
            self._lost(ReasonCode.WORKER_LOST, str(error))

    def _predecessor(self, scan: ScanRow) -> Path | None:
        """Results folder of the last revision of the series that has one."""
        earlier = self._store.scans.earlier_revisions(scan)
        folders = (self._settings.box.results / row.folder for row in earlier)
        return next((folder for folder in folders if folder.is_dir()), None)

    def _others(self, scan: ScanRow) -> list[list[Path]]:
        """Files of the study's other series, so that each screening can take the one that suits it best."""
        found = []
        for other in self._store.scans.same_study(scan)[:_MOST_SERIES]:
            used = self._store.instances.of_scan(other.id)
            if used and not any(item.pruned for item in used):
                found.append([self._settings.box.spool / item.path for item in used])
        return found

    def _refuse_incomplete(self, scan: ScanRow, gone: int) -> None:
        text = (
            f"{gone} of the {scan.instances} images of this series were deleted when their time had come; "
            "send the whole series again, then ask for the scan again."
        )
        reason = Reason(ReasonCode.IMAGES_DELETED, text)
        self._store.scans.move(scan.id, ScanState.REFUSED, cause="the series cannot be used", reason=reason)
        _log.warning("scan_refused", scan=scan.id, reason=reason.code.value, gone=gone)

    def watch(self, wait_s: float) -> None:
        """Listen to the child, hold it to its limits, and store how its attempt ended."""
        if self.current is None:
            return
        try:
            self._watch(self.current, wait_s)
        except TransitionError as error:
            # Somebody else has moved the scan on; what this attempt gives is not wanted any more.
            _log.error("attempt_abandoned", scan=self.current.scan.id, why=str(error))
            self._abandon(self.current)

    def _watch(self, attempt: Attempt, wait_s: float) -> None:
        if attempt.end is None and self._child is not None:
            self._hear(attempt, self._child.messages(min(wait_s, _WATCH_INTERVAL_S)))
        if attempt.end is None:
            self._check_limits(attempt)
        if attempt.end is None:
            self._renew(attempt)
        if self.current is not None and attempt.end is not None:
            self._conclude(attempt, attempt.end)
            self.current = None

    def stop(self) -> None:
        """End the child; the scan at hand goes back without losing an attempt."""
        attempt = self.current
        if attempt is None and self._child is not None:
            self._child.stop()
        elif self._child is not None:
            self._child.kill()
        self._child = None
        self.current = None
        if attempt is not None:
            self._discard(attempt)
            self._store.leases.release(attempt.scan.id, cause="the service stopped")

    def _hear(self, attempt: Attempt, messages: list[dict[str, Any]]) -> None:
        attempt.heard.extend(messages)
        while attempt.heard:
            self._take(attempt, attempt.heard[0])
            attempt.heard.popleft()  # not before it is in the database

    def _note_fallbacks(self, messages: list[dict[str, Any]]) -> None:
        """Record that a pack was taken out of use, which the child has done and knows no database for."""
        for message in messages:
            if message["event"] == "fallback":
                _log.error(
                    "pack_failed",
                    pack=message["pack"],
                    version=message["version"],
                    instead=message["instead"] or "shipped",
                )
                self._store.events.record(EventKind.PACK_FAILED)

    def _take(self, attempt: Attempt, message: dict[str, Any]) -> None:
        if message["event"] == "fallback":
            self._note_fallbacks([message])
            return
        if message.get("job") != attempt.scan.id:
            return
        if message["event"] in _ENDS:
            attempt.end = message
            return
        attempt.stage = str(message["stage"])
        state = _STATES.get(attempt.stage)
        if state is not None:
            self._store.scans.advance(attempt.scan.id, state, cause=f"stage {attempt.stage}")

    def _check_limits(self, attempt: Attempt) -> None:
        child, work = self._child, self._settings.work
        if child is None:
            self._lost(ReasonCode.WORKER_LOST, "The screening process is gone.")
        elif (code := child.ended()) is not None:
            self._hear(attempt, child.messages(0.0))  # its last words
            if attempt.end is not None:
                return
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            self._lost(ReasonCode.WORKER_LOST, f"The screening process {how} at the stage “{attempt.stage}”.")
        elif self._too_large(child):
            limit = work.memory_limit_mib
            self._lost(ReasonCode.MEMORY_LIMIT, f"The screening process grew beyond work.memory_limit_mib = {limit}.")
        elif time.monotonic() - attempt.started > work.time_limit_s:
            limit_s = work.time_limit_s
            self._lost(ReasonCode.TIME_LIMIT, f"The screening took longer than work.time_limit_s = {limit_s:g}.")

    def _too_large(self, child: ScreenerProcess) -> bool:
        return child.resident_mib() > self._settings.work.memory_limit_mib

    def _lost(self, code: ReasonCode, text: str) -> None:
        self._end_child()
        if self.current is not None:
            self.current.end = {"event": "lost", "code": code.value, "text": text}

    def _renew(self, attempt: Attempt) -> None:
        lease_s = self._settings.work.lease_s
        if time.monotonic() - attempt.renewed < lease_s / 4.0:
            return
        if self._store.leases.renew(attempt.scan.id, self._owner, seconds=lease_s):
            attempt.renewed = time.monotonic()
            return
        _log.error("lease_lost", scan=attempt.scan.id)
        self._abandon(attempt)

    def _abandon(self, attempt: Attempt) -> None:
        self._end_child()
        self._discard(attempt)
        self.current = None

    def _conclude(self, attempt: Attempt, end: dict[str, Any]) -> None:
        scan, event = attempt.scan, end["event"]
        if event == "result":
            self._store_result(attempt)
        elif event == "refused":
            reason = Reason(ReasonCode(end["code"]), end["text"])
            self._store.scans.move(scan.id, ScanState.REFUSED, cause="the series cannot be used", reason=reason)
            _log.info("scan_refused", scan=scan.id, reason=reason.code.value)
            self._succeeded()
        elif event == "unable":
            self._unable(attempt, end["error"], end["text"])
        else:
            self._store_loss(attempt, end)
        self._discard(attempt)

    def _unable(self, attempt: Attempt, error: str, why: str) -> None:
        """Give the scan back without a lost attempt: the box is at fault."""
        _log.error("screening_unable", scan=attempt.scan.id, error=error, why=why)
        self._store.leases.release(attempt.scan.id, cause="the box cannot screen at present")
        self._end_child()
        self._pause("screening_unable")

    def _store_result(self, attempt: Attempt) -> None:
        scan = attempt.scan
        try:
            folder = self._publish(attempt)
            rebuild.save(self._store, folder, scan.id, alerts=self._rules)
        except _NotOnDiskError as error:
            self._unable(attempt, type(error).__name__, str(error))
            return
        except (FileNotFoundError, ValueError, ReportInvalidError) as error:
            shutil.rmtree(self._settings.box.results / scan.folder, ignore_errors=True)
            text = f"The screening left no report that can be stored ({type(error).__name__})."
            self._store_loss(attempt, {"code": ReasonCode.SCREENING_FAILED.value, "text": text})
            return
        _log.info("scan_screened", scan=scan.id, seconds=round(time.monotonic() - attempt.started, 1))
        self._succeeded()

    def _publish(self, attempt: Attempt) -> Path:
        """Give the child's folder its name, durably."""
        target = self._settings.box.results / attempt.scan.folder
        if attempt.folder == target:
            return target
        (attempt.folder / rebuild.REPORT_NAME).stat()
        rebuild.write_identity(attempt.folder, attempt.scan, attempt.used)
        try:
            for path in (*attempt.folder.rglob("*"), attempt.folder):
                sync(path)
        except OSError as error:
            # What a failed sync has lost, the next one may call written: the files cannot be believed any more.
            raise _NotOnDiskError(error.strerror or "it cannot be synced") from error
        if target.exists():  # of another scan, which a lost database has forgotten
            _log.warning("foreign_results_set_aside", folder=target.name)
            target.rename(target.with_name(f"{_REPLACED_PREFIX}{target.name}-{secrets.token_hex(4)}"))
        attempt.folder.rename(target)
        attempt.folder = target
        sync(target.parent)
        return target

    def _store_loss(self, attempt: Attempt, end: dict[str, Any]) -> None:
        scan = attempt.scan
        if "where" in end:
            _log.error("screening_error", scan=scan.id, error=end["error"], where=end["where"])
            text = f"The screening stopped with an internal error ({end['error']}) at the stage “{attempt.stage}”."
            reason = Reason(ReasonCode.SCREENING_FAILED, text)
        else:
            reason = Reason(ReasonCode(end["code"]), end["text"])
        seconds = time.monotonic() - attempt.started
        state = self._store.leases.lose(
            scan.id, reason, attempts=self._settings.work.attempts, numbers={"seconds": round(seconds, 1)}
        )
        _log.error(
            "attempt_lost",
            scan=scan.id,
            attempt=scan.attempts,
            reason=reason.code.value,
            now=state.value,
            why=reason.text,
        )

    def _succeeded(self) -> None:
        self.finished += 1
        self.unable = None
        self._pause_s = _FIRST_PAUSE_S

    def _pause(self, why: str, **facts: Any) -> None:
        self._resume_at = time.monotonic() + self._pause_s
        _log.error(why, again_in_s=self._pause_s, **facts)
        self._pause_s = min(_LONGEST_PAUSE_S, 2.0 * self._pause_s)
        self.unable = why

    def _discard(self, attempt: Attempt) -> None:
        if attempt.folder.name.startswith(PART_PREFIX):
            shutil.rmtree(attempt.folder, ignore_errors=True)

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(OSError):
                child.kill()
