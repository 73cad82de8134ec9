"""The work service around a stub screening: every way an attempt can end, and what stays on disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from appliance.commands.results import _delivery_sentences
from appliance.commands.status import _last_scans
from appliance.config import Settings
from appliance.errors import ApplianceError, StoreError
from appliance.reasons import Reason, ReasonCode
from appliance.services import attempts, work
from appliance.services.assemble import Assembler
from appliance.services.attempts import Attempts
from appliance.services.lifecycle import read_heartbeat
from appliance.services.screener_process import ScreenerLostError, ScreenerProcess
from appliance.store import rebuild
from appliance.store.database import open_database
from appliance.store.events import EventKind
from appliance.store.instances import Instances
from appliance.store.leases import Leases, Owner
from appliance.store.lifecycle import TERMINAL, ScanState
from appliance.store.results import Results
from appliance.store.scans import Scans
from tests.store.samples import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.store.database import Store
    from appliance.store.scan_rows import ScanRow
    from tests.work.conftest import Scanner


@pytest.fixture
def finished(store: Store, until: Callable[[Callable[[], bool]], None]) -> Callable[[int], list[ScanRow]]:
    """Wait until so many scans are in a terminal state, and return them by series."""

    def wait(count: int) -> list[ScanRow]:
        until(lambda: sum(store.scans.summary(last=0).counts[state] for state in TERMINAL) >= count)
        return sorted(store.scans.last(1000), key=lambda scan: (scan.series_instance_uid, scan.revision))

    return wait


def changed(settings: Settings, **sections: dict[str, Any]) -> Settings:
    tree = settings.model_dump()
    for name, values in sections.items():
        tree[name] |= values
    return Settings.model_validate(tree)


def folders(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.box.results.iterdir())


def test_a_scan_goes_from_the_spool_to_done(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    settings: Settings,
) -> None:
    scanner.send("1.1", 3)
    working()
    (scan,) = finished(1)
    assert (scan.state, scan.attempts, scan.slices) == (ScanState.DONE, 1, 3)
    assert [line.to_state for line in store.scans.history(scan.id)] == [
        ScanState.RECEIVING,
        ScanState.COMPLETE,
        ScanState.PLANNED,
        ScanState.SCREENING,
        ScanState.SCREENED,
        ScanState.DELIVERING,
        ScanState.DONE,
    ]
    result = store.results.get(scan.id)
    assert result is not None
    assert result.report["instances"] == ["1.1.1", "1.1.2", "1.1.3"]
    assert result.key_images == ("key_images/emphysema.png",)
    assert folders(settings) == [scan.folder]


def test_series_that_come_while_it_works_are_taken(
    working: Callable[..., Any], scanner: Scanner, finished: Callable[[int], list[ScanRow]]
) -> None:
    working()
    for number in range(4):
        scanner.send(f"1.{number}", 2)
    assert [scan.state for scan in finished(4)] == [ScanState.DONE] * 4


def test_a_series_is_told_of_the_study_s_others(
    working: Callable[..., Any],
    scanner: Scanner,
    finished: Callable[[int], list[ScanRow]],
    settings: Settings,
) -> None:
    for series in ("1.1", "1.2", "1.3"):
        scanner.send(series, 3, study="7.7" if series != "1.3" else "7.8")
    working()
    for scan in finished(3):
        content = json.loads((settings.box.results / scan.folder / "report.json").read_text())
        others = {"1.1": ["1.2"], "1.2": ["1.1"], "1.3": []}[scan.series_instance_uid]
        assert content["others"] == others


def test_a_late_instance_is_screened_as_revision_2(
    working: Callable[..., Any], scanner: Scanner, store: Store, finished: Callable[[int], list[ScanRow]]
) -> None:
    working()
    scanner.send("1.1", 2)
    finished(1)
    scanner.send("1.1", 1, first=3)
    first, second = finished(2)
    results = [store.results.get(scan.id) for scan in (first, second)]
    assert [result.report["scan"]["revision"] for result in results if result] == [1, 2]
    assert [len(result.report["instances"]) for result in results if result] == [2, 3]


def test_a_refused_series_ends_with_its_reason(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    settings: Settings,
) -> None:
    scanner.send("1.1", accession="REFUSE")
    working()
    (scan,) = finished(1)
    assert (scan.state, scan.reason_code, scan.attempts) == (ScanState.REFUSED, ReasonCode.LOCALIZER, 1)
    assert [event.kind for event in store.events.waiting()] == [EventKind.REFUSED]
    assert folders(settings) == []


def test_a_refused_series_that_is_corrected_and_sent_again_is_screened(
    working: Callable[..., Any], scanner: Scanner, store: Store, finished: Callable[[int], list[ScanRow]]
) -> None:
    scanner.send("1.1", accession="REFUSE")
    working()
    finished(1)
    scanner.send("1.1", accession="A1")
    first, second = finished(2)
    assert (first.state, second.state) == (ScanState.REFUSED, ScanState.DONE)
    result = store.results.get(second.id)
    assert result is not None
    assert result.report["instances"] == ["1.1.1", "1.1.2", "1.1.3"]


def test_a_refused_scan_is_screened_again_when_a_person_asks(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    until: Callable[[Callable[[], bool]], None],
) -> None:
    scanner.send("1.1", accession="REFUSE")
    working()
    (scan,) = finished(1)
    store.scans.retry(scan.id)
    until(lambda: sum(line.to_state is ScanState.REFUSED for line in store.scans.history(scan.id)) == 2)
    assert store.scans.get(scan.id).attempts == 1


def test_a_revision_whose_earlier_images_were_deleted_is_refused_and_taken_when_they_come_again(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    until: Callable[[Callable[[], bool]], None],
) -> None:
    first = scanner.send("1.1", 2)
    working()
    finished(1)
    shutil.rmtree(scanner.root / "associations" / first)
    store.associations.mark_pruned(first, at=1.0)
    scanner.send("1.1", 1, first=3)
    _, refused = finished(2)
    assert (refused.state, refused.reason_code) == (ScanState.REFUSED, ReasonCode.IMAGES_DELETED)
    assert "2 of the 3 images" in (refused.reason_text or "")
    scanner.send("1.1", 3)
    until(lambda: not any(item.pruned for item in store.instances.of_scan(refused.id)))
    store.scans.retry(refused.id)
    _, taken = finished(2)
    assert taken.state is ScanState.DONE


@pytest.mark.parametrize(
    ("behaviour", "cause", "limits"),
    [
        ("CRASH", ReasonCode.WORKER_LOST, {}),
        ("ERROR", ReasonCode.SCREENING_FAILED, {}),
        pytest.param("GROW", ReasonCode.MEMORY_LIMIT, {}, marks=pytest.mark.slow),
        pytest.param("HANG", ReasonCode.TIME_LIMIT, {"time_limit_s": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_one_poisoned_scan_is_quarantined_and_three_good_ones_go_on(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    settings: Settings,
    behaviour: str,
    cause: ReasonCode,
    limits: dict[str, Any],
) -> None:
    scanner.send("1.0", accession=behaviour)
    for number in (1, 2, 3):
        scanner.send(f"1.{number}")
    working(changed=changed(settings, work=limits))
    poison, *good = finished(4)
    assert [(scan.state, scan.attempts) for scan in good] == [(ScanState.DONE, 1)] * 3
    assert (poison.state, poison.attempts) == (ScanState.FAILED, 3)
    assert poison.reason_code is ReasonCode.ATTEMPTS_EXHAUSTED
    assert cause.value in (poison.reason_text or "")
    assert "Zhang" not in (poison.reason_text or "")
    lost = [event for event in store.events.waiting() if event.kind is EventKind.ATTEMPT_LOST]
    assert [event.reason for event in lost] == [cause] * 3
    assert [event.kind for event in store.events.waiting()][-1] is EventKind.FAILED


@pytest.mark.parametrize("stub", ["silent", "broken_report"])
def test_a_screening_that_leaves_no_good_report_is_a_lost_attempt(
    working: Callable[..., Any],
    scanner: Scanner,
    finished: Callable[[int], list[ScanRow]],
    settings: Settings,
    stub: str,
) -> None:
    scanner.send("1.1")
    working(f"tests.work.stubs:{stub}")
    (scan,) = finished(1)
    assert (scan.state, scan.reason_code) == (ScanState.FAILED, ReasonCode.ATTEMPTS_EXHAUSTED)
    assert folders(settings) == []


def test_a_scan_does_not_pay_for_a_bad_pack(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    until: Callable[[Callable[[], bool]], None],
    settings: Settings,
) -> None:
    scanner.send("1.1", accession="PACK")
    working()

    def problem() -> Any:
        return (read_heartbeat(settings.box.state_directory, "work") or {}).get("problem")

    until(lambda: problem() == "screening_unable")
    until(lambda: store.scans.last()[0].lease_owner is None)
    scan = store.scans.last()[0]
    assert (scan.state, scan.attempts) == (ScanState.COMPLETE, 0)


def test_a_child_that_cannot_start_costs_no_scan_an_attempt(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    until: Callable[[Callable[[], bool]], None],
    settings: Settings,
) -> None:
    scanner.send("1.1")
    working("tests.work.stubs:missing")
    until(
        lambda: (read_heartbeat(settings.box.state_directory, "work") or {}).get("problem") == "screener_does_not_start"
    )
    until(lambda: bool(store.scans.last()) and store.scans.last()[0].state is ScanState.COMPLETE)
    assert store.scans.last()[0].attempts == 0


def test_the_child_is_replaced_after_some_scans(
    working: Callable[..., Any], scanner: Scanner, finished: Callable[[int], list[ScanRow]], settings: Settings
) -> None:
    for number in range(5):
        scanner.send(f"1.{number}", 1)
    working(changed=changed(settings, work={"recycle_after_scans": 2}))
    assert [scan.state for scan in finished(5)] == [ScanState.DONE] * 5


def test_stopping_gives_the_scan_back_without_an_attempt(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    until: Callable[[Callable[[], bool]], None],
    settings: Settings,
) -> None:
    scanner.send("1.1", accession="HANG")
    stop = working()
    until(lambda: bool(store.scans.last()) and store.scans.last()[0].lease_owner is not None)
    heartbeat = read_heartbeat(settings.box.state_directory, "work")
    assert heartbeat is not None
    stop.set()
    until(lambda: store.scans.last()[0].lease_owner is None)
    scan = store.scans.last()[0]
    assert (scan.state, scan.attempts) == (ScanState.COMPLETE, 0)
    until(lambda: read_heartbeat(settings.box.state_directory, "work") is None)
    assert folders(settings) == []


def test_a_killed_child_is_replaced_and_the_scan_tried_again(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    until: Callable[[Callable[[], bool]], None],
    settings: Settings,
) -> None:
    scanner.send("1.1", accession="HANG")
    working()
    until(lambda: bool(store.scans.last()) and store.scans.last()[0].lease_owner is not None)
    first = read_heartbeat(settings.box.state_directory, "work")
    assert first is not None
    os.kill(first["child_pid"], signal.SIGKILL)
    until(lambda: store.scans.last()[0].attempts == 2)
    assert [event.reason for event in store.events.waiting()] == [ReasonCode.WORKER_LOST]


def test_the_heartbeat_says_what_is_at_hand(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    until: Callable[[Callable[[], bool]], None],
    settings: Settings,
) -> None:
    scanner.send("1.1", accession="HANG")
    working()
    seen: dict[str, Any] = {}

    def hanging() -> bool:
        seen.update(read_heartbeat(settings.box.state_directory, "work") or {})
        return seen.get("stage") == "reading"

    until(hanging)
    assert seen["scan"] == store.scans.last()[0].id
    assert seen["pid"] == os.getpid()
    assert psutil.pid_exists(seen["child_pid"])
    assert seen["child_resident_mib"] > 1.0
    assert set(seen) == {
        "service",
        "pid",
        "start_ticks",
        "beat_s",
        "time",
        "problem",
        "scan",
        "stage",
        "scan_seconds",
        "child_pid",
        "child_resident_mib",
        "finished",
    }


def test_with_a_destination_the_scan_waits_for_delivery(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    until: Callable[[Callable[[], bool]], None],
    settings: Settings,
) -> None:
    scanner.send("1.1")
    destination = {"name": "pacs", "ae_title": "PACS", "address": "127.0.0.1"}
    working(changed=changed(settings, deliver={"destinations": [destination]}))
    until(lambda: bool(store.scans.last()) and store.scans.last()[0].state is ScanState.DELIVERING)
    scan = store.scans.last()[0]
    (entry,) = store.outbox.due("pacs")
    assert (entry.destination, entry.scan_id, entry.payload["folder"]) == ("pacs", scan.id, scan.folder)


def test_a_second_service_on_the_same_state_is_refused(
    working: Callable[..., Any],
    settings: Settings,
    until: Callable[[Callable[[], bool]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working()
    until(lambda: read_heartbeat(settings.box.state_directory, "work") is not None)
    monkeypatch.setattr(work, "_PREDECESSOR_ENDS_WITHIN_S", 0.1)
    with pytest.raises(ApplianceError, match="another work service already runs"):
        work.run(settings, threading.Event())


def _lose_database(settings: Settings) -> None:
    for suffix in ("", "-wal", "-shm"):
        settings.box.database.with_name(f"appliance.db{suffix}").unlink(missing_ok=True)


def test_after_the_database_is_lost_nothing_is_done_twice(
    settings: Settings, scanner: Scanner, until: Callable[[Callable[[], bool]], None], working: Callable[..., Any]
) -> None:
    for number in range(3):
        scanner.send(f"1.{number}", 2)
    scanner.send("1.7", accession="REFUSE")
    stop = working()
    settings.box.database.parent.mkdir(exist_ok=True)

    def ended(count: int) -> bool:
        if not settings.box.database.exists():
            return False
        with open_database(settings.box.database) as store:
            return sum(store.scans.summary().counts[state] for state in TERMINAL) >= count

    def marked(count: int) -> bool:
        return len(list(settings.box.results.glob("*/finished.json"))) == count

    until(lambda: ended(4) and marked(3))
    stop.set()
    until(lambda: read_heartbeat(settings.box.state_directory, "work") is None)
    before = {path: path.stat().st_mtime_ns for path in settings.box.results.glob("*/report.json")}
    with open_database(settings.box.database) as store:
        known = {scan.series_instance_uid: scan.id for scan in store.scans.last() if scan.state is ScanState.DONE}
    _lose_database(settings)
    scanner.send("1.8", 2)
    working()
    until(lambda: ended(5) and marked(4))
    with open_database(settings.box.database) as store:
        scans = {scan.series_instance_uid: scan for scan in store.scans.last()}
        assert sorted(scans) == ["1.0", "1.1", "1.2", "1.7", "1.8"]
        assert {uid: scans[uid].id for uid in known} == known
        assert scans["1.7"].state is ScanState.REFUSED
        assert scans["1.8"].state is ScanState.DONE
    after = {path: path.stat().st_mtime_ns for path in settings.box.results.glob("*/report.json")}
    assert before.items() <= after.items()
    assert len(after) == 4


def test_a_damaged_database_is_rebuilt_from_what_lies_on_disk(
    settings: Settings, scanner: Scanner, until: Callable[[Callable[[], bool]], None], working: Callable[..., Any]
) -> None:
    scanner.send("1.1", 2)
    stop = working()
    until(lambda: bool(list(settings.box.results.glob("*/finished.json"))))
    stop.set()
    # Whoever closes a database last writes its log back into it, over any damage done before.
    until(lambda: not any(thread.name == "work" for thread in threading.enumerate()))
    settings.box.database.write_bytes(b"\xff" * 40960)
    working()
    until(lambda: bool(list(settings.box.state_directory.glob("appliance.db.corrupt-*"))))
    until(lambda: read_heartbeat(settings.box.state_directory, "work") is not None)
    with open_database(settings.box.database) as store:
        (scan,) = store.scans.last()
        assert (scan.state, scan.series_instance_uid) == (ScanState.DONE, "1.1")
        assert [event.kind for event in store.events.waiting()] == [EventKind.DATABASE_RECOVERED]


def test_a_result_that_was_renamed_but_not_committed_is_taken_up(
    settings: Settings,
    scanner: Scanner,
    finished: Callable[[int], list[ScanRow]],
    working: Callable[..., Any],
    store: Store,
) -> None:
    scanner.send("1.1", 2)
    stop = working()
    (scan,) = finished(1)
    stop.set()
    with store.atomic():  # as a kill between the last rename and the commit leaves it
        for table in ("measurements", "findings", "screenings", "key_images", "results"):
            store.execute(f"DELETE FROM {table}")
        store.execute("UPDATE scans SET state = 'complete', finished_at = NULL, attempts = 1")
    report = settings.box.results / scan.folder / "report.json"
    content = json.loads(report.read_text())
    content["scan"]["slices"] = 99
    report.write_text(json.dumps(content))
    working()
    (again,) = finished(1)
    assert (again.state, again.slices, again.attempts) == (ScanState.DONE, 99, 2)


def test_a_whole_report_of_the_last_attempt_counts_although_its_worker_was_killed(
    settings: Settings,
    scanner: Scanner,
    finished: Callable[[int], list[ScanRow]],
    working: Callable[..., Any],
    store: Store,
) -> None:
    scanner.send("1.1", 2)
    stop = working()
    (scan,) = finished(1)
    stop.set()
    dead = Owner("another boot", 1, 1)
    with store.atomic():  # as a kill between the last rename and the commit leaves it
        for table in ("measurements", "findings", "screenings", "key_images", "results"):
            store.execute(f"DELETE FROM {table}")
        store.execute(
            """
            UPDATE scans SET state = 'screening', finished_at = NULL, attempts = 3, lease_owner = ?, lease_deadline = 1
            """,
            (str(dead),),
        )
    working()
    (again,) = finished(1)
    assert (again.state, again.attempts) == (ScanState.DONE, 3)
    assert store.results.get(scan.id) is not None


def test_a_child_that_ends_at_once_delays_the_work_and_ends_nothing(
    working: Callable[..., Any],
    scanner: Scanner,
    finished: Callable[[int], list[ScanRow]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = _fail_once(monkeypatch, ScreenerProcess, "_send", ScreenerLostError("The screening process has ended."))
    scanner.send("1.1", 2)
    working()
    (scan,) = finished(1)
    assert len(calls) >= 2
    assert (scan.state, scan.attempts) == (ScanState.DONE, 1)


def test_leftovers_of_a_killed_predecessor_are_swept(
    settings: Settings, working: Callable[..., Any], until: Callable[[Callable[[], bool]], None]
) -> None:
    leftover = settings.box.results / ".part-1-r1-abcd"
    leftover.mkdir(parents=True)
    (leftover / "report.json").write_text("half")
    working()
    until(lambda: not leftover.exists())


def test_images_that_vanished_fail_the_scan_and_not_the_service(
    settings: Settings,
    scanner: Scanner,
    finished: Callable[[int], list[ScanRow]],
    working: Callable[..., Any],
    store: Store,
) -> None:
    name = scanner.send("1.1", 2, accession="HANG")
    scanner.send("1.2", 2)
    stop = working(changed=changed(settings, work={"time_limit_s": 1.0}))
    finished(1)
    shutil.rmtree(settings.box.spool / "associations" / name)
    first, second = finished(2)
    assert (first.state, second.state) == (ScanState.FAILED, ScanState.DONE)
    assert not stop.is_set()


def _fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: Exception) -> list[str]:
    """Make something raise the first time that it is called, and count the calls."""
    real = getattr(owner, name)
    calls: list[str] = []

    def fail(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            raise error
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, fail)
    return calls


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (rebuild, "write_identity", OSError(errno.ENOSPC, "No space left on device")),
        (Results, "save", StoreError("the disk is full")),
        (attempts, "sync", OSError(errno.ENOSPC, "No space left on device")),
        (Scans, "hand_over", StoreError("the disk is full")),
        (Scans, "advance", StoreError("another process kept the write lock")),
        (Leases, "claim", StoreError("another process kept the write lock")),
        (Assembler, "complete", StoreError("the disk is full")),
        (Attempts, "begin", OSError(errno.ENOSPC, "No space left on device")),
        (Instances, "of_scan", StoreError("another process kept the write lock")),
    ],
)
def test_a_full_disk_delays_a_scan_but_costs_it_nothing(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    error: Exception,
) -> None:
    calls = _fail_once(monkeypatch, owner, name, error)
    scanner.send("1.1", 2)
    working()
    (scan,) = finished(1)
    assert len(calls) >= 2
    assert (scan.state, scan.attempts) == (ScanState.DONE, 1)
    assert len(measured(store, "laa950_percent")) == 1
    assert store.events.waiting() == []


@pytest.fixture
def small_results(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Mount a real file system of 2 MiB for the results; gives what changes its size."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = settings.box.results
    folder.mkdir(parents=True)

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=True)

    try:
        mount("size=2m")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine does not let root mount a tmpfs: {error.stderr!r}")
    yield lambda size: mount(f"remount,size={size}")
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_objects_for_which_there_is_no_room_are_made_once_there_is(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    until: Callable[[Callable[[], bool]], None],
    finished: Callable[[int], list[ScanRow]],
    settings: Settings,
    small_results: Callable[[str], None],
) -> None:
    scanner.send("1.1", 2)
    working("tests.work.stubs:large_objects")
    until(lambda: (read_heartbeat(settings.box.state_directory, "work") or {}).get("problem") == "screening_unable")
    assert store.results.get(store.scans.last()[0].id) is None
    small_results("64m")
    (scan,) = finished(1)
    assert (scan.state, scan.attempts) == (ScanState.DONE, 1)
    objects = settings.box.results / scan.folder / "objects"
    assert [path.stat().st_size for path in objects.iterdir()] == [3 << 20]
    assert len(folders(settings)) == 1


def test_objects_that_cannot_be_made_are_told_on_the_box_and_to_the_fleet(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    settings: Settings,
) -> None:
    scanner.send("1.1", 2)
    working("tests.work.stubs:defective_objects")
    (scan,) = finished(1)
    assert [(event.kind, event.scan_id) for event in store.events.waiting()] == [(EventKind.OBJECTS_MISSING, scan.id)]
    (sentence,) = _delivery_sentences(store, scan)
    assert "kind seg could be made (ValueError at segmentation.py:7)" in sentence
    assert _last_scans(settings)[0]["missing_objects"] == ["seg"]


def test_a_new_revision_is_told_of_the_results_of_the_one_before(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    settings: Settings,
) -> None:
    scanner.send("1.1", 2)
    working()
    (first,) = finished(1)
    scanner.send("1.1", 1, first=3)
    reports = [store.results.get(scan.id) for scan in sorted(finished(2), key=lambda scan: scan.revision)]
    assert [item.report["predecessor"] for item in reports if item is not None] == [None, first.folder]


def test_a_scan_that_another_worker_took_is_let_go(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    until: Callable[[Callable[[], bool]], None],
    settings: Settings,
) -> None:
    scanner.send("1.1", accession="HANG")
    working(changed=changed(settings, work={"lease_s": 1.0}))

    def at_hand() -> Any:
        return (read_heartbeat(settings.box.state_directory, "work") or {"scan": "no heartbeat"}).get("scan")

    until(lambda: bool(store.scans.last()) and at_hand() == store.scans.last()[0].id)
    me = Owner.current()
    with store.atomic():
        store.execute("UPDATE scans SET lease_owner = ?, lease_deadline = 1e12", (str(me).replace("/", "x/", 1),))
    until(lambda: at_hand() is None)
    assert store.results.get(store.scans.last()[0].id) is None
    assert folders(settings) == []


def test_a_scan_that_somebody_else_moved_on_is_let_go(
    working: Callable[..., Any],
    scanner: Scanner,
    store: Store,
    finished: Callable[[int], list[ScanRow]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason = Reason(ReasonCode.ATTEMPTS_EXHAUSTED, "Moved on by the test.")
    real = Scans.advance

    def move_on(scans: Scans, scan_id: int, *arguments: Any, **named: Any) -> None:
        if store_of(scans).scans.get(scan_id).series_instance_uid == "1.1":
            scans.move(scan_id, ScanState.FAILED, cause="test", reason=reason)
        real(scans, scan_id, *arguments, **named)

    monkeypatch.setattr(Scans, "advance", move_on)
    scanner.send("1.1")
    scanner.send("1.2")
    working()
    first, second = finished(2)
    assert (first.state, second.state) == (ScanState.FAILED, ScanState.DONE)


def store_of(scans: Scans) -> Store:
    return scans._store
