"""The SQLite file: how it is opened, checked, kept from two writers at once, and copied.

Rules: every process and every thread opens its own :class:`Store`; every write happens inside
:meth:`Store.atomic`, which takes the write lock at its beginning, so that no transaction can fail half-way
for want of it; rows leave this room as frozen dataclasses.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import sqlite_utils
import structlog

from appliance.durable import sync
from appliance.errors import StoreError
from appliance.store import migrations
from appliance.store.alerts import Alerts
from appliance.store.announcements import Announcements
from appliance.store.associations import Associations
from appliance.store.commands import Commands
from appliance.store.commitment_requests import CommitmentRequests
from appliance.store.commitments import Commitments
from appliance.store.deliveries import Deliveries
from appliance.store.drift import DriftReports
from appliance.store.events import EventKind, Events
from appliance.store.instances import Instances
from appliance.store.leases import Leases
from appliance.store.outbox import Outbox
from appliance.store.procedure_steps import ProcedureSteps
from appliance.store.recovery import FileLock, damage, move_aside
from appliance.store.results import Results
from appliance.store.scans import Scans
from appliance.store.self_tests import SelfTests

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

_log = structlog.get_logger()

#: A writer waits this long for another one; every transaction here takes milliseconds.
BUSY_S = 30.0


class DatabaseDamagedError(StoreError):
    """The file is damaged; the next service that opens it alone moves it aside and rebuilds."""


class _Database(sqlite_utils.Database):
    """sqlite-utils with transactions that take the write lock when they begin."""

    @contextlib.contextmanager
    def atomic(self) -> Generator[sqlite_utils.Database, None, None]:
        if self.conn.in_transaction:
            with super().atomic():
                yield self
            return
        # A deferred transaction that turns from reading to writing fails at once when another writer came
        # between; BEGIN IMMEDIATE waits instead.
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield self
            self.conn.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise


class Store:
    """One connection to the database, with one attribute per aggregate.

    A store belongs to the thread that opened it. Use :func:`open_database`.

    Attributes
    ----------
    path
        The SQLite file.
    database
        The sqlite-utils database, for this room's own use.
    moved_aside
        Where a damaged file went when this store was opened, else ``None``.
    """

    def __init__(self, path: Path, database: _Database, lock: FileLock | None, moved_aside: Path | None) -> None:
        self.path = path
        self.database = database
        self.moved_aside = moved_aside
        self._lock = lock
        self._owner = (os.getpid(), threading.get_ident())

    @cached_property
    def associations(self) -> Associations:
        """Associations whose instances are in the spool."""
        return Associations(self)

    @cached_property
    def instances(self) -> Instances:
        """Spooled instances."""
        return Instances(self)

    @cached_property
    def scans(self) -> Scans:
        """Scans and their history."""
        return Scans(self)

    @cached_property
    def leases(self) -> Leases:
        """Which worker holds which scan."""
        return Leases(self)

    @cached_property
    def results(self) -> Results:
        """What was found."""
        return Results(self)

    @cached_property
    def outbox(self) -> Outbox:
        """What must still be sent."""
        return Outbox(self)

    @cached_property
    def deliveries(self) -> Deliveries:
        """What a PACS has and what it still waits for."""
        return Deliveries(self)

    @cached_property
    def procedure_steps(self) -> ProcedureSteps:
        """What scanners reported of their procedure steps."""
        return ProcedureSteps(self)

    @cached_property
    def commitment_requests(self) -> CommitmentRequests:
        """Storage commitment that was asked of this box."""
        return CommitmentRequests(self)

    @cached_property
    def commitments(self) -> Commitments:
        """Storage commitment that this box has asked for."""
        return Commitments(self)

    @cached_property
    def alerts(self) -> Alerts:
        """What somebody must look at soon."""
        return Alerts(self)

    @cached_property
    def announcements(self) -> Announcements:
        """What the channels must still be told of alerts."""
        return Announcements(self)

    @cached_property
    def events(self) -> Events:
        """What the fleet must still be told."""
        return Events(self)

    @cached_property
    def drift(self) -> DriftReports:
        """What the distributions of inputs and results are made from, and what was made."""
        return DriftReports(self)

    @cached_property
    def commands(self) -> Commands:
        """What the fleet has asked for, and what it was answered."""
        return Commands(self)

    @cached_property
    def self_tests(self) -> SelfTests:
        """Self-tests of the packs that were asked for."""
        return SelfTests(self)

    @contextlib.contextmanager
    def atomic(self) -> Generator[None, None, None]:
        """Run a block as one transaction; inside another one it becomes part of that.

        Raises
        ------
        StoreError
            Another process held the write lock for too long, the disk is full, or the rows contradict the
            schema.
        DatabaseDamagedError
            The file is damaged.
        """
        self._check_owner()
        with _sentences(self.path), self.database.atomic():
            yield

    def newest_at(self) -> float | None:
        """Return the time of the last thing that was recorded, Unix time."""
        rows = self.rows(
            """
            SELECT max(at) AS at FROM (SELECT at FROM transitions WHERE id = (SELECT max(id) FROM transitions)
                UNION ALL SELECT at FROM events WHERE id = (SELECT max(id) FROM events))
            """
        )
        at: float | None = rows[0]["at"]
        return at

    def row_counts(self) -> dict[str, int]:
        """Return how many rows each table has."""
        names = [name for name in self.database.table_names() if not name.startswith("sqlite_")]
        return {name: int(self.rows(f"SELECT count(*) AS number FROM {name}")[0]["number"]) for name in sorted(names)}

    def rows(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """Return all rows of a query, so that no cursor keeps a read transaction open."""
        self._check_owner()
        with _sentences(self.path):
            cursor = self.database.execute(sql, parameters)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement inside the caller's transaction and return how many rows it changed."""
        if not self.database.conn.in_transaction:
            raise StoreError("A write outside a transaction; wrap it in store.atomic().")
        return int(self.database.execute(sql, parameters).rowcount)

    def insert(self, table: str, row: dict[str, Any]) -> int:
        """Insert a row inside the caller's transaction and return its rowid."""
        names = ", ".join(row)
        marks = ", ".join("?" for _ in row)
        if not self.database.conn.in_transaction:
            raise StoreError("A write outside a transaction; wrap it in store.atomic().")
        # sqlite-utils' own insert looks the table up each time, which costs more than the insert.
        cursor = self.database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
        return int(cursor.lastrowid or 0)

    def backup(self, to: Path) -> None:
        """Copy the database into one file while it is in use, through SQLite's own API.

        Parameters
        ----------
        to
            The copy; it appears complete or not at all, with mode 0600.

        Raises
        ------
        StoreError
            The copy cannot be written or does not pass its check.
        """
        self._check_owner()
        with _sentences(to), _file_sentences(to):
            _copy(self.database.conn, to)

    def close(self) -> None:
        """Close the connection; the last one to close writes the log back into the file."""
        self.database.close()
        if self._lock is not None:
            self._lock.release()

    def _check_owner(self) -> None:
        if self._owner != (os.getpid(), threading.get_ident()):
            raise StoreError("A store is used by the thread that opened it only; open another one.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(path: Path, *, read_only: bool = False, check: bool = True) -> Store:
    """Open the appliance's database, making, checking, mending and upgrading it as needed.

    A damaged file is moved aside as ``<name>.corrupt-<time>`` and an empty one takes its place; the work
    service then rebuilds it from the spool and the results folders (:mod:`appliance.store.rebuild`).

    Parameters
    ----------
    path
        The SQLite file.
    read_only
        For commands that look: the file must exist, and nothing is checked, mended, upgraded or written.
    check
        ``False`` for a service that opens the database for a moment again and again: the whole file is not read each
        time, and damage is met as an error when it is met.

    Raises
    ------
    StoreError
        The file cannot be opened, a newer release wrote it, it belongs to another program, or it is damaged
        while other services still use it.
    """
    if read_only:
        return _open_read_only(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be used for the database: {error.strerror}.") from error
    try:
        with _sentences(path), _file_sentences(path):
            moved = _mend(path, lock, check)
            _create(path)
            database = _connect(path)
            _keep_before_upgrade(database, path)
            migrations.migrate(database)
    except BaseException:
        lock.release()
        raise
    lock.share()
    store = Store(path, database, lock, moved)
    if moved is not None:
        _log.error("database_moved_aside", to=moved.name)
        store.events.record(EventKind.DATABASE_RECOVERED)
    return store


def _keep_before_upgrade(database: _Database, path: Path) -> None:
    """Copy a database with an older schema, so that the release that wrote it can be put back."""
    found = migrations.version(database)
    if found in {0, migrations.LATEST}:
        return
    to = path.with_suffix(f".v{found}.db")
    # While the write lock is held nobody takes the step meanwhile; the copy is read through another connection, because
    # SQLite does not copy through one that may write.
    with database.atomic(), contextlib.closing(sqlite3.connect(path)) as source:
        if migrations.version(database) == found:
            _copy(source, to)
            _log.info("database_kept_before_upgrade", as_file=to.name, schema=found)


def _copy(source: sqlite3.Connection, to: Path) -> None:
    part = to.with_name(to.name + ".part")
    part.unlink(missing_ok=True)
    _create(part)
    with contextlib.closing(sqlite3.connect(part)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    if found := damage(part):
        part.unlink()
        raise StoreError(f"{to}: the backup does not pass SQLite's check ({found}); the database is damaged.")
    sync(part)
    part.replace(to)
    sync(to.parent)


def _mend(path: Path, lock: FileLock, check: bool) -> Path | None:
    alone = check and lock.try_alone()
    if not alone:
        lock.share()
    if not check or not damage(path):
        return None
    if not alone and not lock.alone_within(BUSY_S):
        raise DatabaseDamagedError(
            f"{path}: the database is damaged and other services still use it; restart all of them together "
            "(systemctl restart appliance.target) and it is rebuilt."
        )
    # Somebody else may have mended it while this process waited.
    return move_aside(path) if damage(path) else None


def _open_read_only(path: Path) -> Store:
    if not path.exists():
        raise StoreError(f"{path}: there is no database yet; nothing was received, or the state directory is another.")
    with _sentences(path):
        database = _connect(path, read_only=True)
    if migrations.version(database) < migrations.LATEST:
        raise StoreError(f"{path}: the database is older than this release; start the services once to upgrade it.")
    return Store(path, database, None, None)


def _connect(path: Path, *, read_only: bool = False) -> _Database:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        isolation_level=None,  # no transaction begins unless this room begins it
        timeout=BUSY_S,
    )
    database = _Database(connection, execute_plugins=False)
    database.execute("PRAGMA foreign_keys = ON")
    migrations.check(database)  # before anything in the file is changed
    if not read_only:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")  # a committed transaction survives a power cut
    return database


def _create(path: Path) -> None:
    # Only a file that is not there yet is ever opened here: closing a descriptor of a database would drop the POSIX
    # locks that SQLite holds on it in this process. SQLite gives its -wal and -shm files the mode of the database.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        sync(path.parent)
    path.chmod(0o600)


@contextlib.contextmanager
def _sentences(path: Path) -> Generator[None, None, None]:
    """Turn what SQLite raises into sentences."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise DatabaseDamagedError(
                f"{path}: the database is damaged ({error}); restart the services and it is rebuilt."
            ) from error
        if code in {
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
        }:
            raise StoreError(
                f"{path}: cannot be used ({error}); check the disk's space and health and the file's owner."
            ) from error
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise StoreError(f"{path}: another process kept the write lock longer than {BUSY_S:g} s.") from error
        raise StoreError(f"{path}: {error}.") from error


@contextlib.contextmanager
def _file_sentences(path: Path) -> Generator[None, None, None]:
    """Turn what the file system raises into sentences."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be used: {error.strerror}.") from error
