"""The manual's page names every table, column and step of a scan's life, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.store.alerts import AlertState
from appliance.store.announcements import AlertStep, CommandOutcome
from appliance.store.commitment_requests import RequestState
from appliance.store.commitments import CommitmentState
from appliance.store.instances import Disposition
from appliance.store.lifecycle import TRANSITIONS
from appliance.store.outbox import OutboxState

if TYPE_CHECKING:
    from appliance.store.database import Store

PAGE = Path(__file__).parents[2] / "docs" / "database.md"


def section(title: str) -> list[list[str]]:
    """Return the cells of the rows of the first table under a title."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2]
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def words(cell: str) -> list[str]:
    return re.findall(r"`([a-z_0-9+]+)`", cell)


def test_every_table_is_in_the_manual_with_its_columns(store: Store) -> None:
    documented = {words(name)[0]: set(words(columns)) for name, _, columns in section("Tables")}
    tables = {name: store.database[name].columns_dict.keys() for name in store.database.table_names()}
    tables.pop("sqlite_sequence")
    assert set(documented) == set(tables)
    for name, columns in tables.items():
        assert columns <= documented[name]
        kinds = (Disposition, OutboxState, AlertState, AlertStep, CommandOutcome, RequestState, CommitmentState)
        values = {value for kind in kinds for value in kind}
        assert documented[name] - columns <= values | {"released+quiet", "aborted+quiet", "mpps", "forced"}


def test_the_table_of_transitions_is_in_the_manual() -> None:
    documented = {
        state: set(words(following)) for states, following in section("A scan's life") for state in words(states)
    }
    assert documented == {state.value: {s.value for s in following} for state, following in TRANSITIONS.items()}
