"""The small parts: waits, what a status means, which kind an object is, and what people are shown."""

from __future__ import annotations

import dataclasses
import time

import pytest

from appliance.commands.results import show
from appliance.commands.status import _deliveries, _delivery_words
from appliance.config import Settings
from appliance.delivery.backoff import Backoff
from appliance.delivery.node import PacsNode
from appliance.delivery.objects import Kind, kind_of
from appliance.delivery.verdict import Verdict, verdict_of_status
from appliance.foreign_text import one_line

NODE = PacsNode("pacs", "PACS", "10.1.2.4", 104, "BOX")


def test_waits_double_up_to_a_bound_and_differ():
    backoff = Backoff(15.0, 900.0)
    for failures, most in ((1, 15.0), (2, 30.0), (4, 120.0), (7, 900.0), (10_000, 900.0)):
        waits = {backoff.wait_s(failures) for _ in range(50)}
        assert all(most / 2 <= wait <= most for wait in waits)
        assert len(waits) > 1


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0xA700, Verdict.AGAIN), (0xA7FF, Verdict.AGAIN), (0x0110, Verdict.AGAIN), (0x0213, Verdict.AGAIN),
        (0xA900, Verdict.PERSON), (0x0122, Verdict.PERSON), (0x0124, Verdict.PERSON), (0x0117, Verdict.PERSON),
        (0xC000, Verdict.DOUBTFUL), (0xC211, Verdict.DOUBTFUL), (0x1234, Verdict.DOUBTFUL),
    ],
)  # fmt: skip
def test_what_a_failure_means(status, verdict):
    assert verdict_of_status(status) is verdict


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.34", Kind.SR),
        ("1.2.840.10008.5.1.4.1.1.66.4", Kind.SEG),
        ("1.2.840.10008.5.1.4.1.1.7", Kind.CAPTURE),
        ("1.2.840.10008.5.1.4.1.1.7.4", Kind.CAPTURE),
        ("1.2.840.10008.5.1.4.1.1.77.1.1", None),
        ("1.2.840.10008.5.1.4.1.1.104.1", Kind.PDF),
        ("1.2.840.10008.5.1.4.1.1.88.59", Kind.KO),
        ("1.2.840.10008.5.1.4.1.1.104.2", None),
    ],
)
def test_the_kind_of_an_object(sop_class, kind):
    assert kind_of(sop_class) is kind


@pytest.mark.parametrize(
    "change", [{"ae_title": "X"}, {"port": 11112}, {"calling_ae": "OTHER"}, {"kinds": frozenset({Kind.SR})}]
)
def test_every_setting_that_can_mend_a_destination_changes_its_digest(change):
    assert dataclasses.replace(NODE, **change).digest() != NODE.digest()


def test_foreign_text_is_one_printable_line_of_bounded_length():
    assert one_line("  \x1b[31mfull\r\n disk\t\x00! ") == "[31mfull disk !"
    assert one_line("磁盘\u202e已满\ue000") == "磁盘已满"
    assert one_line("x" * 10_000_000) == "x" * 159 + "…"


@pytest.fixture
def settings(tmp_path):
    return Settings.model_validate({"box": {"state_directory": tmp_path / "state"}})


def test_status_tells_how_each_destination_stands(screen, store, settings):
    waiting, parked = (store.outbox.of_scan(screen()[0])[0].key for _ in range(2))
    store.outbox.failed(waiting, retry_at=time.time() + 100, reason="It cannot be reached.")
    (row,) = _deliveries(settings)
    assert _delivery_words(row) == "delivery to pacs: 2 waiting: It cannot be reached."
    store.outbox.park(parked, "Add AE title BOX to the PACS.")
    (row,) = _deliveries(settings)
    assert _delivery_words(row).startswith("delivery to pacs: 1 waiting, next try in ")
    assert _delivery_words(row).endswith(" s, 1 parked: Add AE title BOX to the PACS.")


def test_results_tell_how_a_scan_s_delivery_stands(screen, store, settings, capsys):
    scan_id, _ = screen()
    (entry,) = store.outbox.of_scan(scan_id)
    store.outbox.failed(entry.key, retry_at=2e9, reason="It cannot be reached.")
    assert show(settings, str(scan_id), as_json=False) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Delivery to pacs: waiting after 1 tries, next try at 2033-05-1" in told
    assert "It cannot be reached." in told
