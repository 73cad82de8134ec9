"""The ``work`` service: assembles series, has them screened by a child process, stores what was found.

One loop does everything that touches the database; it never blocks for long, so that series go on being assembled while
one is screened. It can be killed at any line: the next one finds the spool, the database and the results folders.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import structlog

from appliance.durable import sync
from appliance.errors import ApplianceError, StoreError
from appliance.services import systemd
from appliance.services.alert_rules import alert_rules
from appliance.services.assemble import Assembler
from appliance.services.attempts import PART_PREFIX, Attempts
from appliance.services.lifecycle import Heartbeat
from appliance.services.screener import SCREEN_SERIES
from appliance.services.self_test import SelfTester
from appliance.store import rebuild
from appliance.store.database import DatabaseDamagedError, open_database
from appliance.store.leases import Owner
from appliance.store.lifecycle import ScanState
from appliance.store.recovery import FileLock

if TYPE_CHECKING:
    import threading

    from appliance.config import Settings
    from appliance.store.database import Store
    from appliance.store.scan_rows import ScanRow

_log = structlog.get_logger()

_IDLE_S = 0.25
_LIST_INTERVAL_S = 0.5
_BEAT_INTERVAL_S = 1.0
_UPKEEP_INTERVAL_S = 5.0
_LONGEST_PAUSE_S = 30.0
_FORGET_INTERVAL_S = 600.0
_PRUNED_KEPT_S = 90 * 86400.0  # so long a series that is sent once more is known to have been screened
_PREDECESSOR_ENDS_WITHIN_S = 5.0


def run(settings: Settings, stop: threading.Event, *, screen_with: str = SCREEN_SERIES) -> None:
    """Assemble and screen until ``stop`` is set.

    Parameters
    ----------
    settings
        The whole configuration.
    stop
        Ends the service; the scan at hand is given back and begins anew next time.
    screen_with
        ``module:function`` that the child screens with; another one in tests only.

    Raises
    ------
    ApplianceError
        Another work service uses the same state directory.
    StoreError
        The database cannot be opened, or turned out to be damaged.
    """
    box = settings.box
    try:
        (box.state_directory / "run").mkdir(parents=True, exist_ok=True, mode=0o755)
        lock = FileLock(box.state_directory / "run" / "work.lock")
    except OSError as error:
        raise ApplianceError(f"{box.state_directory}: the state directory cannot be used: {error.strerror}.") from error
    try:
        if not lock.alone_within(_PREDECESSOR_ENDS_WITHIN_S):
            raise ApplianceError(f"{box.state_directory}: another work service already runs here; stop it first.")
        with open_database(box.database) as store:
            systemd.notify("READY=1")
            worker = _Worker(settings, store, screen_with)
            try:
                worker.loop(stop)
            finally:
                systemd.notify("STOPPING=1")
                worker.close()
    finally:
        lock.release()


class _Worker:
    """The loop with what it remembers between two rounds."""

    def __init__(self, settings: Settings, store: Store, screen_with: str) -> None:
        self._settings = settings
        self._store = store
        self._owner = Owner.current()
        self._heartbeat = Heartbeat(settings.box.state_directory, "work")
        self._take_up()
        self._assembler = Assembler(
            store, settings.box.spool, quiet_s=settings.assemble.quiet_s, force_s=settings.assemble.force_s
        )
        self._attempts = Attempts(store, settings, self._owner, screen_with)
        self._self_tester = SelfTester(store, settings)
        self._caught_up = False
        self._list_at = 0.0
        self._beat_at = 0.0
        self._upkeep_at = 0.0
        self._forget_at = 0.0
        self._marked_until = 0.0
        self._pause_s = 1.0

    def loop(self, stop: threading.Event) -> None:
        """Go round until ``stop`` is set."""
        while not stop.is_set():
            try:
                self._round()
            except DatabaseDamagedError:
                raise  # only a restart mends it
            except (StoreError, OSError) as error:
                why = str(error) if isinstance(error, StoreError) else error.strerror
                _log.error("work_interrupted", why=why, again_in_s=self._pause_s)
                self._beat(problem="work_interrupted")
                systemd.notify("WATCHDOG=1")  # a restart would meet the same disk
                stop.wait(self._pause_s)
                self._pause_s = min(_LONGEST_PAUSE_S, 2.0 * self._pause_s)
                continue
            self._pause_s = 1.0
            systemd.notify("WATCHDOG=1")
            if self._attempts.current is None and self._caught_up:
                stop.wait(_IDLE_S)

    def close(self) -> None:
        """Give back what is at hand and end the children."""
        self._self_tester.close()
        try:
            self._attempts.stop()
        except StoreError as error:
            _log.error("scan_not_given_back", why=str(error))  # its lease ends with this process
        self._heartbeat.end()

    def _take_up(self) -> None:
        """Begin where a predecessor was stopped or killed."""
        results = self._settings.box.results
        results.mkdir(parents=True, exist_ok=True, mode=0o700)
        sync(results.parent)
        for leftover in results.glob(f"{PART_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        rules = alert_rules(self._settings)
        restored = rebuild.restore(self._store, results, alerts=rules, on_folder=lambda: systemd.notify("WATCHDOG=1"))
        if restored.finished or restored.unfinished:
            _log.warning("restored_from_results", finished=restored.finished, unfinished=restored.unfinished)
        stored = rebuild.take_up(self._store, results, alerts=rules)
        if stored:
            _log.warning("results_taken_up", scans=stored)
        taken = self._store.leases.take_back(attempts=self._settings.work.attempts)
        if taken:
            _log.warning("scans_taken_back", scans=taken)

    def _round(self) -> None:
        self._assemble()
        now = time.monotonic()
        if now >= self._upkeep_at:
            self._upkeep_at = now + _UPKEEP_INTERVAL_S
            at_hand = self._attempts.current.scan.id if self._attempts.current else None
            self._store.leases.take_back(attempts=self._settings.work.attempts, keep=at_hand)
            self._hand_over()
            self._self_tester.step()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_INTERVAL_S
            self._store.associations.forget(pruned_before=time.time() - _PRUNED_KEPT_S)
        self._screen()
        if time.monotonic() >= self._beat_at:
            self._beat()

    def _assemble(self) -> None:
        now = time.monotonic()
        if self._caught_up and now < self._list_at:
            return
        self._caught_up = self._assembler.index()
        if self._caught_up:
            self._list_at = now + _LIST_INTERVAL_S
            self._assembler.complete()

    def _screen(self) -> None:
        if self._attempts.prepare():
            scan = self._store.leases.claim(self._owner, seconds=self._settings.work.lease_s)
            if scan is not None:
                _log.info("scan_claimed", scan=scan.id, attempt=scan.attempts, instances=scan.instances)
                self._begin(scan)
                self._beat()
        if self._attempts.current is not None:
            finished = self._attempts.finished
            self._attempts.watch(_IDLE_S if self._caught_up else 0.0)
            if self._attempts.finished > finished:
                self._hand_over()
                self._beat()

    def _begin(self, scan: ScanRow) -> None:
        try:
            self._attempts.begin(scan)
        except (OSError, StoreError):
            self._store.leases.release(scan.id, cause="the disk or the database could not be used")
            raise

    def _hand_over(self) -> None:
        """Give what is screened to delivery, and write into the folders of finished scans that they are."""
        deliver = self._settings.deliver
        for scan in self._store.scans.in_state(ScanState.SCREENED):
            self._store.scans.hand_over(scan.id, deliver.pacs_names, hl7=deliver.hl7_names("results"))
        for scan in self._store.scans.done_since(self._marked_until):
            at = scan.finished_at or time.time()
            rebuild.mark_finished(self._settings.box.results / scan.folder, at)
            self._marked_until = max(self._marked_until, at)

    def _beat(self, problem: str | None = None) -> None:
        self._beat_at = time.monotonic() + _BEAT_INTERVAL_S
        attempt = self._attempts.current
        try:
            self._heartbeat.beat(
                problem=problem or self._attempts.unable,
                scan=attempt.scan.id if attempt else None,
                stage=attempt.stage if attempt else None,
                scan_seconds=round(time.monotonic() - attempt.started, 1) if attempt else None,
                child_pid=self._attempts.child_pid,
                child_resident_mib=round(self._attempts.child_resident_mib, 1),
                finished=self._attempts.finished,
            )
        except OSError as error:
            _log.error("heartbeat_not_written", why=error.strerror)
