"""What the fleet may ask of a box and what the box answers: closed words and numbers, as everything on the wire."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from appliance.health.model import Count, Event, Health, Message, NumberName, ServiceName, Version
from appliance.reasons import ReasonCode  # noqa: TC001  # pydantic reads the annotations at run time
from appliance.store.commands import Outcome  # noqa: TC001

CommandId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
EventName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
SettingKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,79}$")]


class CommandName(StrEnum):
    """What a box can be asked for; each is the last part of a topic ``appliances/<box>/cmd/<command>``."""

    SELF_TEST = "self-test"
    DIAGNOSTICS = "diagnostics"
    RE_ANNOUNCE = "re-announce"
    CHECK_PACKS = "check-packs"


class Code(StrEnum):
    """Why a command was refused or failed."""

    INVALID = "invalid"
    EXPIRED = "expired"
    EXPIRES_TOO_LATE = "expires_too_late"
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"
    NOT_CONFIGURED = "not_configured"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    NOT_SENT = "not_sent"
    REPOSITORY_FAILED = "repository_failed"
    INTERNAL = "internal"


class Command(Message):
    """``appliances/<box>/cmd/<command>``, from the fleet, not retained."""

    schema_version: Literal[1] = 1
    id: CommandId = Field(title="A new UUID for each command; one that was seen before is not done again")
    expires_at: AwareDatetime = Field(title="Not done after this; at most an hour from now")


class Reply(Message):
    """``appliances/<box>/cmd/reply``: accepted and then done or failed, or refused; each at most once for an id."""

    schema_version: Literal[1] = 1
    id: CommandId
    command: CommandName
    outcome: Outcome
    code: Code | None
    at: AwareDatetime
    numbers: dict[NumberName, float]
    appliance_version: Version


class LogLevel(StrEnum):
    """How severe a log line is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogLine(Message):
    """What may leave the box of a line of the log: its name, never a sentence."""

    at: AwareDatetime
    service: ServiceName
    level: LogLevel
    event: EventName
    reason: ReasonCode | None
    scan: Count | None
    numbers: dict[NumberName, float]


class Setting(Message):
    """One setting: its value where it is a number or a switch, else only that it is there."""

    key: SettingKey
    value: bool | float | None = Field(title="Null for words, names, addresses, paths and secrets, which stay here")
    count: Count | None = Field(title="How many a list holds")


class Diagnostics(Message):
    """``appliances/<box>/diagnostics``, not retained: what the command of this name asks for, at most 100 KiB."""

    schema_version: Literal[1] = 1
    id: CommandId = Field(title="Of the command")
    at: AwareDatetime
    health: Health
    settings: tuple[Setting, ...]
    rows: dict[NumberName, Count] = Field(title="Rows of each table of the database")
    events: tuple[Event, ...] = Field(title="The last ones, oldest first")
    log_readable: bool = Field(title="Whether the journal could be read")
    log: tuple[LogLine, ...] = Field(title="The last lines of all services, oldest first")
