"""A scan's life against the table, whatever is tried in whatever order."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from appliance.errors import StoreError
from appliance.reasons import Reason, ReasonCode
from appliance.store.database import open_database
from appliance.store.leases import Owner
from appliance.store.lifecycle import CLAIMABLE, EXPLAINED, TERMINAL, TRANSITIONS, ScanState, check
from tests.store.conftest import spooled
from tests.store.samples import report

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store

ATTEMPTS = 3


def test_every_state_has_a_line_in_the_table() -> None:
    assert set(TRANSITIONS) == set(ScanState)


def test_every_state_is_reached_from_receiving() -> None:
    reached, new = set(), {ScanState.RECEIVING}
    while new:
        reached |= new
        new = {following for state in new for following in TRANSITIONS[state]} - reached
    assert reached == set(ScanState)


def test_a_terminal_state_can_be_reached_from_every_state() -> None:
    def ends(state: ScanState, seen: frozenset[ScanState]) -> bool:
        return state in TERMINAL or any(ends(s, seen | {s}) for s in TRANSITIONS[state] - seen)

    assert all(ends(state, frozenset({state})) for state in ScanState)


@pytest.mark.parametrize("following", ScanState)
@pytest.mark.parametrize("current", ScanState)
def test_check_agrees_with_the_table(current: ScanState, following: ScanState) -> None:
    if following in TRANSITIONS[current]:
        check(1, current, following)
    else:
        with pytest.raises(StoreError, match=f"is {current} and cannot become {following}"):
            check(1, current, following)


def test_a_refusal_needs_a_reason(store: Store, add_scan: Callable[..., int]) -> None:
    with pytest.raises(StoreError, match="without a reason"):
        store.scans.move(add_scan(), ScanState.REFUSED, cause="child")


def test_each_step_is_in_the_history(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.SCREENING)
    states = [line.to_state for line in store.scans.history(scan_id)]
    assert states == [ScanState.RECEIVING, ScanState.COMPLETE, ScanState.PLANNED, ScanState.SCREENING]


def test_a_forbidden_step_changes_nothing(store: Store, add_scan: Callable[..., int]) -> None:
    scan_id = add_scan(ScanState.DONE)
    before = store.scans.get(scan_id), store.scans.history(scan_id)
    with pytest.raises(StoreError):
        store.scans.move(scan_id, ScanState.SCREENING, cause="again")
    assert (store.scans.get(scan_id), store.scans.history(scan_id)) == before


class Life(RuleBasedStateMachine):
    """Drives real rows in a real file and compares them with a model of one dictionary."""

    scans = Bundle("scans")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_database(Path(self.folder.name) / "appliance.db")
        self.me = Owner.current()
        self.model: dict[int, ScanState] = {}
        self.number = 0

    @rule(target=scans)
    def receive(self) -> int:
        self.number += 1
        name = f"a{self.number}"
        self.store.associations.see(name, at=0.0)
        (scan_id,) = self.store.instances.add(name, [spooled(1, series=f"1.{self.number}")])
        self.model[scan_id] = ScanState.RECEIVING
        return scan_id

    @rule(scan_id=scans, to=st.sampled_from(ScanState))
    def move(self, scan_id: int, to: ScanState) -> None:
        reason = Reason(ReasonCode.NOT_CT, "Not CT.") if to in EXPLAINED else None
        if to in TRANSITIONS[self.model[scan_id]]:
            self.store.scans.move(scan_id, to, cause="test", reason=reason)
            self.model[scan_id] = to
        else:
            with pytest.raises(StoreError):
                self.store.scans.move(scan_id, to, cause="test", reason=reason)

    @rule()
    def claim(self) -> None:
        claimed = self.store.leases.claim(self.me, seconds=60.0)
        if claimed is not None:
            assert self.model[claimed.id] is ScanState.COMPLETE
            assert claimed.lease_owner == str(self.me)

    @rule(scan_id=scans)
    def lose(self, scan_id: int) -> None:
        scan = self.store.scans.get(scan_id)
        reason = Reason(ReasonCode.WORKER_LOST, "Lost.")
        state = self.store.leases.lose(scan_id, reason, attempts=ATTEMPTS)
        if scan.lease_owner is not None:
            self.model[scan_id] = ScanState.COMPLETE if scan.attempts < ATTEMPTS else ScanState.FAILED
        assert state is self.model[scan_id]

    @rule(scan_id=scans)
    def release(self, scan_id: int) -> None:
        scan = self.store.scans.get(scan_id)
        self.store.leases.release(scan_id, cause="stopped")
        if scan.lease_owner is not None:
            self.model[scan_id] = ScanState.COMPLETE
            assert self.store.scans.get(scan_id).attempts == scan.attempts - 1

    @rule(scan_id=scans)
    def save(self, scan_id: int) -> None:
        screenable = self.model[scan_id] in CLAIMABLE or self.store.results.get(scan_id)
        if screenable and self.store.results.save(scan_id, report(), folder="x"):
            self.model[scan_id] = ScanState.SCREENED

    @rule(scan_id=scans, destinations=st.lists(st.sampled_from(["pacs1", "pacs2"]), unique=True))
    def hand_over(self, scan_id: int, destinations: list[str]) -> None:
        if self.model[scan_id] is ScanState.SCREENED:
            self.store.scans.hand_over(scan_id, destinations)
            entries = self.store.outbox.of_scan(scan_id)
            self.model[scan_id] = ScanState.DELIVERING if entries else ScanState.DONE

    @rule(scan_id=scans)
    def retry(self, scan_id: int) -> None:
        if self.model[scan_id] in {ScanState.REFUSED, ScanState.FAILED, ScanState.PARKED}:
            self.store.scans.retry(scan_id)
            self.model[scan_id] = {
                ScanState.REFUSED: ScanState.COMPLETE,
                ScanState.FAILED: ScanState.COMPLETE,
                ScanState.PARKED: ScanState.DELIVERING,
            }[self.model[scan_id]]

    @invariant()
    def rows_agree_with_the_model(self) -> None:
        for scan_id, state in self.model.items():
            scan = self.store.scans.get(scan_id)
            history = self.store.scans.history(scan_id)
            assert scan.state is state
            assert history[-1].to_state is state
            assert (scan.reason is not None) == (state in EXPLAINED)
            assert (scan.finished_at is not None) == (state in TERMINAL)
            assert scan.lease_owner is None or state in CLAIMABLE
            for earlier, later in itertools.pairwise(history):
                assert later.from_state is earlier.to_state
                assert later.to_state in TRANSITIONS[earlier.to_state]

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


Life.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase
