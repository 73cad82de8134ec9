"""The figures of the health message for a Prometheus on this machine: the same model, so the same figures and no more.

Label values are enumerations of this package, versions, and names that the site's configuration gives to packs and
destinations; nothing else can be in a :class:`~appliance.health.model.Health`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from appliance.errors import ConfigurationError
from appliance.health.model import Condition, Problem, ServiceState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.health.model import Health

ADDRESS = "127.0.0.1"
"""No setting leads to another one: who wants the figures elsewhere has a Prometheus here, or reads MQTT."""

_MIB = 1024.0 * 1024.0

Sample = tuple[tuple[str, ...], float | None]


class HealthCollector(Collector):
    """Turns the latest health into metrics whenever it is asked."""

    def __init__(self) -> None:
        self._health: Health | None = None

    def update(self, health: Health) -> None:
        """Replace what is shown."""
        self._health = health

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics; none before the first measurement."""
        health = self._health
        if health is None:
            return
        for name, text, labels, samples in _metrics(health):
            known = [(values, number) for values, number in samples if number is not None]
            if known:
                family = GaugeMetricFamily(f"appliance_{name}", text, labels=labels)
                for values, number in known:
                    family.add_metric(values, number)
                yield family


class Endpoint:
    """The HTTP server on the loopback address.

    Parameters
    ----------
    port
        TCP port.

    Raises
    ------
    ConfigurationError
        The port cannot be opened.
    """

    def __init__(self, port: int) -> None:
        self.collector = HealthCollector()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self.collector)
        try:
            self._server, self._thread = start_http_server(port, addr=ADDRESS, registry=registry)
        except OSError as error:
            raise ConfigurationError(
                f"health.prometheus_port = {port}: the port cannot be opened on {ADDRESS}: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _metrics(health: Health) -> Iterator[tuple[str, str, tuple[str, ...], list[Sample]]]:
    yield "info", "Versions.", ("version", "python_version"), [((health.appliance_version, health.python_version), 1.0)]
    yield "measured_at_seconds", "When this was measured, Unix time.", (), [((), health.measured_at.timestamp())]
    yield (
        "condition",
        "The box in one word.",
        ("condition",),
        [((item.value,), float(item is health.condition)) for item in Condition],
    )
    yield (
        "problem",
        "Why it is not healthy.",
        ("problem",),
        [((item.value,), float(item in health.problems)) for item in Problem],
    )
    yield from _machine(health)
    yield from _services(health)
    yield from _queue(health)
    yield (
        "pack_info",
        "Installed packs.",
        ("pack", "version", "self_test", "trust"),
        [((pack.name, pack.version, pack.self_test.value, pack.trust.value), 1.0) for pack in health.packs],
    )
    peers = [((peer.name, peer.role.value), peer) for peer in health.peers]
    labels = ("peer", "role")
    yield (
        "peer_reachable",
        "Whether its port accepts connections.",
        labels,
        [(values, float(peer.reachable)) for values, peer in peers],
    )
    yield "peer_echo", "Whether it answers a C-ECHO.", labels, [(values, _number(peer.echo)) for values, peer in peers]
    yield "peer_seconds", "How long it took to answer.", labels, [(values, peer.seconds) for values, peer in peers]


def _machine(health: Health) -> Iterator[tuple[str, str, tuple[str, ...], list[Sample]]]:
    machine, disk = health.machine, health.disk
    for name, text, number in (
        ("uptime_seconds", "Since the machine was started.", machine.uptime_s),
        ("cpus", "Processors.", float(machine.cpu_count)),
        ("cpu_percent", "Processor load since the measurement before.", machine.cpu_percent),
        ("load_1_min", "Load average.", machine.load_1_min),
        ("memory_total_bytes", "Memory.", machine.memory_total_mib * _MIB),
        ("memory_available_bytes", "Memory that programs may still take.", machine.memory_available_mib * _MIB),
        ("temperature_celsius", "Hottest sensor.", machine.temperature_c),
        ("clock_offset_seconds", "Clock minus reference.", machine.clock_offset_s),
        ("clock_synchronised", "Whether the clock follows a time server.", _number(machine.clock_synchronised)),
        ("clock_stepped_seconds", "How far the clock was set since the service started.", machine.clock_stepped_s),
        ("disk_total_bytes", "File system of the state directory.", disk.total_mib * _MIB),
        ("disk_free_bytes", "What is free of it.", disk.free_mib * _MIB),
        ("disk_soft_free_bytes", "Below this, images of finished scans go early.", disk.soft_free_mib * _MIB),
        ("disk_reserve_bytes", "Below this, the DICOM port refuses associations.", disk.reserve_mib * _MIB),
    ):
        yield name, text, (), [((), number)]


def _services(health: Health) -> Iterator[tuple[str, str, tuple[str, ...], list[Sample]]]:
    services = [((service.name.value,), service) for service in health.services]
    labels = ("service",)
    yield (
        "service_state",
        "What its heartbeat says.",
        ("service", "state"),
        [
            ((*values, state.value), float(service.state is state))
            for values, service in services
            for state in ServiceState
        ],
    )
    yield (
        "service_heartbeat_age_seconds",
        "Since its last sign of life.",
        labels,
        [(values, service.heartbeat_age_s) for values, service in services],
    )
    yield (
        "service_resident_bytes",
        "Its resident memory.",
        labels,
        [(values, _bytes(service.resident_mib)) for values, service in services],
    )
    yield (
        "service_children_bytes",
        "Resident memory of the processes it has started.",
        labels,
        [(values, _bytes(service.children_mib)) for values, service in services],
    )
    yield (
        "service_uptime_seconds",
        "Since it was started.",
        labels,
        [(values, service.uptime_s) for values, service in services],
    )


def _queue(health: Health) -> Iterator[tuple[str, str, tuple[str, ...], list[Sample]]]:
    queue = health.queue
    if queue is None:
        return
    yield (
        "scans",
        "Scans by state.",
        ("state",),
        [((state.value,), float(number)) for state, number in queue.by_state.items()],
    )
    for name, text, number in (
        ("oldest_waiting_seconds", "Age of the oldest scan that is complete and not finished.", queue.oldest_waiting_s),
        ("last_finished_age_seconds", "Since a scan was finished.", queue.last_finished_age_s),
        ("outbox_waiting", "Deliveries that wait.", _number(queue.outbox_waiting)),
        ("outbox_parked", "Deliveries that need a person.", _number(queue.outbox_parked)),
        ("outbox_oldest_seconds", "Age of the oldest delivery that waits.", queue.outbox_oldest_s),
        ("clock_behind_seconds", "How far the clock is behind the database.", queue.clock_behind_s),
        ("work_stalled", "Whether scans wait and none is finished.", float(queue.stalled)),
    ):
        yield name, text, (), [((), number)]


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _bytes(mebibytes: float | None) -> float | None:
    return None if mebibytes is None else mebibytes * _MIB
