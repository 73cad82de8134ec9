from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from appliance.store.database import Store, open_database
from appliance.store.instances import InstanceIdentity, SpooledInstance
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count(1)


def spooled(
    number: int, *, series: str = "1.2.3", study: str = "1.2", content: str = "a", name: str = "", accession: str = "A1"
) -> SpooledInstance:
    """An instance as the assembler would describe it."""
    return SpooledInstance(
        name=name or f"{number:06d}.dcm",
        identity=InstanceIdentity(f"{series}.{number}", "1.2.840.10008.5.1.4.1.1.2", series, study, accession, "CT"),
        problem=None,
        bytes=100,
        digest=f"sha256:{content}",
        received_at=1000.0 + number,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "appliance.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_database(path) as opened:
        yield opened


@pytest.fixture
def add_scan(store: Store) -> Callable[..., int]:
    """Make a scan of a new series and walk it to a state of the main line."""

    def add(state: ScanState = ScanState.COMPLETE, **identity: Any) -> int:
        number = next(_numbers)
        series = identity.pop("series", f"1.2.3.{number}")
        store.associations.see(f"a{number}", at=1.0)
        scan_id = store.instances.add(f"a{number}", [spooled(1, series=series, **identity)])[0]
        store.associations.close(f"a{number}", "released", at=2.0)
        store.scans.advance(scan_id, state, cause="released+quiet", at=1000.0 + number)
        return scan_id

    return add
