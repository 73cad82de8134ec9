"""A report in rows, once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from appliance.errors import StoreError
from appliance.store.lifecycle import ScanState
from tests.store.samples import measured, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store


def test_a_report_comes_back_as_it_was(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENING)
    assert store.results.save(scan_id, report(), folder="1-r1", key_images=["key_images/emphysema.png"], at=5.0)
    result = store.results.get(scan_id)
    assert result is not None
    assert result.report == report()
    assert (result.folder, result.key_images, result.saved_at) == ("1-r1", ("key_images/emphysema.png",), 5.0)


def test_saving_makes_the_scan_screened_and_releases_it(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.PLANNED)
    store.results.save(scan_id, report(), folder="x")
    scan = store.scans.get(scan_id)
    assert (scan.state, scan.slices, scan.lease_owner) == (ScanState.SCREENED, 3, None)


def test_saving_again_changes_nothing(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENING)
    store.results.save(scan_id, report(), folder="x")
    before = store.scans.history(scan_id)
    assert not store.results.save(scan_id, report(appliance={}), folder="y")
    assert store.scans.history(scan_id) == before
    assert measured(store, "laa950_percent") == [(scan_id, None, 12.0)]


def test_rows_can_be_asked(store: Store, add_scan: Callable[..., int]) -> None:
    store.results.save(add_scan(ScanState.SCREENING), report(), folder="x")
    statuses = store.rows("SELECT name, status FROM screenings ORDER BY position")
    assert [(row["name"], row["status"]) for row in statuses] == [("emphysema", "finding"), ("other", "not_run")]
    (finding,) = store.rows("SELECT code, site FROM findings")
    assert finding == {"code": "SCT:87433001", "site": "lung"}
    (reason,) = store.rows("SELECT reason_code FROM screenings WHERE name = 'other'")
    assert reason == {"reason_code": "slice_too_thick"}


def test_a_report_that_lacks_something_stores_nothing(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENING)
    broken = report(screenings=[*report()["screenings"], {"status": "normal"}])
    with pytest.raises(StoreError, match="cannot be stored"):
        store.results.save(scan_id, broken, folder="x")
    assert store.results.get(scan_id) is None
    assert store.rows("SELECT 1 FROM screenings") == []
    assert store.scans.get(scan_id).state is ScanState.SCREENING


def test_a_number_that_is_none_is_not_stored(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENING)
    with pytest.raises(StoreError):
        store.results.save(scan_id, report(timings={"total_s": math.nan}), folder="x")


def test_a_scan_that_is_not_being_screened_takes_no_result(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.DONE)
    with pytest.raises(StoreError, match="cannot become screened"):
        store.results.save(scan_id, report(), folder="x")
    assert store.results.get(scan_id) is None
