"""Results and alerts to one HL7 receiver: a message each, done when the receiver has accepted it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.delivery.errand import Outcome, sum_up
from appliance.delivery.verdict import Verdict
from appliance.delivery.verdict_hl7 import is_away, judge
from appliance.errors import ConfigurationError, StoreError
from appliance.hl7.mllp import exchange
from appliance.hl7.oru import MessageInvalidError, Subject, control_id, message
from appliance.hl7.patient import HeaderUnreadableError, read_patient
from appliance.results.report import read_screenings

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from appliance.delivery.node import Hl7Node
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry

KIND = "hl7"
_CANNOT_BE_MADE = "message"


class Notice:
    """An :class:`~appliance.delivery.errand.Errand`: messages to one receiver.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    state
        Folders of results and of the spool: a message takes the patient from an object made of the scan, or else from
        one of its images.
    node
        The receiver.
    stop
        Once it is set no answer is waited for.
    """

    kind = KIND

    def __init__(self, store: Store, results: Path, spool: Path, node: Hl7Node, stop: threading.Event) -> None:
        self._store = store
        self._results = results
        self._spool = spool
        self._node = node
        self._stop = stop
        self._sent = 0

    @property
    def name(self) -> str:
        """Name of the receiver."""
        return self._node.name

    @property
    def sent(self) -> int:
        """Messages that the receiver has accepted."""
        return self._sent

    def digest(self) -> str:
        """Return the digest of the receiver's settings."""
        return self._node.digest()

    def attempt(self, entry: OutboxEntry) -> Outcome:
        """Send the message of an entry."""
        node = self._node
        try:
            subject, scan_id = self._subject(entry)
            patient = read_patient(self._files(scan_id))
            identifier = control_id(subject, node.name, node.routing.sending_facility)
            text = message(subject, patient, node.routing, identifier)
        except (HeaderUnreadableError, MessageInvalidError) as error:
            return Outcome(Verdict.PERSON, _CANNOT_BE_MADE, str(error), asked=False)
        except (StoreError, KeyError, ValueError) as error:
            sentence = (
                f"There is no such result or alert any more ({type(error).__name__}), so there is nothing to tell."
            )
            return Outcome(Verdict.PERSON, _CANNOT_BE_MADE, sentence, asked=False)
        encoding = node.routing.character_set.value
        try:
            reply = exchange(
                text.encode(encoding, "replace"),
                identifier,
                host=node.address,
                port=node.port,
                encoding=encoding,
                tls=node.tls,
                timeout_s=node.timeout_s,
                stop=self._stop,
            )
        except ConfigurationError as error:
            return Outcome(Verdict.AGAIN, "tls", str(error), away=True)
        outcome = sum_up([judge(reply, node)], tries=entry.attempts + 1, away=is_away(reply))
        if outcome.verdict is Verdict.THERE:
            self._sent += 1
        return outcome

    def _subject(self, entry: OutboxEntry) -> tuple[Subject, int]:
        """Return what an entry is about, and the scan.

        Raises
        ------
        StoreError, KeyError, ValueError
            It is not in the database.
        """
        if "alert" in entry.payload:
            alert = self._store.alerts.get(int(entry.payload["alert"]))
            scan_id, step, at = alert.scan_id, str(entry.payload["step"]), alert.raised_at
            if step == "escalated":
                at = alert.escalated_at or at
        else:
            alert, scan_id, step, at = None, int(entry.payload["scan"]), None, 0.0
        result = self._store.results.get(scan_id)
        if result is None:
            raise StoreError(f"Scan {scan_id} has no result.")
        scan = self._store.scans.get(scan_id)
        screenings = read_screenings(result.report)
        if alert is not None:
            screenings = tuple(item for item in screenings if item.name == alert.screening)
        subject = Subject(scan.series_instance_uid, scan.revision, at or result.saved_at, screenings, step)
        return subject, scan_id

    def _files(self, scan_id: int) -> Iterator[Path]:
        scan = self._store.scans.get(scan_id)
        yield from sorted((self._results / scan.folder / "objects").glob("*.dcm"))
        for instance in self._store.instances.of_scan(scan_id):
            if not instance.pruned:
                yield self._spool / instance.path
