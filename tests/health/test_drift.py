"""Drift: what is counted, which days, and that nobody can be told from it."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from appliance.config import Settings
from appliance.health import drift
from appliance.health.drift_bins import INPUT_EDGES, MEASUREMENT_EDGES, InputName, count
from appliance.health.drift_model import Drift, Histogram, Manufacturer
from appliance.health.schemas import render
from appliance.reasons import Reason, ReasonCode
from appliance.store.database import open_database
from appliance.store.drift import REPORTS_KEPT, StoredDrift
from appliance.store.instances import InstanceIdentity, SpooledInstance
from appliance.store.lifecycle import ScanState
from tests.store.samples import report

DOCS = Path(__file__).parents[2] / "docs"
DAY_S = 86400.0
# Noon in Shanghai on a Wednesday.
NOON = datetime(2026, 3, 4, 4, 0, tzinfo=UTC).timestamp()
PEERS = Settings.model_validate(
    {"receive": {"peers": [
        {"name": "ct-1", "ae_title": "CT1", "address": "10.0.0.1"},
        {"ae_title": "CT2", "address": "10.0.0.2"},
    ]}}
).receive.peers  # fmt: skip


@pytest.fixture(autouse=True)
def in_shanghai(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Box:
    def __init__(self, folder) -> None:
        self.folder = folder
        self.store = open_database(folder / "appliance.db")
        self.number = 0

    def scan(self, at: float, *, caller: str = "CT1", model: str = "SOMATOM go.Up", study: str = "", **scan) -> int:
        self.number += 1
        association = f"a{self.number}"
        self.store.associations.see(association, at=at, calling_ae_title=caller)
        identity = InstanceIdentity(
            sop_instance_uid=f"1.{self.number}", sop_class_uid="1", series_instance_uid=f"1.2.{self.number}",
            study_instance_uid=study or f"1.3.{self.number}", accession_number="", modality="CT",
        )  # fmt: skip
        item = SpooledInstance("000001.dcm", identity, None, 11, "sha256:0", at)
        (scan_id,) = self.store.instances.add(association, [item])
        self.store.scans.advance(scan_id, ScanState.SCREENING, cause="test", at=at)
        told = {"slices": 3, "revision": 1, "manufacturer": "SIEMENS", "model": model, "kvp": 120.0, "age_decade": 60,
                "noise_hu": 12.0, "air_hu": -1000.0, "slice_thickness_mm": 1.0, "kernel_family": "soft",
                "contrast": "none"} | scan  # fmt: skip
        self.store.results.save(scan_id, report(scan=told), folder=f"{scan_id}-r1", at=at)
        self.store.scans.advance(scan_id, ScanState.DONE, cause="test", at=at)
        return scan_id

    def scans(self, number: int, at: float, **facts) -> None:
        for _ in range(number):
            self.scan(at, **facts)

    def make(self, now: float) -> Drift | None:
        return drift.make_due(self.store, PEERS, self.folder / "key", now=now)


@pytest.fixture
def box(tmp_path):
    box = Box(tmp_path)
    yield box
    box.store.close()


def test_a_day_is_told_once_it_is_over(box):
    box.scans(12, NOON)
    assert box.make(NOON + 60) is None
    made = box.make(NOON + DAY_S)
    assert (made.first_day, made.last_day) == ("2026-03-04", "2026-03-04")
    assert box.make(NOON + DAY_S + 60) is None


def test_the_day_is_the_box_s_own(box):
    just_before_midnight = datetime(2026, 3, 4, 15, 59, tzinfo=UTC).timestamp()
    box.scans(10, just_before_midnight)
    box.scans(11, just_before_midnight + 120)
    made = box.make(just_before_midnight + 180)
    assert (made.last_day, made.groups[0].scans) == ("2026-03-04", 10)
    assert box.make(just_before_midnight + DAY_S + 180).groups[0].scans == 11


def test_what_is_counted(box):
    box.scans(12, NOON)
    (group,) = box.make(NOON + DAY_S).groups
    assert (group.scanner, group.manufacturer, group.studies, group.scans) == ("ct-1", Manufacturer.SIEMENS, 12, 12)
    assert group.screenings["emphysema"].status == {"finding": 12}
    assert group.kernel_family == {"soft": 12}
    assert group.inputs[InputName.KVP].counts == count([120.0] * 12, INPUT_EDGES[InputName.KVP])
    assert sum(group.measurements["laa950_percent"].counts) == 12


def test_a_screening_that_this_release_does_not_know_is_not_named(box):
    box.scans(12, NOON)  # their reports hold a screening called "other"
    (group,) = box.make(NOON + DAY_S).groups
    assert set(group.screenings) == {"emphysema"}


def test_the_message_is_valid_by_the_shipped_schema(box):
    box.scans(12, NOON)
    jsonschema.validate(json.loads(box.make(NOON + DAY_S).to_payload()), json.loads(render("drift")))


def test_refusals_are_counted_by_reason(box):
    box.scans(12, NOON)
    refused = box.store.scans.create(
        study_instance_uid="1.9", series_instance_uid="1.9.1", accession_number="", modality="CT", revision=1,
        instances=0, at=NOON,
    )  # fmt: skip
    box.store.scans.advance(refused, ScanState.COMPLETE, cause="test", at=NOON)
    reason = Reason(ReasonCode.LOCALIZER, "A localizer is not a volume.")
    box.store.scans.move(refused, ScanState.REFUSED, cause="test", reason=reason, at=NOON)
    series = {(item.state, item.reason): item.count for item in box.make(NOON + DAY_S).series}
    assert series == {(ScanState.DONE, None): 12, (ScanState.REFUSED, ReasonCode.LOCALIZER): 1}


# --- that nobody can be told from it ---------------------------------------------------------------------------


def test_few_studies_wait_for_the_next_days(box):
    box.scans(6, NOON)
    assert box.make(NOON + DAY_S) is None
    box.scans(4, NOON + DAY_S)
    made = box.make(NOON + 2 * DAY_S)
    assert (made.first_day, made.last_day, made.groups[0].studies) == ("2026-03-04", "2026-03-05", 10)


def test_many_series_of_one_study_hide_nobody(box):
    box.scans(20, NOON, study="1.3.777")
    assert box.make(NOON + DAY_S) is None


def test_days_with_too_few_studies_are_given_up_after_four_weeks(box):
    box.scans(3, NOON)
    box.scans(10, NOON + 40 * DAY_S)
    made = box.make(NOON + 41 * DAY_S)
    assert (made.first_day, made.groups[0].studies) == ("2026-03-17", 10)


def test_small_groups_are_taken_together(box):
    box.scans(12, NOON, caller="CT1")
    box.scans(6, NOON, caller="CT2")
    box.scans(6, NOON, caller="SOMEBODY")
    groups = {group.scanner: group.studies for group in box.make(NOON + DAY_S).groups}
    assert groups == {"ct-1": 12, "other": 12}


def test_what_is_still_too_small_is_left_out_and_said_so(box):
    box.scans(12, NOON, caller="CT1")
    box.scans(1, NOON, caller="CT2")
    made = box.make(NOON + DAY_S)
    assert [group.scanner for group in made.groups] == ["ct-1"]
    assert made.left_out


def test_a_histogram_of_few_values_is_not_made(box):
    box.scans(12, NOON, noise_hu=None)
    box.scans(9, NOON, noise_hu=11.0)
    (group,) = box.make(NOON + DAY_S).groups
    assert InputName.NOISE_HU not in group.inputs
    assert InputName.KVP in group.inputs


def test_a_histogram_of_one_study_s_series_is_not_made(box):
    box.scans(12, NOON, noise_hu=None)
    box.scans(20, NOON, noise_hu=11.0, study="1.3.777")
    (group,) = box.make(NOON + DAY_S).groups
    assert InputName.NOISE_HU not in group.inputs


def test_no_text_of_a_header_is_in_the_message(box):
    for number in range(24):
        box.scan(NOON, caller="CT1", model="CANARY one" if number < 12 else "CANARY two", manufacturer="CANARY Inc.")
    made = box.make(NOON + DAY_S)
    models = {group.model for group in made.groups}
    assert len(models) == 2
    assert all(re.fullmatch(r"m-[0-9a-f]{8}", model) for model in models)
    assert {group.manufacturer for group in made.groups} == {Manufacturer.OTHER}
    text = made.model_dump_json()
    assert "CANARY" not in text
    assert "CT1" not in text


def test_a_pseudonym_stays_and_means_nothing_elsewhere(tmp_path):
    key = drift._key(tmp_path / "health" / "key")
    assert drift._key(tmp_path / "health" / "key") == key
    assert (tmp_path / "health" / "key").stat().st_mode & 0o077 == 0
    here = drift.pseudonym(key, "SIEMENS", "go.Up")
    assert here == drift.pseudonym(key, "SIEMENS ", " go.Up")
    assert here != drift.pseudonym(drift._key(tmp_path / "other-key"), "SIEMENS", "go.Up")


def test_no_more_groups_than_the_bound(box):
    for number in range(20):
        box.scans(10, NOON, model=f"model {number}")
    made = box.make(NOON + DAY_S)
    assert len(made.groups) == drift.MOST_GROUPS
    assert sum(group.scans for group in made.groups) == 200


# --- the clock, the bins, the rows -------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_tells_no_day_twice(box):
    box.scans(12, NOON)
    assert box.make(NOON + DAY_S) is not None
    box.scans(12, NOON)
    assert box.make(NOON - DAY_S) is None
    assert box.make(NOON + DAY_S) is None


def test_the_database_keeps_no_more_than_the_newest_messages(box):
    for number in range(REPORTS_KEPT + 10):
        day = datetime.fromtimestamp(NOON + number * DAY_S, UTC).date().isoformat()
        box.store.drift.save(StoredDrift(day, day, "{}"))
    rows = box.store.rows("SELECT count(*) AS number, max(last_day) AS newest FROM drift_reports")[0]
    assert rows == {"number": REPORTS_KEPT, "newest": box.store.drift.latest().last_day}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "unknown"), ("SIEMENS", "siemens"), ("Siemens Healthineers", "siemens"), ("GE MEDICAL SYSTEMS", "ge"),
     ("GE", "ge"), ("TOSHIBA", "canon"), ("UIH", "united_imaging"), ("Zhang^San", "other"),
     ("HITACHI Medical", "fujifilm")],
)  # fmt: skip
def test_a_manufacturer_is_one_of_a_closed_list(text, expected):
    assert drift.manufacturer_of(text) == expected


def test_a_value_on_an_edge_belongs_above_it():
    assert count([0.5, 1.0, 1.5, 2.0, 9.0], (1.0, 2.0)) == (1, 2, 2)


def test_edges_ascend():
    for edges in (*INPUT_EDGES.values(), *MEASUREMENT_EDGES.values()):
        assert list(edges) == sorted(set(edges))


def test_every_measurement_of_the_manual_has_bins():
    section = (DOCS / "interfaces.md").read_text().partition("## Measurement names")[2].partition("\n## ")[0]
    names = set(re.findall(r"^\| `([a-z0-9_]+)` \|", section, flags=re.MULTILINE))
    assert names == set(MEASUREMENT_EDGES), "give every measurement its edges in appliance/health/drift_bins.py"


def test_a_histogram_has_one_more_count_than_edges():
    with pytest.raises(ValueError, match="one more count"):
        Histogram(edges=(1.0,), counts=(1,))
