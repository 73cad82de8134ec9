"""Keeps one MQTT 5 connection to the fleet's broker and says over it that the box is there and how it is.

The last will and the retained ``state`` make absence visible; a new connection always begins with a birth message,
so that a broker that lost its memory learns everything again. Nothing is queued here: health keeps only the latest
message, and events stay in the durable outbox until the broker has acknowledged them.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from appliance.durable import write_durably
from appliance.errors import ConfigurationError
from appliance.health.model import Presence, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from paho.mqtt.client import Client
    from paho.mqtt.properties import Properties

    from appliance.health.broker import Broker

log = structlog.get_logger()

_QOS = 1
_KEEP_ALIVE_S = 30
_WINDOW = 20
"""Messages that may be on their way at once; a broker with a smaller Receive Maximum (MQTT 5, 3.2.2.3.3) gets fewer."""

_LARGEST_HEARD_BYTES = 16 * 1024


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


class _Connection(NamedTuple):
    """A connection that the broker has accepted."""

    client: Client
    session: int


class _Message(NamedTuple):
    """A message under way: paho's number for it is unique within one connection only."""

    session: int
    mid: int


class _Entry(NamedTuple):
    """What a message tells: its topic, and its key in that topic's outbox."""

    leaf: str
    key: int


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
    def current(self) -> int:
        """The number of the present or last connection."""
        return self._last

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
    """Publishes what this box has to say: retained topics, and entries of outboxes until they are acknowledged.

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
        # No lock of ours is held around calls into paho: it calls back while holding its own.
        self._connection: _Connection | None = None
        self._latest: dict[str, bytes] = {}  # by topic, in the order first given
        self._last_complaint = ""
        self._acknowledged: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._refusals: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._in_flight: dict[_Message, _Entry] = {}
        self._taken: set[_Entry] = set()
        self._listens: tuple[str, ...] = ()
        self._on_heard: Callable[[str, bytes], None] | None = None
        self._window = _WINDOW
        self._refused: set[_Message] = set()
        self._rejected: deque[_Message] = deque(maxlen=_WINDOW)
        self._thread = threading.Thread(target=self._supervise, name="mqtt", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the present connection."""
        return self._connection is not None

    @property
    def refused(self) -> set[int]:
        """Keys of the events that the broker has refused in the present connection; the next one tries them again."""
        return self.refused_of("events")

    def refused_of(self, leaf: str) -> set[int]:
        """Return the keys of a topic's entries that the broker has refused in the present connection."""
        while not self._refusals.empty():
            self._refused.add(self._refusals.get())
        self._refused &= self._in_flight.keys()
        entries = (self._in_flight[message] for message in self._refused)
        return {entry.key for entry in entries if entry.leaf == leaf}

    def listen(self, leaves: Sequence[str], on_heard: Callable[[str, bytes], None]) -> None:
        """Subscribe to topics below this box's own with every connection; call it before :meth:`start`.

        Parameters
        ----------
        leaves
            Such as ``cmd/self-test``.
        on_heard
            Called with topic leaf and payload in the connection's thread; must return at once. Retained messages are
            never given to it: they would be done again with every connection.
        """
        self._listens, self._on_heard = tuple(leaves), on_heard

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def close(self, timeout_s: float = 15.0) -> None:
        """Say ``offline``, wait for the broker's acknowledgement, disconnect and end the thread."""
        self._stop.set()
        connection = self._connection
        if connection is not None:
            farewell = connection.client.publish(*self._state(Presence.OFFLINE, connection.session), retain=True)
            try:
                farewell.wait_for_publish(timeout_s)
            except (RuntimeError, ValueError):
                log.info("farewell_not_sent")
            connection.client.disconnect()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def publish_health(self, payload: bytes) -> None:
        """Publish the latest health, now or at the next connection."""
        self.publish_latest("health", payload)

    def publish_latest(self, leaf: str, payload: bytes) -> None:
        """Publish the latest, retained message of a topic, now and at every connection from then on."""
        # Kept first: a connection that begins in between publishes it too, and twice does no harm.
        self._latest = self._latest | {leaf: payload}
        connection = self._connection
        if connection is not None:
            connection.client.publish(self._broker.topic(leaf), payload, qos=_QOS, retain=True)

    def announce(self) -> bool:
        """Publish the state and the latest message of every retained topic again; return whether that is under way."""
        connection = self._connection
        if connection is None:
            return False
        self._announce(connection.client, connection.session)
        return True

    def _announce(self, client: Client, session: int) -> None:
        client.publish(*self._state(Presence.ONLINE, session), retain=True)
        for leaf, payload in self._latest.items():
            client.publish(self._broker.topic(leaf), payload, qos=_QOS, retain=True)

    def publish_now(self, leaf: str, payload: bytes, *, wait_s: float = 0.0) -> bool:
        """Publish once, without keeping it; return whether the broker has it, or without waiting, whether it goes."""
        connection = self._connection
        if connection is None:
            return False
        sent = connection.client.publish(self._broker.topic(leaf), payload, qos=_QOS)
        if wait_s <= 0.0:
            return True
        try:
            sent.wait_for_publish(wait_s)
            return sent.is_published() and _Message(connection.session, sent.mid) not in self._rejected
        except (RuntimeError, ValueError):
            return False

    def publish_event(self, key: int, payload: bytes) -> bool:
        """Publish one event; see :meth:`publish_entry`."""
        return self.publish_entry("events", key, payload)

    def publish_entry(self, leaf: str, key: int, payload: bytes) -> bool:
        """Publish one entry of an outbox, unless it is under way already or there is no connection.

        Call it and :meth:`take_acknowledged` from one thread.

        Parameters
        ----------
        leaf
            Its topic below the box's.
        key
            Its key in the outbox; :meth:`take_acknowledged` returns it once the broker has it.
        payload
            The message.

        Returns
        -------
        bool
            Whether it is under way.
        """
        connection = self._connection
        if connection is None:
            return False
        entry = _Entry(leaf, key)
        under_way = (known for message, known in self._in_flight.items() if message.session == connection.session)
        if entry not in under_way and entry not in self._taken:
            sent = connection.client.publish(self._broker.topic(leaf), payload, qos=_QOS)
            self._in_flight[_Message(connection.session, sent.mid)] = entry
        return True

    def take_acknowledged(self, leaf: str = "events") -> set[int]:
        """Return a topic's keys that the broker has acknowledged since the last call; until then none is sent again."""
        while not self._acknowledged.empty():
            entry = self._in_flight.pop(self._acknowledged.get(), None)
            if entry is not None:
                self._taken.add(entry)
        session = self._sessions.current
        self._in_flight = {message: entry for message, entry in self._in_flight.items() if message.session == session}
        taken = {entry for entry in self._taken if entry.leaf == leaf}
        self._taken -= taken
        return {entry.key for entry in taken}

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
            client.connect(
                self._broker.settings.host,
                self._broker.settings.port,
                _KEEP_ALIVE_S,
                clean_start=True,
                properties=_connect_properties(),
            )
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
        session = self._sessions.following
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"appliance-{self._broker.box}",
            userdata=session,
            protocol=MQTTv5,
            reconnect_on_failure=False,
        )
        context = self._broker.tls_context()
        if context is not None:
            client.tls_set_context(context)
        if self._broker.settings.username is not None:
            client.username_pw_set(self._broker.settings.username, self._broker.password())
        topic, payload, qos = self._state(Presence.OFFLINE, session)
        client.will_set(topic, payload, qos, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.max_inflight_messages_set(self._window)
        return client

    def _on_connect(self, client: Client, session: int, _flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._complain("broker_refused", str(reason))
            self._ended.set()
            return
        window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
        if window < client.max_inflight_messages:
            # It cannot be changed in a connection, and nothing was said in this one yet.
            log.info("broker_takes_fewer", at_once=window)
            self._window = window
            client.disconnect()
            return
        self._sessions.advance()
        self._last_complaint = ""
        self._announce(client, session)
        self._subscribe(client)
        self._connection = _Connection(client, session)
        log.info("broker_connected", session=session)

    def _subscribe(self, client: Client) -> None:
        from paho.mqtt.subscribeoptions import SubscribeOptions

        never_retained = SubscribeOptions.RETAIN_DO_NOT_SEND
        for leaf in self._listens:
            options = SubscribeOptions(qos=_QOS, noLocal=True, retainHandling=never_retained)
            client.subscribe(self._broker.topic(leaf), options=options)

    def _on_message(self, _client: Client, _session: int, message: Any) -> None:
        leaf = message.topic.removeprefix(self._broker.topic(""))
        if self._on_heard is None or leaf not in self._listens or message.retain:
            return
        self._on_heard(leaf, message.payload)

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        accepted = self._connection is not None
        self._connection = None
        if accepted and not self._stop.is_set():
            self._complain("broker_lost", str(reason))
        elif not self._ended.is_set() and not self._stop.is_set() and reason.is_failure:
            # With TLS 1.3 a broker that does not take our certificate says so only by closing.
            self._complain("broker_refused", "closed before it accepted this box; does it trust its certificate?")
        self._ended.set()

    def _on_publish(self, _client: Client, session: int, mid: int, reason: Any, _properties: Any) -> None:
        # A refused event stays in flight until the connection ends, and in the outbox until it is taken.
        if reason.is_failure:
            self._refusals.put(_Message(session, mid))
            self._rejected.append(_Message(session, mid))
            self._complain("publish_refused", str(reason))
        else:
            self._acknowledged.put(_Message(session, mid))

    def _complain(self, event: str, why: str) -> None:
        """Log a trouble once, not at every attempt."""
        complaint = f"{event} {why}"
        if complaint != self._last_complaint:
            log.warning(event, host=self._broker.settings.host, port=self._broker.settings.port, why=why)
            self._last_complaint = complaint


def _connect_properties() -> Properties:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = _LARGEST_HEARD_BYTES  # what is larger is no command
    return properties
