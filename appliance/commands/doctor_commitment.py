"""The doctor's checks of storage commitment: whether a PACS offers it and may report, and who asks this box for it."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING

from appliance.commands.doctor_checks import Check, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.config import Settings
    from appliance.config_deliver import Destination

_LATELY_S = 7 * 86400.0
_TIMEOUT_S = 15.0


def commitment(settings: Settings) -> Iterator[Check]:
    """Check every destination that is asked for storage commitment, and name the peers that ask this box."""
    for destination in settings.deliver.destinations:
        if destination.commitment:
            yield _destination(settings, destination)
    yield from _asked(settings)


def _destination(settings: Settings, destination: Destination) -> Check:
    from appliance.dicom.network.commitment import CommitmentNode, offered
    from appliance.dicom.network.link import Obstacle

    name = f"storage commitment of {destination.name}"
    own = settings.receive.ae_title
    node = CommitmentNode(destination.address, destination.port, destination.ae_title, own, destination.tls, _TIMEOUT_S)
    answer = offered(node)
    if answer.obstacle is Obstacle.SOP_CLASS:
        fix = f"switch it on there for {own}, or set commitment = false for this destination"
        return Check(name, Verdict.PROBLEM, "not offered (1.2.840.10008.1.20.1)", fix)
    if answer.problem is not None:
        return Check(name, Verdict.PROBLEM, answer.problem, "see the line of the destination")
    if not _may_report(settings, destination):
        text = "offered, but the PACS is not under receive.peers: its reports are refused"
        fix = f"add ae_title {destination.ae_title} with its address to receive.peers, and restart the receive service"
        return Check(name, Verdict.PROBLEM, text, fix)
    text = f"offered; it must know {own} at this box's address and port {settings.receive.port} to report"
    return Check(name, Verdict.OK, text)


def _may_report(settings: Settings, destination: Destination) -> bool:
    from appliance.dicom.network.access import AllowList

    try:
        ipaddress.ip_address(destination.address)
    except ValueError:
        return any(peer.ae_title == destination.ae_title for peer in settings.receive.peers)
    return AllowList.from_peers(settings.receive.peers).admits(destination.ae_title, destination.address)


def _asked(settings: Settings) -> Iterator[Check]:
    from appliance.errors import StoreError
    from appliance.store.database import open_database

    try:
        with open_database(settings.box.database, read_only=True) as store:
            peers = store.commitment_requests.peers(since=time.time() - _LATELY_S)
    except StoreError:
        return  # told by other checks
    for peer in peers:
        number = peer.waiting + peer.reported + peer.given_up
        text = f"asked {number} times in a week for storage commitment; this box is no archive and commits nothing"
        fix = peer.reason or f"clear the setting for storage commitment of {settings.receive.ae_title} there"
        yield Check(f"sender {peer.ae_title}", Verdict.WARNING, text, fix)
