"""What the board shows, read from the database and the heartbeats in one go, so that no page waits for either."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from appliance.errors import StoreError
from appliance.health.assessment import queue as read_queue
from appliance.results.objects.patient import name_in_results
from appliance.results.report import ScreeningResult
from appliance.screenings.contract import Status
from appliance.services.lifecycle import read_heartbeat
from appliance.store.alerts import AlertState
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.health.model import Queue
    from appliance.store.alerts import Alert
    from appliance.store.database import Store
    from appliance.store.deliveries import DestinationRow
    from appliance.store.results import ResultRow
    from appliance.store.scan_rows import ScanRow

_log = structlog.get_logger()

#: Open alerts beyond these are counted, not shown.
MOST_ALERTS = 60
MOST_CARDS = 20
_RECENT = 5
_CACHED_RESULTS = 256
#: The slowest regular heartbeat is delivery's with its longest poll; three missed ones are silence.
SILENT_AFTER_S = 180.0
WATCHED = ("receive", "work", "deliver", "health")


class Trouble(StrEnum):
    """Why the database was not read."""

    ABSENT = "absent"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Picture:
    """A key image: the place of its file in the result's list, and the screening that it belongs to."""

    number: int
    screening: str


@dataclass(frozen=True, slots=True)
class ScanView:
    """One scan.

    Attributes
    ----------
    row
        The scan.
    patient_name
        Empty unless it is to be shown and known.
    results
        One for each screening; empty until there is a result.
    pictures
        Its key images.
    """

    row: ScanRow
    patient_name: str
    results: tuple[ScreeningResult, ...]
    pictures: tuple[Picture, ...]

    @property
    def findings(self) -> tuple[ScreeningResult, ...]:
        """Screenings that found something, the most urgent first."""
        order = ("urgent", "soon", "routine")
        found = [result for result in self.results if result.outcome.status is Status.FINDING]
        return tuple(sorted(found, key=lambda result: order.index(result.outcome.urgency.value)))

    @property
    def ordered(self) -> tuple[ScreeningResult, ...]:
        """All of them as people read them: findings, then what was looked for in vain, then what has no answer."""
        rest = [result for result in self.results if result.outcome.status is not Status.FINDING]
        return (*self.findings, *sorted(rest, key=lambda result: result.outcome.reason is not None))

    @property
    def pictured(self) -> frozenset[str]:
        """Screenings that have a key image."""
        return frozenset(picture.screening for picture in self.pictures)

    @property
    def unanswered(self) -> tuple[ScreeningResult, ...]:
        """Screenings without an answer."""
        return tuple(result for result in self.results if result.outcome.reason is not None)

    def result(self, screening: str) -> ScreeningResult | None:
        """Return what a screening concluded."""
        return next((result for result in self.results if result.name == screening), None)


@dataclass(frozen=True, slots=True)
class AlertCard:
    """The open alerts of one scan, which one click acknowledges together."""

    scan: ScanView
    alerts: tuple[Alert, ...]

    @property
    def escalated(self) -> bool:
        """Whether one of them waited too long."""
        return any(alert.state is AlertState.ESCALATED for alert in self.alerts)

    @property
    def urgency(self) -> str:
        """Of the most pressing one."""
        return self.alerts[0].urgency


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An alert that somebody has seen, with its scan."""

    alert: Alert
    scan: ScanView


@dataclass(frozen=True, slots=True)
class Results:
    """What the database says.

    Attributes
    ----------
    cards
        Scans with open alerts, the most urgent and oldest first, at most :data:`MOST_CARDS`.
    open_alerts, escalated_alerts
        All of them, shown or not.
    acknowledged
        The last ones.
    scans
        The last ones.
    queue, destinations
        How work and deliveries stand.
    """

    cards: tuple[AlertCard, ...] = ()
    open_alerts: int = 0
    escalated_alerts: int = 0
    acknowledged: tuple[Acknowledged, ...] = ()
    scans: tuple[ScanView, ...] = ()
    queue: Queue | None = None
    destinations: tuple[DestinationRow, ...] = ()

    @property
    def shown_alerts(self) -> int:
        """How many open alerts are on the cards."""
        return sum(len(card.alerts) for card in self.cards)


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on the board's first page.

    Attributes
    ----------
    results, read_at
        The last good reading of the database, and its Unix time; 0 when there was none.
    trouble
        Why the newest reading failed.
    alive
        Whether each service has given a sign of life lately.
    work_stopped
        Whether the work service says that it cannot screen.
    free_gib, disk
        Space, and ``well``, ``low`` or ``full``.
    """

    results: Results
    read_at: float
    trouble: Trouble | None
    alive: dict[str, bool]
    work_stopped: bool
    free_gib: int
    disk: str

    @property
    def ill(self) -> bool:
        """Whether the box needs somebody: a service is silent, the disk is full, work or a delivery has stopped."""
        queue = self.results.queue
        stalled = self.work_stopped or (queue is not None and queue.stalled)
        parked = any(row.parked for row in self.results.destinations)
        return stalled or parked or self.disk == "full" or not all(self.alive.values())

    def same_as(self, other: Overview) -> bool:
        """Whether both look the same on the page."""
        # The queue's ages grow by themselves and are not shown.
        return _comparable(self) == _comparable(other)


def _comparable(overview: Overview) -> tuple[object, ...]:
    results = overview.results
    queue = results.queue
    shown = (queue.by_state, queue.stalled) if queue is not None else None
    return replace(results, queue=None), shown, replace(overview, results=Results(), read_at=0.0)


class Reader:
    """Reads the overview again and again; used from one thread.

    Parameters
    ----------
    state_directory
        Where heartbeats lie, and whose file system is measured.
    database, results
        The SQLite file; the folder with the results' folders.
    scans
        How many of the last scans are shown.
    patient_names
        Whether names are looked up.
    stalled_after_s
        See :func:`appliance.health.assessment.queue`.
    low_mib, full_mib
        Below these the disk is low or full.
    """

    def __init__(
        self,
        *,
        state_directory: Path,
        database: Path,
        results: Path,
        scans: int,
        patient_names: bool,
        stalled_after_s: float,
        low_mib: int,
        full_mib: int,
    ) -> None:
        self._state_directory = state_directory
        self._database = database
        self._folder = results
        self._scans = scans
        self._patient_names = patient_names
        self._stalled_after_s = stalled_after_s
        self._low_mib, self._full_mib = low_mib, full_mib
        self._last = Results()
        self._read_at = 0.0
        self._cached: OrderedDict[int, ScanView] = OrderedDict()

    def read(self) -> Overview:
        """Read everything; a database that cannot be read is told, with what was known before."""
        trouble = None
        if not self._database.exists():
            trouble = Trouble.UNREADABLE if self._read_at else Trouble.ABSENT
        else:
            try:
                with open_database(self._database, read_only=True) as store:
                    self._last = self._results(store)
                    self._read_at = time.time()
            except StoreError:
                trouble = Trouble.UNREADABLE
        free_mib = self._free_mib()
        return Overview(
            results=self._last,
            read_at=self._read_at,
            trouble=trouble,
            alive={name: self._alive(name) for name in WATCHED},
            work_stopped=bool((read_heartbeat(self._state_directory, "work") or {}).get("problem")),
            free_gib=free_mib // 1024,
            disk="full" if free_mib < self._full_mib else "low" if free_mib < self._low_mib else "well",
        )

    def scan(self, store: Store, row: ScanRow) -> ScanView:
        """Return a scan with its result; may be called from any thread with a store of its own."""
        found = store.results.get(row.id)
        if found is None:
            return ScanView(row, "", (), ())
        name = name_in_results(self._folder / row.folder) if self._patient_names else ""
        try:
            return ScanView(row, name, screening_results(found), pictures(found))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # A result of another release: its scan and its alerts are shown all the same.
            _log.error("result_not_shown", scan=row.id, error=type(error).__name__)
            return ScanView(row, name, (), ())

    def _known_scan(self, store: Store, row: ScanRow) -> ScanView:
        """Return the same from memory: a stored result never changes."""
        known = self._cached.get(row.id)
        if known is not None:
            self._cached.move_to_end(row.id)
            return replace(known, row=row)
        view = self.scan(store, row)
        if view.results:
            self._cached[row.id] = view
            while len(self._cached) > _CACHED_RESULTS:
                self._cached.popitem(last=False)
        return view

    def _results(self, store: Store) -> Results:
        counts = store.alerts.counts()
        escalated = counts[AlertState.ESCALATED]
        recent = [alert for alert in store.alerts.recent(50) if alert.state is AlertState.ACKNOWLEDGED]
        recent.sort(key=lambda alert: alert.acknowledged_at or 0.0, reverse=True)
        return Results(
            cards=self._cards(store, store.alerts.unacknowledged(MOST_ALERTS)),
            open_alerts=counts[AlertState.OPEN] + escalated,
            escalated_alerts=escalated,
            acknowledged=tuple(
                Acknowledged(alert, self._known_scan(store, store.scans.get(alert.scan_id)))
                for alert in recent[:_RECENT]
            ),
            scans=tuple(self._known_scan(store, row) for row in store.scans.last(self._scans)),
            queue=read_queue(store, stalled_after_s=self._stalled_after_s),
            destinations=tuple(store.deliveries.destinations()),
        )

    def _cards(self, store: Store, alerts: Sequence[Alert]) -> tuple[AlertCard, ...]:
        by_scan: dict[int, list[Alert]] = {}
        for alert in alerts:
            by_scan.setdefault(alert.scan_id, []).append(alert)
        return tuple(
            AlertCard(self._known_scan(store, store.scans.get(scan_id)), tuple(items))
            for scan_id, items in list(by_scan.items())[:MOST_CARDS]
        )

    def _alive(self, service: str) -> bool:
        # By what the heartbeat says alone: this service may not see the others' processes.
        beat_s = (read_heartbeat(self._state_directory, service) or {}).get("beat_s")
        if not isinstance(beat_s, int | float):
            return False
        # Seconds since boot: one from the future was written before the machine was started anew.
        return -1.0 < time.clock_gettime(time.CLOCK_BOOTTIME) - beat_s <= SILENT_AFTER_S

    def _free_mib(self) -> int:
        try:
            figures = os.statvfs(self._state_directory)
        except OSError:
            return 0
        return int(figures.f_bavail * figures.f_frsize // (1024 * 1024))


def screening_results(found: ResultRow) -> tuple[ScreeningResult, ...]:
    """Return the screenings of a stored report."""
    return tuple(ScreeningResult.from_json(item) for item in found.report["screenings"])


def pictures(found: ResultRow) -> tuple[Picture, ...]:
    """Return the key images of a stored result."""
    names = [file.rpartition("/")[2].removesuffix(".png") for file in found.key_images]
    return tuple(Picture(number, name) for number, name in enumerate(names) if name.isidentifier())


def waiting(queue: Queue) -> int:
    """Return how many scans wait to be screened or are being screened."""
    return sum(queue.by_state[state] for state in (ScanState.COMPLETE, ScanState.PLANNED, ScanState.SCREENING))
