"""Whatever comes in whatever order, with restarts and lost databases in between, every instance ends in a scan."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from appliance.dicom.spool import AssociationFolder, CloseReason
from appliance.services.assemble import Assembler
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState
from tests.work.conftest import Scanner, instance

SERIES = st.sampled_from(["1.1", "1.2", "2.1"])


class Reception(RuleBasedStateMachine):
    """Associations come and go while the assembler is stopped, started and robbed of its database."""

    associations = Bundle("associations")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.scanner = Scanner(self.root / "spool")
        self.databases = 0
        self.sent: dict[str, set[str]] = {}
        self.open: list[AssociationFolder] = []
        self.lose_the_database()

    @rule(target=associations)
    def associate(self) -> AssociationFolder:
        self.open.append(self.scanner.open())
        return self.open[-1]

    @rule(association=associations, series=SERIES, number=st.integers(1, 5))
    def send(self, association: AssociationFolder, series: str, number: int) -> None:
        association.store(instance(series, number))
        self.sent.setdefault(series, set()).add(f"{series}.{number}")

    @rule(association=consumes(associations), reason=st.sampled_from(CloseReason))
    def release(self, association: AssociationFolder, reason: CloseReason) -> None:
        association.close(reason)
        self.open.remove(association)

    @rule()
    def index(self) -> None:
        if self.assembler.index():
            self.assembler.complete()

    @rule()
    def restart(self) -> None:
        self.assembler = Assembler(self.store, self.root / "spool", quiet_s=0.0, force_s=600.0)

    @rule()
    def lose_the_database(self) -> None:
        if self.databases:
            self.store.close()
        self.databases += 1
        self.store = open_database(self.root / f"{self.databases}.db")
        self.restart()

    @invariant()
    def no_scan_is_complete_while_its_association_is_open(self) -> None:
        for scan in self.store.scans.in_state(ScanState.COMPLETE):
            assert self.store.scans.open_associations(scan.id) == 0

    def teardown(self) -> None:
        for association in self.open:
            association.close(CloseReason.ABORTED)
        while not self.assembler.index():
            pass
        while not self.assembler.index():  # what was closed after the pass had begun
            pass
        self.assembler.complete()
        latest: dict[str, set[str]] = {}
        for scan in sorted(self.store.scans.last(1000), key=lambda scan: scan.revision):
            assert scan.state is ScanState.COMPLETE
            used = self.store.instances.of_scan(scan.id)
            assert len(used) == scan.instances
            assert latest.get(scan.series_instance_uid, set()) < {item.sop_instance_uid for item in used}
            latest[scan.series_instance_uid] = {item.sop_instance_uid for item in used}
        assert latest == self.sent
        self.store.close()
        self.folder.cleanup()


Reception.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestReception = Reception.TestCase
