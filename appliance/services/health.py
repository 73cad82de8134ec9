"""The ``health`` service: measures the box, tells the fleet over MQTT, and keeps the disk above its watermark.

It opens the database only for moments: a service that only watches must not stand in the way of one that repairs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from appliance import __version__
from appliance.errors import ConfigurationError, PackError, StoreError
from appliance.health.alert_feed import AlertFeed
from appliance.health.assessment import CLOCK_TOLERANCE_S
from appliance.health.broker import Broker
from appliance.health.command_model import CommandName
from appliance.health.commands import Commander, reply_message
from appliance.health.diagnostics import event_message
from appliance.health.disk import DiskKeeper
from appliance.health.drift import make_due
from appliance.health.measure import measure
from appliance.health.model import Condition, Pack, PackTrust, SelfTest
from appliance.health.probes import ClockWatch
from appliance.health.publisher import Publisher
from appliance.packs.choice import fingerprint
from appliance.services import systemd
from appliance.services.lifecycle import Heartbeat
from appliance.store.alert_rules import ChannelKind
from appliance.store.database import open_database
from appliance.store.events import EventKind
from appliance.store.scans import NO_LONGER_CONFIGURED

if TYPE_CHECKING:
    import threading

    from appliance.config import Settings
    from appliance.health.model import Health
    from appliance.health.prometheus import Endpoint

_log = structlog.get_logger()

SWEEP_INTERVAL_S = 600.0
SHORT_SWEEP_INTERVAL_S = 60.0
EVENT_INTERVAL_S = 2.0
PACKS_INTERVAL_S = 600.0
DRIFT_INTERVAL_S = 600.0
SETTLING_S = 60.0
_LONGEST_WAIT_S = 5.0
_ALERTS_WAIT_S = 0.5
_EVENTS_KEPT_S = 30 * 86400.0
# A box without a broker, or one that refuses everything, must not gather events for ever.
_UNTOLD_EVENTS_KEPT_S = 365 * 86400.0
_EVENTS_KEPT = 20_000
# Acknowledged or not: a box where so many wait has nobody who looks.
_ALERTS_KEPT = 10_000


def installed_packs(settings: Settings) -> tuple[Pack, ...] | None:
    """Return the packs in use, their signatures and files verified, and those that were taken out of use.

    The self-test runs the network, which this service may not (its memory is never executable). An installed pack has
    passed it on this machine before it counted; of the others it is ``not_run`` here.

    Returns
    -------
    tuple[Pack, ...] or None
        ``None`` when one is damaged or may not be used.
    """
    from appliance.packs.choice import read_choice
    from appliance.packs.registry import ALL_TASKS, available
    from appliance.packs.rules import Rules

    rules = Rules.from_settings(settings)
    try:
        packs = available(rules, tasks=ALL_TASKS)
        choice = read_choice(rules.installed)
    except (PackError, ConfigurationError, OSError) as error:
        _log.error("packs_not_read", why=str(error))
        return None
    found = [
        Pack(
            name=pack.name,
            version=pack.version,
            digest=pack.digest,
            self_test=SelfTest.PASSED if choice.active.get(pack.name) == pack.version else SelfTest.NOT_RUN,
            trust=PackTrust(pack.trust.partition(":")[0]),
        )
        for pack in packs
    ]
    for key in choice.failed:
        name, _, version = key.partition("/")
        accepted = choice.installed.get(key)
        if accepted is not None:
            trust = PackTrust(accepted.trust.partition(":")[0])
            found.append(
                Pack(name=name, version=version, digest=accepted.digest, self_test=SelfTest.FAILED, trust=trust)
            )
    return tuple(found)


def run(settings: Settings, stop: threading.Event) -> None:
    """Measure, publish and keep the disk until ``stop`` is set.

    Parameters
    ----------
    settings
        The whole configuration.
    stop
        Ends the service; the fleet is told ``offline`` first.

    Raises
    ------
    ConfigurationError
        The broker's settings, certificates or secrets cannot be used, or the port for Prometheus cannot be opened.
    """
    publisher = None
    if settings.health.mqtt is not None:
        broker = Broker.from_settings(settings.health.mqtt, settings.box.name)
        publisher = Publisher(broker, settings.box.state_directory / "health" / "mqtt-session", __version__)
    endpoint = None
    if settings.health.prometheus_port:
        from appliance.health.prometheus import Endpoint

        endpoint = Endpoint(settings.health.prometheus_port)
    service = _Service(settings, publisher, endpoint)
    if publisher is not None:
        service.begin_to_listen(publisher)
        publisher.start()
    systemd.notify("READY=1")
    try:
        service.loop(stop)
    finally:
        systemd.notify("STOPPING=1")
        service.end_listening()
        if publisher is not None:
            publisher.close()
        if endpoint is not None:
            endpoint.close()
        service.heartbeat.end()


class _Service:
    """The loop with what it remembers between two rounds."""

    def __init__(self, settings: Settings, publisher: Publisher | None, endpoint: Endpoint | None) -> None:
        self._settings = settings
        self._publisher = publisher
        self._endpoint = endpoint
        self._alerts = None if publisher is None else AlertFeed(publisher, settings.box.database)
        self._keeper = DiskKeeper(settings.box.spool, settings.retention)
        self._commander: Commander | None = None
        self._health: Health | None = None
        self._condition: Condition | None = None
        self._drift_told = ""
        self._clock = ClockWatch()
        self._packs: tuple[Pack, ...] | None = ()
        self._choice_seen = (-1, -1, -1)
        self._settled_at_s = time.monotonic() + SETTLING_S
        self.heartbeat = Heartbeat(settings.box.state_directory, "health")

    def begin_to_listen(self, publisher: Publisher) -> None:
        """Take commands of the fleet, where that is switched on."""
        mqtt = self._settings.health.mqtt
        if mqtt is None or not mqtt.commands:
            return
        commander = Commander(self._settings, publisher, lambda: self._health)
        publisher.listen(
            [f"cmd/{name.value}" for name in CommandName],
            lambda leaf, payload: commander.take(leaf.removeprefix("cmd/"), payload),
        )
        commander.start()
        self._commander = commander

    def end_listening(self) -> None:
        """End the thread that does commands."""
        if self._commander is not None:
            self._commander.close()

    def loop(self, stop: threading.Event) -> None:
        """Measure each ``health.interval_s``, look after events and the disk in between."""
        interval_s = self._settings.health.interval_s
        watchdog_s = systemd.watchdog_interval_s() or _LONGEST_WAIT_S * 2.0
        wait_s = min(_LONGEST_WAIT_S, interval_s, watchdog_s / 2.0)
        next_packs_s = next_measure_s = next_sweep_s = next_short_sweep_s = next_events_s = time.monotonic()
        next_drift_s = next_packs_s
        self._record(EventKind.STARTED)
        while True:
            # The heartbeat comes first, so that the service finds itself alive.
            self._beat()
            systemd.notify("WATCHDOG=1")
            now_s = time.monotonic()
            seen = fingerprint(self._settings.box.packs)
            if now_s >= next_packs_s or seen != self._choice_seen:
                self._choice_seen = seen
                self._packs = installed_packs(self._settings)
                next_packs_s = now_s + PACKS_INTERVAL_S
            if now_s >= next_measure_s:
                self._measure()
                next_measure_s = now_s + interval_s
            if now_s >= next_sweep_s or (now_s >= next_short_sweep_s and self._keeper.short()):
                self._sweep()
                next_sweep_s, next_short_sweep_s = now_s + SWEEP_INTERVAL_S, now_s + SHORT_SWEEP_INTERVAL_S
            if now_s >= next_drift_s:
                self._drift()
                next_drift_s = now_s + DRIFT_INTERVAL_S
            if now_s >= next_events_s:
                self._publish_events()
                next_events_s = now_s + min(EVENT_INTERVAL_S, interval_s)
            alerts_under_way = self._publish_alerts()
            if stop.wait(min(wait_s, _ALERTS_WAIT_S) if alerts_under_way else wait_s):
                return

    def _measure(self) -> None:
        connected = None if self._publisher is None else self._publisher.connected
        step_s = self._clock.look(at_least_s=CLOCK_TOLERANCE_S)
        if step_s is not None:
            _log.warning("clock_stepped", seconds=round(step_s, 1))
            self._record(EventKind.CLOCK_STEPPED, seconds=step_s)
        health = measure(
            self._settings, broker_connected=connected, packs=self._packs, clock_stepped_s=self._clock.stepped_s
        )
        self._health = health
        if self._endpoint is not None:
            self._endpoint.collector.update(health)
        if self._publisher is not None:
            self._publisher.publish_health(health.to_payload())
        # Right after a start the others are still coming up; that is published as it is, but it is no event.
        settling = self._condition is None and time.monotonic() < self._settled_at_s
        if health.condition is not self._condition and not (settling and health.condition is not Condition.HEALTHY):
            _log.info("condition", condition=health.condition.value, problems=[item.value for item in health.problems])
            if health.condition is not Condition.HEALTHY and self._condition in {None, Condition.HEALTHY}:
                self._record(EventKind.DEGRADED)
            elif health.condition is Condition.HEALTHY and self._condition is not None:
                self._record(EventKind.RECOVERED)
            self._condition = health.condition

    def _sweep(self) -> None:
        if not self._settings.box.database.exists():
            return
        try:
            with open_database(self._settings.box.database) as store:
                self._keeper.sweep(store)
                store.events.forget(
                    published_before=time.time() - _EVENTS_KEPT_S,
                    happened_before=time.time() - _UNTOLD_EVENTS_KEPT_S,
                    keep=_EVENTS_KEPT,
                )
                if self._publisher is None:
                    store.outbox.withdraw(ChannelKind.MQTT.value, (), NO_LONGER_CONFIGURED)
                store.alerts.forget(
                    acknowledged_before=time.time() - self._settings.retention.alert_days * 86400.0, keep=_ALERTS_KEPT
                )
        except StoreError as error:
            _log.error("disk_not_swept", why=str(error))
        except OSError as error:
            _log.error("disk_not_swept", why=error.strerror)

    def _drift(self) -> None:
        """Make the message of the days that have passed, and give the newest one to the publisher."""
        mqtt, box = self._settings.health.mqtt, self._settings.box
        if self._publisher is None or mqtt is None or not mqtt.drift or not box.database.exists():
            return
        try:
            with open_database(box.database, check=False) as store:
                key_file = box.state_directory / "health" / "drift-key"
                made = make_due(store, self._settings.receive.peers, key_file)
                latest = store.drift.latest()
        except (StoreError, ConfigurationError) as error:
            _log.error("drift_not_made", why=str(error))
            return
        if made is not None:
            _log.info("drift_made", first_day=made.first_day, last_day=made.last_day, groups=len(made.groups))
        if latest is not None and latest.last_day != self._drift_told:
            self._drift_told = latest.last_day
            self._publisher.publish_latest("drift", latest.message.encode())

    def _record(self, kind: EventKind, **numbers: float) -> None:
        """Put an event of the box itself where the scans' events are."""
        try:
            with open_database(self._settings.box.database, check=False) as store:
                store.events.record(kind, numbers=numbers)
        except StoreError as error:
            _log.error("event_not_recorded", kind=kind.value, why=str(error))

    def _publish_events(self) -> None:
        if self._publisher is None or not self._settings.box.database.exists():
            return
        try:
            self._note_acknowledged(self._publisher)
            if not self._publisher.connected:
                return
            with open_database(self._settings.box.database, read_only=True) as store:
                waiting = store.events.waiting(without=self._publisher.refused)
                replies = store.commands.replies(without=self._publisher.refused_of("cmd/reply"))
        except StoreError as error:
            _log.error("events_not_published", why=str(error))
            return
        for event in waiting:
            self._publisher.publish_event(event.id, event_message(event).to_payload())
        for row in replies:
            self._publisher.publish_entry("cmd/reply", row.id, reply_message(row).to_payload())

    def _publish_alerts(self) -> bool:
        """Tell of alerts, and return whether the broker has not acknowledged all of them yet."""
        if self._alerts is None or not self._settings.box.database.exists():
            return False
        try:
            return self._alerts.round()
        except StoreError as error:
            _log.error("alerts_not_published", why=str(error))
            return False

    def _note_acknowledged(self, publisher: Publisher) -> None:
        events, replies = publisher.take_acknowledged("events"), publisher.take_acknowledged("cmd/reply")
        if events or replies:
            with open_database(self._settings.box.database, check=False) as store, store.atomic():
                for event_id in sorted(events):
                    store.events.published(event_id)
                for reply_id in sorted(replies):
                    store.commands.published(reply_id)

    def _beat(self) -> None:
        try:
            self.heartbeat.beat(connected=self._publisher.connected if self._publisher else None)
        except OSError as error:
            _log.error("heartbeat_not_written", error=error.strerror)
