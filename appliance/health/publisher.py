"""Keeps one MQTT 5 connection to the fleet's broker and says over it that the box is there and how it is.

The last will and the retained ``state`` make absence visible; a new connection always begins with a birth message,
so that a broker that lost its memory learns everything again. Nothing is queued here: health keeps only the latest
message, and events stay in the durable outbox until the broker has acknowledged them.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from appliance.durable import write_durably
from appliance.errors import ConfigurationError
from appliance.health.model import Presence, State

if TYPE_CHECKING:
    from pathlib import Path

    from paho.mqtt.client import Client

    from appliance.health.broker import Broker

log = structlog.get_logger()

_QOS = 1
_KEEP_ALIVE_S = 30


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait before the next attempt: doubling, with jitter so that a fleet does not return as one.

    Attributes
    ----------
    first_s, longest_s
        Delay after the first failure, and the most.
    """

    first_s: float = 1.0
    longest_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Return the delay after so many failures in a row: between half and all of the doubled one."""
        longest_s = min(self.longest_s, self.first_s * 2.0 ** min(30, max(0, failures - 1)))
        return longest_s * secrets.SystemRandom().uniform(0.5, 1.0)


class SessionCounter:
    """Counts connections across restarts, in a file.

    Parameters
    ----------
    path
        The file; a missing or damaged one counts from the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._last = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            self._last = 0

    @property
    def following(self) -> int:
        """The number of the next connection."""
        return self._last + 1

    def advance(self) -> None:
        """The next connection stands: remember its number before anybody hears of it."""
        self._last += 1
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path, b"%d\n" % self._last)
        except OSError as error:
            # A full disk must not keep the box from telling that its disk is full.
            log.warning("session_counter_not_saved", error=error.strerror)


class Publisher:
    """Publishes ``state``, ``health`` and ``events`` of this box.

    Parameters
    ----------
    broker
        Where to.
    session_file
        Where the number of connections is kept.
    appliance_version
        Told with each birth.
    back_off
        How fast to try again.
    """

    def __init__(
        self, broker: Broker, session_file: Path, appliance_version: str, back_off: BackOff | None = None
    ) -> None:
        self._broker = broker
        self._sessions = SessionCounter(session_file)
        self._version = appliance_version
        self._back_off = back_off or BackOff()
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._latest_health: bytes | None = None
        self._in_flight: dict[int, int] = {}
        self._last_complaint = ""
        self._acknowledged: set[int] = set()
        self._thread = threading.Thread(target=self._supervise, name="mqtt", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the present connection."""
        return self._client is not None

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Say ``offline``, wait for the broker's acknowledgement, disconnect and end the thread."""
        self._stop.set()
        with self._lock:
            client = self._client
        if client is not None:
            farewell = client.publish(*self._state(Presence.OFFLINE, self._sessions.following - 1), retain=True)
            try:
                farewell.wait_for_publish(timeout_s)
            except (RuntimeError, ValueError):
                log.info("farewell_not_sent")
            client.disconnect()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def publish_health(self, payload: bytes) -> None:
        """Publish the latest health, now or at the next connection."""
        with self._lock:
            self._latest_health = payload
            if self._client is not None:
                self._client.publish(self._broker.topic("health"), payload, qos=_QOS, retain=True)

    def publish_event(self, key: int, payload: bytes) -> bool:
        """Publish one event, unless it is under way already or there is no connection.

        Parameters
        ----------
        key
            Its key in the outbox; :meth:`take_acknowledged` returns it once the broker has it.
        payload
            The message.

        Returns
        -------
        bool
            Whether it is under way.
        """
        with self._lock:
            if self._client is None:
                return False
            if key not in self._acknowledged and key not in self._in_flight.values():
                # Under the lock, so that the acknowledgement cannot overtake the note of whose it is.
                message = self._client.publish(self._broker.topic("events"), payload, qos=_QOS)
                self._in_flight[message.mid] = key
            return True

    def take_acknowledged(self) -> set[int]:
        """Return the keys that the broker has acknowledged since the last call; until then they are not sent again."""
        with self._lock:
            taken, self._acknowledged = self._acknowledged, set()
        return taken

    def _state(self, presence: Presence, session: int) -> tuple[str, bytes, int]:
        message = State(state=presence, session=session, appliance_version=self._version)
        return self._broker.topic("state"), message.to_payload(), _QOS

    def _supervise(self) -> None:
        failures = 0
        while not self._stop.is_set():
            failures = 1 if self._connect_once() else failures + 1
            self._stop.wait(self._back_off.delay_s(failures))

    def _connect_once(self) -> bool:
        """Hold one connection until it ends; return whether the broker had accepted it."""
        self._ended.clear()
        before = self._sessions.following
        try:
            client = self._make_client()
            client.connect(self._broker.settings.host, self._broker.settings.port, _KEEP_ALIVE_S, clean_start=True)
        except (OSError, ValueError, ConfigurationError) as error:
            self._complain("broker_unreachable", str(error))
            return False
        client.loop_start()
        if self._stop.is_set():
            client.disconnect()
        else:
            self._ended.wait()
        client.loop_stop()
        return self._sessions.following != before

    def _make_client(self) -> Client:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        # A fresh client for each connection: no message of an earlier one is sent behind our back.
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"appliance-{self._broker.box}",
            protocol=MQTTv5,
            reconnect_on_failure=False,
        )
        context = self._broker.tls_context()
        if context is not None:
            client.tls_set_context(context)
        if self._broker.settings.username is not None:
            client.username_pw_set(self._broker.settings.username, self._broker.password())
        topic, payload, qos = self._state(Presence.OFFLINE, self._sessions.following)
        client.will_set(topic, payload, qos, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._complain("broker_refused", str(reason))
            self._ended.set()
            return
        self._sessions.advance()
        self._last_complaint = ""
        session = self._sessions.following - 1
        with self._lock:
            client.publish(*self._state(Presence.ONLINE, session), retain=True)
            if self._latest_health is not None:
                client.publish(self._broker.topic("health"), self._latest_health, qos=_QOS, retain=True)
            self._client = client
        log.info("broker_connected", session=session)

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        with self._lock:
            accepted = self._client is not None
            self._client = None
            self._in_flight.clear()
        if accepted and not self._stop.is_set():
            self._complain("broker_lost", str(reason))
        elif not self._ended.is_set() and not self._stop.is_set():
            # With TLS 1.3 a broker that does not take our certificate says so only by closing.
            self._complain("broker_refused", "closed before it accepted this box; does it trust its certificate?")
        self._ended.set()

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        with self._lock:
            key = self._in_flight.pop(mid, None)
            if key is not None and not reason.is_failure:
                self._acknowledged.add(key)
        if reason.is_failure:
            self._complain("publish_refused", str(reason))

    def _complain(self, event: str, why: str) -> None:
        """Log a trouble once, not at every attempt."""
        complaint = f"{event} {why}"
        if complaint != self._last_complaint:
            log.warning(event, host=self._broker.settings.host, port=self._broker.settings.port, why=why)
            self._last_complaint = complaint
