"""The ``deliver`` service: takes results where they are configured to go, and finishes their scans.

Each destination has a thread of its own, and alerts have one, so that a peer that hangs holds up nothing else.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import structlog

from appliance.delivery.backoff import Backoff
from appliance.delivery.c_store import CStoreCarrier
from appliance.delivery.commitment import Committer
from appliance.delivery.commitment_inbox import CommitmentInbox
from appliance.delivery.courier import Courier
from appliance.delivery.hl7 import KIND as HL7
from appliance.delivery.hl7 import Notice
from appliance.delivery.node import DicomwebNode, Hl7Node, PacsNode
from appliance.delivery.objects import Kind
from appliance.delivery.outbox_worker import Settled, let_go, settle
from appliance.delivery.shipment import Shipment
from appliance.delivery.stow import StowCarrier
from appliance.dicom.commitment_spool import CommitmentSpool
from appliance.dicom.web.stow import Access
from appliance.errors import ApplianceError
from appliance.hl7.routing import CharacterSet, Routing
from appliance.services import systemd
from appliance.services.alert_watch import AlertWatch
from appliance.services.commitment_reporter import CommitmentReporter
from appliance.services.lifecycle import Heartbeat
from appliance.store.database import open_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.config import BoxSettings, Settings
    from appliance.config_deliver import Destination, DicomwebDestination, Hl7Destination
    from appliance.delivery.errand import Errand
    from appliance.delivery.shipment import Carrier
    from appliance.store.database import Store

_log = structlog.get_logger()

# A thread that waits for a peer notices the end at once, one that still connects only after its time-out; being killed
# there loses nothing.
_GRACE_S = 10.0


class _Route(threading.Thread):
    """Serves one destination until the service ends; an error in it ends the service."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        errand_of: Callable[[Store, threading.Event], Errand],
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"deliver-{name}", daemon=True)
        self._settings = settings
        self._errand_of = errand_of
        self._stop_asked = stop
        self.error: Exception | None = None
        self.sent = 0

    def run(self) -> None:
        """Look at the outbox every ``deliver.poll_s``."""
        deliver = self._settings.deliver
        backoff = Backoff(deliver.retry_first_s, deliver.retry_longest_s)
        try:
            with open_database(self._settings.box.database, check=False) as store:
                errand = self._errand_of(store, self._stop_asked)
                courier = Courier(store, errand, backoff, self._stop_asked)
                courier.begin()
                while not self._stop_asked.is_set():
                    more_is_due = courier.round()
                    self.sent = errand.sent
                    if not more_is_due:
                        self._stop_asked.wait(deliver.poll_s)
        except Exception as error:  # noqa: BLE001  # not swallowed
            # Told by the main thread, which ends the service: its manager starts it again.
            self.error = error
            self._stop_asked.set()


def _routes(settings: Settings, stop: threading.Event) -> list[_Route]:
    results, deliver = settings.box.results, settings.deliver
    spool = CommitmentSpool(settings.box.spool)
    carriers: list[Carrier] = [CStoreCarrier(node_of(settings, destination)) for destination in deliver.destinations]
    carriers += [StowCarrier(web_node_of(destination)) for destination in deliver.dicomweb]
    errands = [(carrier.node.name, partial(_shipment, results, carrier, spool)) for carrier in carriers]
    nodes = [hl7_node_of(settings, destination) for destination in deliver.hl7]
    errands += [(node.name, partial(_notice, settings.box, node)) for node in nodes]
    return [_Route(settings, name, errand_of, stop) for name, errand_of in errands]


def _shipment(results: Path, carrier: Carrier, spool: CommitmentSpool, store: Store, stop: threading.Event) -> Errand:
    committer = None
    if isinstance(carrier, CStoreCarrier) and carrier.node.commitment:
        committer = Committer(store, carrier.node, spool, stop)
    return Shipment(store, results, carrier, stop, committer=committer)


def _notice(box: BoxSettings, node: Hl7Node, store: Store, stop: threading.Event) -> Errand:
    return Notice(store, box.results, box.spool, node, stop)


def node_of(settings: Settings, destination: Destination) -> PacsNode:
    """Return a destination as delivery knows it; the box calls it under the AE title of its own DICOM port."""
    return PacsNode(
        name=destination.name,
        ae_title=destination.ae_title,
        address=destination.address,
        port=destination.port,
        calling_ae=settings.receive.ae_title,
        kinds=frozenset(map(Kind, destination.kinds)),
        tls=destination.tls,
        timeout_s=destination.timeout_s,
        commitment=destination.commitment,
        commitment_timeout_s=destination.commitment_timeout_s,
    )


def web_node_of(destination: DicomwebDestination) -> DicomwebNode:
    """Return a DICOMweb destination as delivery knows it."""
    access = Access(
        url=destination.url,
        username=destination.username,
        secret_file=destination.secret_file,
        certificate=destination.certificate,
        private_key=destination.private_key,
        trusted=destination.trusted,
        timeout_s=destination.timeout_s,
    )
    return DicomwebNode(destination.name, access, frozenset(map(Kind, destination.kinds)))


def hl7_node_of(settings: Settings, destination: Hl7Destination) -> Hl7Node:
    """Return a receiver of HL7 messages as delivery knows it."""
    routing = Routing(
        sending_application=destination.sending_application,
        sending_facility=destination.sending_facility or settings.box.name,
        receiving_application=destination.receiving_application,
        receiving_facility=destination.receiving_facility,
        version=destination.version,
        character_set=CharacterSet(destination.character_set),
        language=settings.results.language,
    )
    return Hl7Node(
        destination.name, destination.address, destination.port, routing, destination.tls, destination.timeout_s
    )


def run(settings: Settings, stop: threading.Event) -> None:
    """Look at the outbox every ``deliver.poll_s`` until ``stop`` is set.

    Parameters
    ----------
    settings
        The whole configuration.
    stop
        Ends the service; an object in transfer is given up and sent again at the next start.

    Raises
    ------
    StoreError
        The database cannot be used; the service manager starts the service again.
    """
    heartbeat = Heartbeat(settings.box.state_directory, "deliver")
    with open_database(settings.box.database) as store:
        total = Settled()
        let_go(store, settings.deliver.pacs_names)
        let_go(store, [receiver.name for receiver in settings.deliver.hl7], kind=HL7)
        routes = _routes(settings, stop)
        alerts, reporter = AlertWatch(settings, stop), CommitmentReporter(settings, stop)
        threads: list[_Route | AlertWatch | CommitmentReporter] = [alerts, reporter, *routes]
        for thread in threads:
            thread.start()
        inbox = CommitmentInbox(store, settings.box.spool, CommitmentSpool(settings.box.spool))
        systemd.notify("READY=1")
        try:
            while True:
                _take_up(inbox)
                total += settle(store)
                _beat(heartbeat, total, sum(route.sent for route in routes))
                systemd.notify("WATCHDOG=1")
                if stop.wait(settings.deliver.poll_s):
                    break
        finally:
            systemd.notify("STOPPING=1")
            stop.set()
            for thread in threads:
                thread.join(_GRACE_S)
            heartbeat.end()
    _tell(threads)


def _take_up(inbox: CommitmentInbox) -> None:
    try:
        inbox.round()
    except OSError as error:
        # What was not taken up lies in the spool; deliveries go on.
        _log.error("commitments_not_taken_up", error=error.strerror)


def _tell(threads: list[_Route | AlertWatch | CommitmentReporter]) -> None:
    for thread in threads:
        if isinstance(thread.error, ApplianceError):
            raise thread.error
        if thread.error is not None:
            raise RuntimeError(f"The thread {thread.name} ended by an error.") from thread.error


def _beat(heartbeat: Heartbeat, total: Settled, objects: int) -> None:
    try:
        heartbeat.beat(done=total.done, parked=total.parked, objects=objects)
    except OSError as error:
        _log.error("heartbeat_not_written", error=error.strerror)
