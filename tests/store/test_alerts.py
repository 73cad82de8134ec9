"""An alert is stored with its result, once, and told to every channel through the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from appliance.errors import StoreError
from appliance.store.alert_rules import AlertChannel, AlertRules, ChannelKind
from appliance.store.alerts import AlertState
from appliance.store.announcements import AlertStep, CommandOutcome, CommandRun
from appliance.store.lifecycle import ScanState
from tests.store.conftest import spooled
from tests.store.samples import report

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store

EVERYBODY = (
    AlertChannel(ChannelKind.MQTT),
    AlertChannel(ChannelKind.COMMAND),
    AlertChannel(ChannelKind.HL7, "ris"),
)
URGENT = [("aorta", "urgent")]


def found(*sites: str, urgency: str = "urgent", name: str = "aorta") -> dict[str, Any]:
    """A report in which one screening found something at these sites."""
    box_mm = [[0, 0, 0], [1, 1, 1]]
    screening = {
        **report()["screenings"][0],
        "name": name,
        "urgency": urgency,
        "findings": [{"code": "SCT:1", "meaning": "", "site": site, "box_mm": box_mm} for site in sites],
    }
    return report(screenings=[screening])


def told(store: Store) -> list[str]:
    """Keys of the outbox's entries, in the order in which they are tried."""
    return [entry.key for entry in store.outbox.due(now=1e12)]


@pytest.fixture
def screened(store: Store, add_scan: Callable[..., int]) -> Callable[..., int]:
    """Store a report for a scan; the same series gives further revisions."""

    def screen(tree: dict[str, Any], rules: AlertRules | None = None, *, series: str = "9.1", revision: int = 1) -> int:
        if revision == 1:
            scan_id = add_scan(ScanState.SCREENING, series=series)
        else:
            store.associations.see(f"{series}/{revision}", at=1.0)
            scan_id = store.instances.add(f"{series}/{revision}", [spooled(revision, series=series)])[0]
            store.scans.advance(scan_id, ScanState.SCREENING, cause="released+quiet")
        store.results.save(scan_id, tree, folder=f"{scan_id}-r{revision}", alerts=rules or AlertRules())
        return scan_id

    return screen


def test_a_finding_that_is_urgent_enough_raises_an_alert_with_its_result(
    store: Store, screened: Callable[..., int]
) -> None:
    scan_id = screened(found("ascending aorta"))
    (alert,) = store.alerts.recent()
    assert (alert.scan_id, alert.screening, alert.urgency) == (scan_id, "aorta", "urgent")
    assert alert.state is AlertState.OPEN
    assert (alert.escalated_at, alert.acknowledged_at, alert.acknowledged_by) == (None, None, None)


def test_a_result_that_cannot_be_stored_raises_nothing(store: Store, add_scan: Callable[..., int]) -> None:
    with pytest.raises(StoreError):
        store.results.save(add_scan(ScanState.DONE), found("x"), folder="x", alerts=AlertRules(channels=EVERYBODY))
    assert (store.alerts.recent(), told(store)) == ([], [])


@pytest.mark.parametrize(
    ("rules", "urgency", "raised"),
    [
        (AlertRules(), "soon", False),
        (AlertRules("soon"), "soon", True),
        (AlertRules(None), "urgent", False),
        (AlertRules(screenings={"aorta": "routine"}), "routine", True),
        (AlertRules("routine", {"aorta": None}), "urgent", False),
        (AlertRules("urgent", {"emphysema": "routine"}), "soon", False),
    ],
)
def test_the_rules_decide(
    store: Store, screened: Callable[..., int], rules: AlertRules, urgency: str, raised: bool
) -> None:
    screened(found("x", urgency=urgency), rules)
    assert len(store.alerts.recent()) == raised


def test_a_normal_screening_raises_nothing(store: Store, screened: Callable[..., int]) -> None:
    tree = found(urgency="urgent")
    tree["screenings"][0]["status"] = "normal"
    screened(tree, AlertRules("routine"))
    assert store.alerts.recent() == []


def test_everybody_is_told_of_each_step_once(store: Store, add_scan: Callable[..., int]) -> None:
    (number,) = store.alerts.raise_for(add_scan(), URGENT, channels=EVERYBODY, at=1.0)
    assert store.alerts.escalate_overdue(at=2.0)[0].state is AlertState.ESCALATED
    assert store.alerts.escalate_overdue(at=3.0) == []
    assert store.alerts.acknowledge(number, "Li 李", at=4.0)
    assert told(store) == [
        f"alert/{number}/{step}/{channel}"
        for step, channels in (
            ("raised", ("mqtt/", "command/", "hl7/ris")),
            ("escalated", ("mqtt/", "command/", "hl7/ris")),
            ("acknowledged", ("mqtt/", "command/")),
        )
        for channel in channels
    ]
    assert [event.kind.value for event in store.events.waiting()] == ["alert_escalated"]


def test_what_channels_are_told_does_not_hold_up_the_scans_delivery(store: Store, screened: Callable[..., int]) -> None:
    scan_id = screened(found("x"), AlertRules(channels=EVERYBODY))
    store.scans.hand_over(scan_id, [])
    assert store.scans.get(scan_id).state is ScanState.DONE
    assert len(told(store)) == len(EVERYBODY)


def test_raising_again_changes_nothing(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan()
    assert len(store.alerts.raise_for(scan_id, [*URGENT, ("emphysema", "soon")], channels=EVERYBODY)) == 2
    before = told(store)
    assert store.alerts.raise_for(scan_id, URGENT, channels=EVERYBODY) == []
    assert told(store) == before


def test_the_first_name_stays(store: Store, add_scan: Callable[..., int]) -> None:
    (number,) = store.alerts.raise_for(add_scan(), URGENT)
    assert store.alerts.acknowledge(number, " 王芳 ", at=5.0)
    assert not store.alerts.acknowledge(number, "somebody else", at=6.0)
    alert = store.alerts.get(number)
    assert (alert.state, alert.acknowledged_by, alert.acknowledged_at) == (AlertState.ACKNOWLEDGED, "王芳", 5.0)
    assert store.alerts.unacknowledged() == []


def test_an_acknowledged_alert_does_not_escalate(store: Store, add_scan: Callable[..., int]) -> None:
    (number,) = store.alerts.raise_for(add_scan(), URGENT)
    store.alerts.acknowledge(number, "Li")
    assert store.alerts.escalate_overdue() == []


def test_nobody_acknowledges_nothing(store: Store, add_scan: Callable[..., int]) -> None:
    (number,) = store.alerts.raise_for(add_scan(), URGENT)
    with pytest.raises(StoreError, match="a name is needed"):
        store.alerts.acknowledge(number, "  ")
    with pytest.raises(StoreError, match="no alert 77"):
        store.alerts.acknowledge(77, "Li")


def test_the_most_urgent_and_oldest_come_first(store: Store, add_scan: Callable[..., int]) -> None:
    levels = ["routine", "urgent", "soon", "urgent"]
    ids = [
        store.alerts.raise_for(add_scan(), [("aorta", level)], channels=[EVERYBODY[0]], at=float(at))[0]
        for at, level in enumerate(levels)
    ]
    expected = [ids[1], ids[3], ids[2], ids[0]]
    assert [alert.id for alert in store.alerts.unacknowledged()] == expected
    assert told(store) == [f"alert/{number}/raised/mqtt/" for number in expected]
    assert [alert.id for alert in store.alerts.recent(2)] == [ids[3], ids[2]]


def test_a_new_revision_with_the_same_finding_raises_nothing(store: Store, screened: Callable[..., int]) -> None:
    screened(found("ascending aorta"))
    (first,) = store.alerts.recent()
    screened(found("ascending aorta"), revision=2)
    store.alerts.acknowledge(first.id, "Li")
    screened(found("ascending aorta"), revision=3)
    assert [alert.id for alert in store.alerts.recent()] == [first.id]


def test_a_new_revision_that_is_more_urgent_raises_again(store: Store, screened: Callable[..., int]) -> None:
    rules = AlertRules("soon")
    screened(found("ascending aorta", urgency="soon"), rules)
    store.alerts.acknowledge(store.alerts.recent()[0].id, "Li")
    screened(found("ascending aorta"), rules, revision=2)
    screened(found("ascending aorta", urgency="soon"), rules, revision=3)
    assert [alert.urgency for alert in store.alerts.recent()] == ["urgent", "soon"]


def test_a_new_revision_with_another_finding_raises_again(store: Store, screened: Callable[..., int]) -> None:
    screened(found("ascending aorta"))
    screened(found("ascending aorta", "abdominal aorta"), revision=2)
    screened(found("abdominal aorta"), revision=3)
    assert len(store.alerts.recent()) == 2


def test_another_series_raises_its_own(store: Store, screened: Callable[..., int]) -> None:
    screened(found("ascending aorta"))
    screened(found("ascending aorta"), series="9.2")
    assert len(store.alerts.recent()) == 2


def test_waiting_is_counted_whatever_the_clock_says(store: Store, add_scan: Callable[..., int]) -> None:
    (number,) = store.alerts.raise_for(add_scan(), URGENT, at=2e9)
    assert store.alerts.let_wait(400.0, up_to=number)
    assert store.alerts.escalate_overdue(waited_s=600.0, at=5e9) == []
    assert store.alerts.let_wait(200.0, up_to=number)
    assert [alert.id for alert in store.alerts.escalate_overdue(waited_s=600.0, at=1e9)] == [number]
    assert not store.alerts.let_wait(600.0, up_to=number)


def test_only_what_was_there_has_waited(store: Store, add_scan: Callable[..., int]) -> None:
    assert store.alerts.newest() == 0
    (first,) = store.alerts.raise_for(add_scan(), URGENT)
    assert not store.alerts.let_wait(600.0, up_to=first - 1)
    assert (store.alerts.newest(), store.alerts.escalate_overdue(waited_s=1.0)) == (first, [])


def test_only_what_was_raised_before_is_escalated(store: Store, add_scan: Callable[..., int]) -> None:
    (old,) = store.alerts.raise_for(add_scan(), URGENT, at=10.0)
    store.alerts.raise_for(add_scan(), URGENT, at=20.0)
    assert [alert.id for alert in store.alerts.escalate_overdue(20.0)] == [old]


def test_what_is_due_is_told_in_the_order_in_which_it_happened(store: Store, add_scan: Callable[..., int]) -> None:
    channel = EVERYBODY[0]
    (number,) = store.alerts.raise_for(add_scan(), URGENT, channels=[channel], at=50.0)
    store.alerts.acknowledge(number, "Li", at=40.0)  # the clock was set back
    due = store.announcements.due(channel, now=60.0)
    assert [item.step.value for item in due] == ["raised", "acknowledged"]
    assert store.announcements.due(channel, now=45.0, longest_wait_s=100.0) == due[1:]
    assert store.announcements.due(channel, now=-1e6, longest_wait_s=100.0) == due
    assert store.announcements.due(channel, now=60.0, limit=1, without={due[0].number}) == due[1:]
    assert store.announcements.due(EVERYBODY[1], now=60.0) == []
    store.announcements.told([due[0].number, 12345])
    assert store.announcements.due(channel, now=60.0) == due[1:]


def test_what_was_given_up_is_not_due_and_says_why(store: Store, add_scan: Callable[..., int]) -> None:
    store.alerts.raise_for(add_scan(), URGENT, channels=EVERYBODY[:1])
    (entry,) = store.outbox.due()
    store.outbox.give_up(entry.key, "the command fails")
    assert (store.outbox.due(), store.outbox.get(entry.key).reason) == ([], "the command fails")


def acknowledged(store: Store, add_scan: Callable[..., int], at: float) -> int:
    (number,) = store.alerts.raise_for(add_scan(), URGENT, channels=EVERYBODY, at=at)
    store.announcements.record(CommandRun(number, AlertStep.RAISED, at, 0.1, CommandOutcome.EXITED, 0))
    store.alerts.acknowledge(number, "Li", at=at)
    return number


def test_old_acknowledged_alerts_are_forgotten_with_all_that_belongs_to_them(
    store: Store, add_scan: Callable[..., int]
) -> None:
    acknowledged(store, add_scan, at=10.0)
    kept = acknowledged(store, add_scan, at=20.0)
    (waiting,) = store.alerts.raise_for(add_scan(), URGENT, channels=EVERYBODY, at=1.0)
    assert store.alerts.forget(acknowledged_before=15.0, keep=100) == 1
    assert [alert.id for alert in store.alerts.recent()] == [waiting, kept]
    assert {key.split("/")[1] for key in told(store)} == {str(kept), str(waiting)}
    assert len(store.announcements.commands(kept)) == 1
    assert len(store.rows("SELECT id FROM alert_commands")) == 1


def test_no_more_than_so_many_alerts_are_kept_and_no_number_comes_back(
    store: Store, add_scan: Callable[..., int]
) -> None:
    numbers = [store.alerts.raise_for(add_scan(), URGENT)[0] for _ in range(5)]
    assert store.alerts.forget(acknowledged_before=0.0, keep=2, limit=2) == 2
    assert store.alerts.forget(acknowledged_before=0.0, keep=2, limit=2) == 1
    assert [alert.id for alert in store.alerts.recent()] == [numbers[4], numbers[3]]
    store.alerts.forget(acknowledged_before=0.0, keep=0)
    assert store.alerts.raise_for(add_scan(), URGENT)[0] > numbers[4]
