"""A scan's result objects to one PACS, each confirmed durably as it arrives, however they travel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from appliance.delivery.errand import Outcome, sum_up
from appliance.delivery.objects import FOLDER, ObjectsUnreadableError, read_objects
from appliance.delivery.verdict import Verdict
from appliance.dicom.network.link import Obstacle
from appliance.errors import ConfigurationError
from appliance.store.deliveries import KIND

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from appliance.delivery.commitment import Committer
    from appliance.delivery.node import DicomwebNode, PacsNode
    from appliance.delivery.objects import ResultObject
    from appliance.delivery.verdict import Judgement
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry

NOTHING_TO_SEND = "nothing_to_send"


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a transfer.

    Attributes
    ----------
    judgements
        One for each object.
    away
        Whether the peer as a whole was not to be had.
    wait_s
        How long it wants to be left alone; 0 when it did not say.
    """

    judgements: tuple[Judgement, ...]
    away: bool = False
    wait_s: float = 0.0


class Carrier(Protocol):
    """The way to one PACS: C-STORE or STOW-RS."""

    @property
    def node(self) -> PacsNode | DicomwebNode:
        """The PACS."""

    def carry(
        self, objects: Sequence[ResultObject], confirm: Callable[[ResultObject, int], None], stop: threading.Event
    ) -> Carried:
        """Send objects in their order.

        Parameters
        ----------
        objects
            What is sent.
        confirm
            Called with each object that the PACS has, and the status of its answer, before more is sent.
        stop
            Once it is set nothing more is begun, and no answer is waited for.

        Raises
        ------
        ConfigurationError
            Certificates or secrets of this side cannot be used.
        """


class Shipment:
    """An :class:`~appliance.delivery.errand.Errand`: the objects in results folders to one PACS.

    Parameters
    ----------
    store
        A connection of the calling thread's own.
    results
        The folder of the results folders.
    carrier
        The way there.
    stop
        Once it is set nothing more is begun, and no answer is waited for.
    committer
        Asks for storage commitment of what was sent; ``None`` where the PACS is not asked.
    """

    kind = KIND

    def __init__(
        self,
        store: Store,
        results: Path,
        carrier: Carrier,
        stop: threading.Event,
        *,
        committer: Committer | None = None,
    ) -> None:
        self._store = store
        self._results = results
        self._carrier = carrier
        self._stop = stop
        self._committer = committer
        self._sent = 0

    @property
    def name(self) -> str:
        """Name of the destination."""
        return self._carrier.node.name

    @property
    def sent(self) -> int:
        """Objects that the PACS has confirmed."""
        return self._sent

    def digest(self) -> str:
        """Return the digest of the destination's settings."""
        return self._carrier.node.digest()

    def attempt(self, entry: OutboxEntry) -> Outcome:
        """Send what the destination does not have yet."""
        folder = str(entry.payload["folder"])
        try:
            objects = read_objects(self._results / folder)
        except ObjectsUnreadableError as error:
            return Outcome(Verdict.PERSON, Obstacle.FILE, str(error), asked=False)
        except OSError as error:
            sentence = f"The scan's objects cannot be read: {error.strerror}."
            return Outcome(Verdict.AGAIN, Obstacle.FILE, sentence, asked=False)
        if not objects:
            sentence = (
                f"There are no DICOM objects in results/{folder}/{FOLDER}: they could not be made (the log of the work "
                "service says why), results.objects is empty, or an earlier release screened this scan. "
                "Read the result with `appliance results`."
            )
            return Outcome(Verdict.PERSON, NOTHING_TO_SEND, sentence, asked=False)
        confirmed = self._store.deliveries.confirmed(entry.key)
        wanted = [item for item in objects if self._wants(item)]
        missing = [item for item in wanted if item.sop_instance_uid not in confirmed]
        outcome = self._send(entry, missing) if missing else Outcome(Verdict.THERE, asked=False)
        if outcome.verdict is not Verdict.THERE or self._committer is None or self._stop.is_set():
            return outcome
        return self._committer.outcome(entry, wanted)

    def _wants(self, item: ResultObject) -> bool:
        return item.kind is None or item.kind in self._carrier.node.kinds

    def _send(self, entry: OutboxEntry, objects: list[ResultObject]) -> Outcome:
        def confirm(item: ResultObject, status: int) -> None:
            self._store.deliveries.confirm(entry.key, item.sop_instance_uid, status)
            self._sent += 1

        try:
            carried = self._carrier.carry(objects, confirm, self._stop)
        except ConfigurationError as error:
            # Not parked: a certificate that is renewed in its place mends it, and nobody would tell us.
            return Outcome(Verdict.AGAIN, "tls", str(error), away=True)
        return sum_up(carried.judgements, tries=entry.attempts + 1, away=carried.away, wait_s=carried.wait_s)
