"""One look at the whole box: what the health service publishes and ``appliance status`` shows."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from appliance import __version__
from appliance.errors import StoreError
from appliance.health import assessment, probes
from appliance.health.model import Health, Peer, PeerRole
from appliance.store.database import open_database

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.config import Settings
    from appliance.health.model import Pack, Queue

_log = structlog.get_logger()

# The slowest regular heartbeat is delivery's with its longest poll; three missed ones are silence.
SILENT_AFTER_S = 180.0


def measure(
    settings: Settings,
    *,
    broker_connected: bool | None = None,
    packs: Sequence[Pack] | None = (),
    clock_stepped_s: float = 0.0,
) -> Health:
    """Measure the box once; also what ``appliance status`` may show.

    Parameters
    ----------
    settings
        The whole configuration.
    broker_connected
        Whether the broker is connected; ``None`` leaves the broker out of the peers.
    packs
        Installed packs; ``None`` when they cannot be read.
    clock_stepped_s
        How far the clock was set, as :class:`appliance.health.probes.ClockWatch` has seen it.
    """
    box = settings.box
    machine = probes.machine(clock_stepped_s=clock_stepped_s)
    disk = probes.disk(
        box.state_directory,
        soft_free_mib=settings.retention.soft_free_mib,
        reserve_mib=settings.receive.disk_reserve_mib,
    )
    services = probes.services(
        box.state_directory / "run", silent_after_s=SILENT_AFTER_S, board=settings.board is not None
    )
    queue = _queue(settings)
    peers = probes.destinations(settings.deliver.destinations, settings.receive.ae_title)
    peers += probes.connections(probes.endpoints(settings.deliver))
    if broker_connected is not None:
        peers += (Peer(name="broker", role=PeerRole.BROKER, reachable=broker_connected, echo=None, seconds=None),)
    condition, problems = assessment.assess(
        machine=machine, disk=disk, services=services, queue=queue, packs=packs, peers=peers
    )
    return Health(
        measured_at=datetime.now(UTC),
        condition=condition,
        problems=problems,
        appliance_version=__version__,
        python_version=_plain_version(platform.python_version()),
        config_digest=settings.digest(),
        machine=machine,
        disk=disk,
        services=services,
        queue=queue,
        packs=tuple(packs or ()),
        peers=peers,
    )


def _queue(settings: Settings) -> Queue | None:
    try:
        with open_database(settings.box.database, read_only=True) as store:
            return assessment.queue(store, stalled_after_s=settings.health.stalled_after_s)
    except StoreError as error:
        _log.warning("queue_not_read", why=str(error))
        return None


def _plain_version(text: str) -> str:
    """Return the numbers of a version; a distribution may add anything after them."""
    match = re.match(r"\d+(\.\d+){1,3}", text)
    return match.group() if match else "0.0"
