"""Does what the fleet asks for over MQTT, in a thread of its own, so that nothing measured ever waits for it.

Who may ask is the broker's business: its access rules say who writes below ``appliances/<box>/cmd/``. What is asked is
checked here: one of four commands, an identifier, a time until which it holds. An identifier that was seen before is
never done again, whatever happened to this process in between.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
from pydantic import ValidationError

from appliance import __version__
from appliance.errors import ApplianceError, PackError, StoreError
from appliance.health import diagnostics
from appliance.health.command_model import Code, Command, CommandName, Reply
from appliance.store.commands import Outcome
from appliance.store.database import open_database

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.config import Settings
    from appliance.health.model import Health
    from appliance.store.commands import ReplyRow

_log = structlog.get_logger()

LONGEST_PAYLOAD_BYTES = 4096
LONGEST_VALIDITY_S = 3600.0
# Six in a minute are 360 in the hour for which a command may hold: all of them are among those remembered, see
# appliance.store.commands.COMMANDS_KEPT, so that none can be done twice.
BURST = 6
PER_MINUTE = 6.0
MOST_WAITING = 8
SELF_TEST_WITHIN_S = 900.0
_POLL_S = 0.5
_CLOSE_WITHIN_S = 5.0
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Announcer(Protocol):
    """What commands need of the publisher."""

    def announce(self) -> bool:
        """Publish everything that is retained again."""
        ...

    def publish_now(self, leaf: str, payload: bytes, *, wait_s: float = 0.0) -> bool:
        """Publish once, without keeping it; return whether the broker has it, or without waiting, whether it goes."""
        ...


class RateLimit:
    """Lets a burst pass, then so many a minute.

    Parameters
    ----------
    burst
        How many at once.
    per_minute
        How many become possible again.
    """

    def __init__(self, burst: int, per_minute: float) -> None:
        self._burst, self._per_s = float(burst), per_minute / 60.0
        self._left, self._at_s = self._burst, time.monotonic()

    def take(self) -> bool:
        """Return whether one more may pass now."""
        now_s = time.monotonic()
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class _Asked:
    name: CommandName
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A self-test that the work service does."""

    command_id: str
    number: int
    deadline_s: float


def reply_message(row: ReplyRow) -> Reply:
    """Return an answer as it is published."""
    return Reply(
        id=row.command_id,
        command=CommandName(row.command),
        outcome=row.outcome,
        code=Code(row.code) if row.code else None,
        at=datetime.fromtimestamp(row.at, UTC),
        numbers=row.numbers,
        appliance_version=__version__,
    )


class Commander(threading.Thread):
    """Takes commands from the publisher's thread and does one after the other.

    Answers that must not be lost go into the database, from where the service publishes them; only "not now" is
    answered at once and forgotten, so that a flood fills nothing and such a command may be sent again as it is.

    Parameters
    ----------
    settings
        The whole configuration.
    announcer
        The publisher.
    latest_health
        Gives the latest health, ``None`` before the first.
    """

    def __init__(self, settings: Settings, announcer: Announcer, latest_health: Callable[[], Health | None]) -> None:
        super().__init__(name="commands", daemon=True)
        self._settings = settings
        self._announcer = announcer
        self._latest_health = latest_health
        self._waiting: queue.Queue[_Asked] = queue.Queue(MOST_WAITING)
        self._limit = RateLimit(BURST, PER_MINUTE)
        self._awaited: list[_Awaited] = []
        self._stop_asked = threading.Event()

    def take(self, name: str, payload: bytes) -> None:
        """Take a command from the broker; returns at once, whatever it is."""
        if name not in set(CommandName) or len(payload) > LONGEST_PAYLOAD_BYTES:
            _log.warning("command_not_understood", bytes=len(payload))
            return
        asked = _Asked(CommandName(name), payload)
        if not self._limit.take():
            self._not_now(asked, Code.RATE_LIMITED)
            return
        try:
            self._waiting.put_nowait(asked)
        except queue.Full:
            self._not_now(asked, Code.BUSY)

    def run(self) -> None:
        """Do what is asked until :meth:`close`."""
        self._guarded(self._end_interrupted)
        while not self._stop_asked.is_set():
            try:
                asked = self._waiting.get(timeout=_POLL_S)
            except queue.Empty:
                asked = None
            if asked is not None:
                self._guarded(partial(self._handle, asked))
            self._guarded(self._look_after_self_tests)

    def close(self) -> None:
        """End the thread; what is not done by then is answered as interrupted at the next start."""
        self._stop_asked.set()
        if self.is_alive():
            self.join(_CLOSE_WITHIN_S)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except StoreError as error:
            _log.error("command_not_recorded", why=str(error))

    def _handle(self, asked: _Asked) -> None:
        try:
            command = Command.model_validate_json(asked.payload)
        except ValidationError:
            self._refuse_invalid(asked)
            return
        left_s = command.expires_at.timestamp() - time.time()
        refusal = Code.EXPIRED if left_s <= 0.0 else Code.EXPIRES_TOO_LATE if left_s > LONGEST_VALIDITY_S else None
        if asked.name is CommandName.CHECK_PACKS and self._settings.packs.repository is None:
            refusal = refusal or Code.NOT_CONFIGURED
        with open_database(self._settings.box.database, check=False) as store:
            if refusal is not None:
                if store.commands.refuse(command.id, asked.name.value, refusal.value):
                    _log.info("command_refused", command=asked.name.value, code=refusal.value)
                return
            if not store.commands.accept(command.id, asked.name.value):
                _log.info("command_known", command=asked.name.value)
                return
        _log.info("command_accepted", command=asked.name.value)
        self._do(command.id, asked.name)

    def _refuse_invalid(self, asked: _Asked) -> None:
        _log.warning("command_invalid", command=asked.name.value)
        found = _id_of(asked.payload)
        if found is not None:  # else there is nobody to answer
            with open_database(self._settings.box.database, check=False) as store:
                store.commands.refuse(found, asked.name.value, Code.INVALID.value)

    def _do(self, command_id: str, name: CommandName) -> None:
        try:
            if name is CommandName.SELF_TEST:
                self._ask_for_self_test(command_id)
            elif name is CommandName.DIAGNOSTICS:
                self._send_diagnostics(command_id)
            elif name is CommandName.RE_ANNOUNCE:
                sent = self._announcer.announce()
                self._end(command_id, Outcome.DONE if sent else Outcome.FAILED, None if sent else Code.NOT_SENT)
            else:
                self._check_packs(command_id)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  # a defect of one command must not end the others, and is answered
            why = str(error) if isinstance(error, ApplianceError) else None
            _log.error("command_failed", command=name.value, error=type(error).__name__, why=why)
            self._end(command_id, Outcome.FAILED, Code.INTERNAL)

    def _ask_for_self_test(self, command_id: str) -> None:
        with open_database(self._settings.box.database, check=False) as store:
            number = store.self_tests.ask()
        self._awaited.append(_Awaited(command_id, number, time.monotonic() + SELF_TEST_WITHIN_S))

    def _look_after_self_tests(self) -> None:
        if not self._awaited:
            return
        with open_database(self._settings.box.database, read_only=True) as store:
            rows = {item.number: store.self_tests.get(item.number) for item in self._awaited}
        for item in list(self._awaited):
            row = rows[item.number]
            if row is not None and row.passed is not None and row.failed is not None:
                numbers = {"passed": float(row.passed), "failed": float(row.failed)}
                self._end(item.command_id, Outcome.DONE, numbers=numbers)
            elif row is None or time.monotonic() > item.deadline_s:
                self._end(item.command_id, Outcome.FAILED, Code.TIMED_OUT)
            else:
                continue
            self._awaited.remove(item)

    def _send_diagnostics(self, command_id: str) -> None:
        health = self._latest_health()
        if health is None:
            self._end(command_id, Outcome.FAILED, Code.INTERRUPTED)
            return
        with open_database(self._settings.box.database, read_only=True) as store:
            payload = diagnostics.build(command_id, self._settings, store, health).to_payload()
        if self._announcer.publish_now("diagnostics", payload, wait_s=60.0):
            self._end(command_id, Outcome.DONE, numbers={"bytes": float(len(payload))})
        else:
            self._end(command_id, Outcome.FAILED, Code.NOT_SENT)

    def _check_packs(self, command_id: str) -> None:
        from appliance.packs.rules import Rules
        from appliance.packs.update import look

        repository = self._settings.packs.repository
        if repository is None:
            self._end(command_id, Outcome.FAILED, Code.NOT_CONFIGURED)
            return
        try:
            offers = look(repository.source, repository.root, Rules.from_settings(self._settings))
        except PackError as error:
            _log.warning("packs_not_checked", why=str(error))
            self._end(command_id, Outcome.FAILED, Code.REPOSITORY_FAILED)
            return
        newer = sum(offer.newer for offer in offers)
        self._end(command_id, Outcome.DONE, numbers={"offered": float(len(offers)), "newer": float(newer)})

    def _end(
        self, command_id: str, outcome: Outcome, code: Code | None = None, *, numbers: dict[str, float] | None = None
    ) -> None:
        with open_database(self._settings.box.database, check=False) as store:
            store.commands.end(command_id, outcome, code=code.value if code else None, numbers=numbers)
        _log.info("command_ended", outcome=outcome.value, code=code.value if code else None)

    def _end_interrupted(self) -> None:
        if not self._settings.box.database.exists():
            return
        with open_database(self._settings.box.database, check=False) as store:
            for row in store.commands.unended():
                store.commands.end(row.command_id, Outcome.FAILED, code=Code.INTERRUPTED.value)

    def _not_now(self, asked: _Asked, code: Code) -> None:
        found = _id_of(asked.payload)
        if found is None:
            return
        reply = Reply(
            id=found,
            command=asked.name,
            outcome=Outcome.REFUSED,
            code=code,
            at=datetime.now(UTC),
            numbers={},
            appliance_version=__version__,
        )
        self._announcer.publish_now("cmd/reply", reply.to_payload())


def _id_of(payload: bytes) -> str | None:
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    found = content.get("id") if isinstance(content, dict) else None
    return found if isinstance(found, str) and _ID.fullmatch(found) else None
