"""What the box tells the fleet: numbers, enumerations, versions; no patient identifier fits in these models.

No field takes free text. The few strings are closed vocabularies of this package, versions and digests, and
names that the site's own configuration gives to packs and destinations. The JSON Schemas in ``schemas/`` are
made from these models.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from appliance.reasons import ReasonCode  # noqa: TC001  # pydantic reads the annotations at run time
from appliance.store.announcements import AlertStep  # noqa: TC001
from appliance.store.events import EventKind  # noqa: TC001
from appliance.store.lifecycle import ScanState  # noqa: TC001

Version = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){1,3}([.+-]?[a-z0-9]{1,12}){0,2}$", max_length=32)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
ConfiguredName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")]
NumberName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Mebibytes = Annotated[float, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Message(BaseModel):
    """Base of everything published: no further keys, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def to_payload(self) -> bytes:
        """Return the message as UTF-8 JSON."""
        return self.model_dump_json().encode()


class ServiceName(StrEnum):
    """The services; the board is there only where it is configured."""

    RECEIVE = "receive"
    WORK = "work"
    DELIVER = "deliver"
    HEALTH = "health"
    BOARD = "board"


class ServiceState(StrEnum):
    """What a service's heartbeat says."""

    ALIVE = "alive"
    SILENT = "silent"  # its process exists, its heartbeat is old
    ABSENT = "absent"  # no heartbeat, or the process that wrote it is gone


class SelfTest(StrEnum):
    """Outcome of a pack's self-test."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


class PackTrust(StrEnum):
    """Why a pack may be used."""

    SIGNED = "signed"
    SHIPPED = "shipped"
    UNSIGNED = "unsigned"  # development mode


class PeerRole(StrEnum):
    """What a peer is for."""

    DESTINATION = "destination"
    BROKER = "broker"


class Condition(StrEnum):
    """The box in one word."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"


class Problem(StrEnum):
    """Why the box is not healthy."""

    RECEIVE_ABSENT = "receive_absent"
    WORK_ABSENT = "work_absent"
    DELIVER_ABSENT = "deliver_absent"
    HEALTH_ABSENT = "health_absent"
    BOARD_ABSENT = "board_absent"
    SERVICE_SILENT = "service_silent"
    DISK_LOW = "disk_low"
    DISK_FULL = "disk_full"
    WORK_STALLED = "work_stalled"
    PACK_FAILED = "pack_failed"
    PACK_UNSIGNED = "pack_unsigned"
    PEER_UNREACHABLE = "peer_unreachable"
    CLOCK_WRONG = "clock_wrong"
    STORE_UNREADABLE = "store_unreadable"


class Presence(StrEnum):
    """Whether the box is connected to the broker."""

    ONLINE = "online"
    OFFLINE = "offline"


class State(Message):
    """``appliances/<box>/state``, retained; the last will is the same message with ``offline``."""

    schema_version: Literal[1] = 1
    state: Presence
    session: Count = Field(title="Counts the connections of this box to a broker, across restarts")
    appliance_version: Version


class Machine(Message):
    """The computer."""

    uptime_s: Seconds
    cpu_count: Annotated[int, Field(ge=1)]
    cpu_percent: Percent
    load_1_min: Annotated[float, Field(ge=0)]
    memory_total_mib: Mebibytes
    memory_available_mib: Mebibytes
    temperature_c: Annotated[float, Field(ge=-60, le=200)] | None = Field(title="Hottest sensor; null without one")
    clock_offset_s: float | None = Field(title="Clock minus reference, by chrony; null where chrony does not run")
    clock_synchronised: bool | None = Field(title="Whether the clock follows a time server; null where nobody knows")
    clock_stepped_s: float = Field(title="How far the clock was set since the health service started")


class Disk(Message):
    """The file system of the state directory."""

    total_mib: Mebibytes
    free_mib: Mebibytes
    soft_free_mib: Mebibytes = Field(title="Below this, images of finished scans go early")
    reserve_mib: Mebibytes = Field(title="Below this, the DICOM port refuses associations")


class Service(Message):
    """One of the services."""

    name: ServiceName
    state: ServiceState
    heartbeat_age_s: Seconds | None
    resident_mib: Mebibytes | None
    children_mib: Mebibytes | None = Field(title="Resident size of the processes it has started")
    uptime_s: Seconds | None


class Queue(Message):
    """Scans and what waits to be sent."""

    by_state: dict[ScanState, Count]
    oldest_waiting_s: Seconds | None = Field(title="Age of the oldest scan that is complete and not finished")
    last_finished_age_s: Seconds | None
    outbox_waiting: Count | None
    outbox_parked: Count | None
    outbox_oldest_s: Seconds | None
    clock_behind_s: Seconds = Field(title="How far the clock is behind the newest thing in the database")
    stalled: bool = Field(title="Scans wait and none was finished for health.stalled_after_s")


class Pack(Message):
    """One installed model pack."""

    name: ConfiguredName
    version: Version
    digest: Digest
    self_test: SelfTest
    trust: PackTrust


class Peer(Message):
    """Somebody the box is configured to talk to."""

    name: ConfiguredName
    role: PeerRole
    reachable: bool
    echo: bool | None = Field(title="Whether it answered a C-ECHO; null where none was tried")
    seconds: Seconds | None


class Health(Message):
    """``appliances/<box>/health``, retained, latest only."""

    schema_version: Literal[1] = 1
    measured_at: AwareDatetime
    condition: Condition
    problems: tuple[Problem, ...]
    appliance_version: Version
    python_version: Version
    config_digest: Digest
    machine: Machine
    disk: Disk
    services: tuple[Service, ...]
    queue: Queue | None = Field(title="Null when the database cannot be read")
    packs: tuple[Pack, ...]
    peers: tuple[Peer, ...]


class Event(Message):
    """``appliances/<box>/events``, from the durable outbox; at least once, so the receiver drops an ``id`` it knows."""

    schema_version: Literal[1] = 1
    id: Count = Field(title="Grows with time; unique on this box")
    event: EventKind
    at: AwareDatetime
    scan: Count | None = Field(title="Row number of the scan in this box's database; means nothing elsewhere")
    reason: ReasonCode | None
    numbers: dict[NumberName, float]
    appliance_version: Version


class Alert(Message):
    """``appliances/<box>/alerts``, from the durable outbox; at least once: a known ``id`` and ``step`` is no news."""

    schema_version: Literal[1] = 1
    id: Count = Field(title="Grows with time; the same in every step of one alert; unique on this box")
    step: AlertStep
    at: AwareDatetime = Field(title="When the step happened")
    raised_at: AwareDatetime
    screening: NumberName = Field(title="Name of the screening that found something")
    urgency: Literal["routine", "soon", "urgent"]
    scan: Count = Field(title="Row number of the scan in this box's database; means nothing elsewhere")
    appliance_version: Version


MESSAGES: dict[str, type[Message]] = {"state": State, "health": Health, "events": Event, "alerts": Alert}
