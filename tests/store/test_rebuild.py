"""The results folders after the database was lost."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from appliance.store import rebuild
from appliance.store.alert_rules import AlertRules
from appliance.store.database import open_database
from appliance.store.leases import Owner
from appliance.store.lifecycle import ScanState
from appliance.store.rebuild import Restored
from tests.store.conftest import spooled
from tests.store.samples import report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.store.database import Store


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def _finish(store: Store, results: Path, scan_id: int, *, marked: bool = True) -> Path:
    """What the work service leaves on disk for a scan."""
    scan = store.scans.get(scan_id)
    folder = results / scan.folder
    (folder / "key_images").mkdir(parents=True)
    (folder / "key_images" / "emphysema.png").write_bytes(b"png")
    (folder / "report.json").write_text(json.dumps(report()))
    rebuild.write_identity(folder, scan, store.instances.of_scan(scan_id))
    store.results.save(scan_id, report(), folder=scan.folder, key_images=rebuild.key_images(folder))
    if marked:
        rebuild.mark_finished(folder, 3000.0)
    return folder


def test_a_finished_scan_comes_back_finished(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    scan_id = add_scan()
    _finish(store, results, scan_id)
    with open_database(tmp_path / "fresh.db") as fresh:
        assert rebuild.restore(fresh, results) == Restored(finished=1)
        scan = fresh.scans.get(scan_id)
        assert (scan.state, scan.finished_at, scan.slices) == (ScanState.DONE, 3000.0, 3)
        assert fresh.instances.of_scan(scan_id) == store.instances.of_scan(scan_id)
        result = fresh.results.get(scan_id)
        assert result is not None
        assert (result.report, result.key_images) == (report(), ("key_images/emphysema.png",))


def test_a_scan_that_was_not_delivered_comes_back_screened(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    scan_id = add_scan()
    _finish(store, results, scan_id, marked=False)
    with open_database(tmp_path / "fresh.db") as fresh:
        assert rebuild.restore(fresh, results) == Restored(unfinished=1)
        assert fresh.scans.get(scan_id).state is ScanState.SCREENED


def test_revisions_share_their_instances_again(store: Store, results: Path, tmp_path: Path) -> None:
    ids = []
    for number in (1, 2):
        store.associations.see(f"a{number}", at=0.0)
        (scan_id,) = store.instances.add(f"a{number}", [spooled(number)])
        store.scans.move(scan_id, ScanState.COMPLETE, cause="released+quiet")
        _finish(store, results, scan_id)
        ids.append(scan_id)
    with open_database(tmp_path / "fresh.db") as fresh:
        assert rebuild.restore(fresh, results) == Restored(finished=2)
        for scan_id in ids:
            assert fresh.instances.of_scan(scan_id) == store.instances.of_scan(scan_id)


def test_what_is_indexed_again_after_a_restore_is_known(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    scan_id = add_scan()
    _finish(store, results, scan_id)
    (used,) = store.instances.of_scan(scan_id)
    scan = store.scans.get(scan_id)
    with open_database(tmp_path / "fresh.db") as fresh:
        rebuild.restore(fresh, results)
        assert fresh.instances.add(used.association, [spooled(1, series=scan.series_instance_uid)]) == []
        assert len(fresh.scans.last()) == 1


def test_new_scans_get_new_ids_after_a_restore(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    scan_id = [add_scan() for _ in range(5)][-1]
    _finish(store, results, scan_id)
    with open_database(tmp_path / "fresh.db") as fresh:
        rebuild.restore(fresh, results)
        fresh.associations.see("new", at=0.0)
        assert fresh.instances.add("new", [spooled(1, series="1.7")]) == [scan_id + 1]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", ""])
def test_a_folder_that_says_too_little_is_left_out(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int], damage: str
) -> None:
    folder = _finish(store, results, add_scan())
    good = add_scan()
    _finish(store, results, good)
    (folder / "scan.json").write_text(damage)
    (results / ".part-9").mkdir()
    with open_database(tmp_path / "fresh.db") as fresh:
        assert rebuild.restore(fresh, results) == Restored(finished=1, unreadable=1)
        assert [scan.id for scan in fresh.scans.last()] == [good]


def test_a_copied_folder_is_not_a_second_scan(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    folder = _finish(store, results, add_scan())
    folder.rename(results / "99-r1")
    with open_database(tmp_path / "fresh.db") as fresh:
        assert rebuild.restore(fresh, results) == Restored(unreadable=1)


def test_what_the_database_knows_is_left_alone(store: Store, results: Path, add_scan: Callable[..., int]) -> None:
    folder = _finish(store, results, add_scan())
    (folder / "scan.json").write_text("{")
    before = store.scans.last()
    assert rebuild.restore(store, results) == Restored()
    assert store.scans.last() == before


def test_a_restore_that_was_killed_goes_on(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    for _ in range(4):
        _finish(store, results, add_scan())
    left = iter([None, None])
    with open_database(tmp_path / "fresh.db") as fresh:
        with pytest.raises(StopIteration):
            rebuild.restore(fresh, results, on_folder=lambda: next(left))
        assert rebuild.restore(fresh, results) == Restored(finished=2)
        assert len(fresh.scans.last()) == 4


def test_a_series_that_was_taken_again_meanwhile_keeps_its_new_scan(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    for _ in range(4):
        add_scan()
    _finish(store, results, add_scan(series="1.4", study="1.0"))
    with open_database(tmp_path / "fresh.db") as fresh:
        fresh.associations.see("b", at=0.0)
        for number in (1, 2):
            fresh.instances.add("b", [spooled(number, series=f"1.{2 + number}", study="1.0")])
        assert rebuild.restore(fresh, results) == Restored(unreadable=1)
        assert len(fresh.scans.last()) == 2


def test_a_folder_belongs_to_one_revision_with_its_instances(
    store: Store, results: Path, add_scan: Callable[..., int]
) -> None:
    scan_id, other = add_scan(), add_scan()
    folder = _finish(store, results, scan_id)
    assert rebuild.belongs_to(folder, store.scans.get(scan_id))
    assert not rebuild.belongs_to(folder, store.scans.get(other))
    (folder / "report.json").unlink()
    assert not rebuild.belongs_to(folder, store.scans.get(scan_id))


def test_without_a_results_folder_nothing_is_restored(store: Store, tmp_path: Path) -> None:
    assert rebuild.restore(store, tmp_path / "missing") == Restored()


ANY = AlertRules("routine")


def test_alerts_of_the_last_day_are_raised_again_and_older_ones_are_not(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    folders = {add_scan(): age_s for age_s in (3600.0, 3 * 86400.0)}
    for scan_id, age_s in folders.items():
        saved_at = 1_800_000_000.0 - age_s
        os.utime(_finish(store, results, scan_id) / "report.json", (saved_at, saved_at))
    with open_database(tmp_path / "fresh.db") as fresh:
        rebuild.restore(fresh, results, alerts=ANY, now=1_800_000_000.0)
        (alert,) = fresh.alerts.recent()
        assert (alert.scan_id, alert.raised_at) == (min(folders), 1_800_000_000.0 - 3600.0)


def test_a_result_that_a_killed_worker_left_raises_its_alert(
    store: Store, results: Path, tmp_path: Path, add_scan: Callable[..., int]
) -> None:
    scan_id = add_scan()
    folder = results / store.scans.get(scan_id).folder
    store.leases.claim(Owner.current(), seconds=60.0)
    scan = store.scans.get(scan_id)
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report()))
    rebuild.write_identity(folder, scan, store.instances.of_scan(scan_id))
    assert rebuild.take_up(store, results, alerts=ANY) == [scan_id]
    assert [alert.scan_id for alert in store.alerts.recent()] == [scan_id]
