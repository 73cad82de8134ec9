"""The schema, as numbered steps; a database carries the number of its last step in ``user_version``.

A step that has shipped is never edited: a change is a new step at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import StoreError

if TYPE_CHECKING:
    import sqlite_utils

#: Marks the file as ours (``PRAGMA application_id``): "APLC" in ASCII.
APPLICATION_ID = 0x41504C43


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema.

    Attributes
    ----------
    version
        ``user_version`` after it.
    purpose
        What it is for.
    statements
        SQL, run in one transaction together with the new ``user_version``.
    """

    version: int
    purpose: str
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "associations, their instances, the scans they make and every step of a scan's life",
        (
            """
            CREATE TABLE associations (
                name TEXT PRIMARY KEY,
                first_seen_at REAL NOT NULL,
                closed_reason TEXT,
                closed_at REAL,
                indexed INTEGER NOT NULL DEFAULT 0,
                pruned_at REAL
            ) STRICT
            """,
            """
            CREATE TABLE scans (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                study_instance_uid TEXT NOT NULL,
                series_instance_uid TEXT NOT NULL,
                revision INTEGER NOT NULL CHECK (revision >= 1),
                accession_number TEXT NOT NULL DEFAULT '',
                modality TEXT NOT NULL DEFAULT '',
                state TEXT NOT NULL CHECK (state IN (
                    'receiving', 'complete', 'planned', 'screening', 'screened',
                    'delivering', 'done', 'refused', 'failed', 'parked')),
                completion_reason TEXT,
                reason_code TEXT,
                reason_text TEXT,
                instances INTEGER NOT NULL DEFAULT 0,
                slices INTEGER,
                attempts INTEGER NOT NULL DEFAULT 0,
                lease_owner TEXT,
                lease_deadline REAL,
                created_at REAL NOT NULL,
                last_instance_at REAL NOT NULL,
                completed_at REAL,
                finished_at REAL,
                UNIQUE (study_instance_uid, series_instance_uid, revision),
                CHECK ((lease_owner IS NULL) = (lease_deadline IS NULL)),
                CHECK (lease_owner IS NULL OR state IN ('complete', 'planned', 'screening')),
                CHECK (state NOT IN ('refused', 'failed', 'parked') OR reason_code IS NOT NULL)
            ) STRICT
            """,
            # One revision of a series receives at a time; what comes after it completed opens the next one.
            """
            CREATE UNIQUE INDEX scans_receiving ON scans (study_instance_uid, series_instance_uid)
                WHERE state = 'receiving'
            """,
            "CREATE INDEX scans_state ON scans (state, completed_at)",
            "CREATE INDEX scans_accession ON scans (accession_number) WHERE accession_number != ''",
            "CREATE INDEX scans_series ON scans (series_instance_uid)",
            """
            CREATE TABLE instances (
                id INTEGER PRIMARY KEY,
                association TEXT NOT NULL REFERENCES associations (name),
                name TEXT NOT NULL,
                disposition TEXT NOT NULL CHECK (disposition IN (
                    'used', 'duplicate', 'conflicting', 'unreadable')),
                reason_code TEXT,
                reason_text TEXT,
                scan_id INTEGER REFERENCES scans (id),
                sop_instance_uid TEXT,
                sop_class_uid TEXT,
                bytes INTEGER NOT NULL,
                digest TEXT NOT NULL,
                received_at REAL NOT NULL,
                UNIQUE (association, name),
                CHECK (disposition = 'unreadable' OR (scan_id IS NOT NULL AND sop_instance_uid IS NOT NULL))
            ) STRICT
            """,
            "CREATE UNIQUE INDEX instances_used ON instances (sop_instance_uid) WHERE disposition = 'used'",
            "CREATE INDEX instances_scan ON instances (scan_id)",
            """
            CREATE TABLE transitions (
                id INTEGER PRIMARY KEY,
                scan_id INTEGER NOT NULL REFERENCES scans (id),
                from_state TEXT,
                to_state TEXT NOT NULL,
                at REAL NOT NULL,
                cause TEXT NOT NULL,
                reason_code TEXT,
                reason_text TEXT
            ) STRICT
            """,
            "CREATE INDEX transitions_scan ON transitions (scan_id)",
        ),
    ),
    Migration(
        2,
        "what was found",
        (
            """
            CREATE TABLE results (
                scan_id INTEGER PRIMARY KEY REFERENCES scans (id),
                report TEXT NOT NULL CHECK (json_valid(report)),
                folder TEXT NOT NULL,
                appliance_version TEXT NOT NULL,
                config_digest TEXT NOT NULL,
                total_s REAL,
                saved_at REAL NOT NULL
            ) STRICT
            """,
            """
            CREATE TABLE screenings (
                scan_id INTEGER NOT NULL REFERENCES results (scan_id),
                position INTEGER NOT NULL,
                name TEXT NOT NULL,
                status TEXT NOT NULL,
                urgency TEXT NOT NULL,
                reason_code TEXT,
                reason_text TEXT,
                seconds REAL NOT NULL,
                summary TEXT NOT NULL,
                PRIMARY KEY (scan_id, name)
            ) STRICT, WITHOUT ROWID
            """,
            """
            CREATE TABLE measurements (
                id INTEGER PRIMARY KEY,
                scan_id INTEGER NOT NULL,
                screening TEXT NOT NULL,
                name TEXT NOT NULL,
                value REAL NOT NULL,
                unit TEXT NOT NULL,
                site TEXT,
                code TEXT,
                FOREIGN KEY (scan_id, screening) REFERENCES screenings (scan_id, name)
            ) STRICT
            """,
            "CREATE INDEX measurements_name ON measurements (name, scan_id)",
            "CREATE INDEX measurements_scan ON measurements (scan_id, screening)",
            """
            CREATE TABLE findings (
                id INTEGER PRIMARY KEY,
                scan_id INTEGER NOT NULL,
                screening TEXT NOT NULL,
                code TEXT NOT NULL,
                meaning TEXT NOT NULL,
                site TEXT NOT NULL,
                box_mm TEXT NOT NULL,
                key_slice_sop_instance_uid TEXT,
                FOREIGN KEY (scan_id, screening) REFERENCES screenings (scan_id, name)
            ) STRICT
            """,
            "CREATE INDEX findings_scan ON findings (scan_id, screening)",
            """
            CREATE TABLE key_images (
                scan_id INTEGER NOT NULL REFERENCES results (scan_id),
                file TEXT NOT NULL,
                PRIMARY KEY (scan_id, file)
            ) STRICT, WITHOUT ROWID
            """,
        ),
    ),
    Migration(
        3,
        "what must still be sent, and what the fleet must still be told",
        (
            """
            CREATE TABLE outbox (
                id INTEGER PRIMARY KEY,
                key TEXT NOT NULL UNIQUE,
                kind TEXT NOT NULL,
                destination TEXT NOT NULL,
                scan_id INTEGER REFERENCES scans (id),
                payload TEXT NOT NULL CHECK (json_valid(payload)),
                state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'parked')),
                attempts INTEGER NOT NULL DEFAULT 0,
                reason TEXT,
                created_at REAL NOT NULL,
                next_try_at REAL NOT NULL,
                finished_at REAL
            ) STRICT
            """,
            "CREATE INDEX outbox_due ON outbox (kind, next_try_at) WHERE state = 'waiting'",
            "CREATE INDEX outbox_scan ON outbox (scan_id)",
            """
            CREATE TABLE events (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                kind TEXT NOT NULL,
                at REAL NOT NULL,
                scan_id INTEGER,
                reason_code TEXT,
                numbers TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(numbers)),
                published_at REAL
            ) STRICT
            """,
            "CREATE INDEX events_waiting ON events (id) WHERE published_at IS NULL",
        ),
    ),
    Migration(
        4,
        "what of a delivery the receiver has confirmed, and what a parked one waits for",
        (
            "ALTER TABLE outbox ADD COLUMN parked_for TEXT",
            "ALTER TABLE outbox ADD COLUMN parked_with TEXT",
            """
            CREATE TABLE confirmed_objects (
                outbox_key TEXT NOT NULL REFERENCES outbox (key),
                sop_instance_uid TEXT NOT NULL,
                status INTEGER NOT NULL,
                confirmed_at REAL NOT NULL,
                PRIMARY KEY (outbox_key, sop_instance_uid)
            ) STRICT, WITHOUT ROWID
            """,
        ),
    ),
    Migration(
        5,
        "alerts, what a command said of them, and what of the outbox goes first",
        (
            """
            CREATE TABLE alerts (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                scan_id INTEGER NOT NULL REFERENCES scans (id),
                screening TEXT NOT NULL,
                urgency TEXT NOT NULL CHECK (urgency IN ('routine', 'soon', 'urgent')),
                raised_at REAL NOT NULL,
                waited_s REAL NOT NULL DEFAULT 0,
                state TEXT NOT NULL CHECK (state IN ('open', 'escalated', 'acknowledged')),
                escalated_at REAL,
                acknowledged_at REAL,
                acknowledged_by TEXT,
                UNIQUE (scan_id, screening),
                CHECK (state <> 'escalated' OR escalated_at IS NOT NULL),
                CHECK ((state = 'acknowledged') = (acknowledged_at IS NOT NULL)),
                CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL))
            ) STRICT
            """,
            "CREATE INDEX alerts_unacknowledged ON alerts (id) WHERE state <> 'acknowledged'",
            """
            CREATE TABLE alert_commands (
                id INTEGER PRIMARY KEY,
                alert_id INTEGER NOT NULL REFERENCES alerts (id),
                step TEXT NOT NULL CHECK (step IN ('raised', 'escalated', 'acknowledged')),
                ran_at REAL NOT NULL,
                seconds REAL NOT NULL,
                outcome TEXT NOT NULL CHECK (outcome IN ('exited', 'killed', 'timed_out', 'not_started')),
                exit_status INTEGER,
                CHECK ((outcome = 'exited') = (exit_status IS NOT NULL))
            ) STRICT
            """,
            "CREATE INDEX alert_commands_alert ON alert_commands (alert_id)",
            "ALTER TABLE outbox ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
        ),
    ),
    Migration(
        6,
        "procedure steps that scanners report, and storage commitment asked of this box and by it",
        (
            """
            CREATE TABLE procedure_steps (
                sop_instance_uid TEXT PRIMARY KEY,
                peer_ae_title TEXT NOT NULL,
                status TEXT NOT NULL CHECK (status IN ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')),
                changed_at REAL NOT NULL
            ) STRICT
            """,
            """
            CREATE TABLE performed_series (
                procedure_step TEXT NOT NULL REFERENCES procedure_steps (sop_instance_uid) ON DELETE CASCADE,
                series_instance_uid TEXT NOT NULL,
                images TEXT NOT NULL CHECK (json_valid(images)),
                PRIMARY KEY (procedure_step, series_instance_uid)
            ) STRICT, WITHOUT ROWID
            """,
            "CREATE INDEX performed_series_series ON performed_series (series_instance_uid)",
            """
            CREATE TABLE commitment_requests (
                id INTEGER PRIMARY KEY,
                name TEXT NOT NULL UNIQUE,
                peer_ae_title TEXT NOT NULL,
                peer_address TEXT NOT NULL,
                transaction_uid TEXT NOT NULL,
                instances TEXT NOT NULL CHECK (json_valid(instances)),
                state TEXT NOT NULL CHECK (state IN ('waiting', 'decided', 'reported', 'given_up')),
                attempts INTEGER NOT NULL DEFAULT 0,
                reason TEXT,
                received_at REAL NOT NULL,
                next_try_at REAL NOT NULL,
                finished_at REAL
            ) STRICT
            """,
            "CREATE INDEX commitment_requests_state ON commitment_requests (state, next_try_at)",
            "CREATE INDEX commitment_requests_transaction ON commitment_requests (transaction_uid)",
            """
            CREATE TABLE commitments (
                transaction_uid TEXT PRIMARY KEY,
                outbox_key TEXT NOT NULL REFERENCES outbox (key),
                state TEXT NOT NULL CHECK (state IN ('asked', 'committed', 'failed', 'expired')),
                objects TEXT NOT NULL CHECK (json_valid(objects)),
                failures TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(failures)),
                counts INTEGER NOT NULL DEFAULT 1,
                asked_at REAL NOT NULL,
                deadline REAL NOT NULL,
                finished_at REAL
            ) STRICT
            """,
            "CREATE INDEX commitments_outbox ON commitments (outbox_key)",
            """
            CREATE TABLE committed_objects (
                outbox_key TEXT NOT NULL REFERENCES outbox (key),
                sop_instance_uid TEXT NOT NULL,
                committed_at REAL NOT NULL,
                PRIMARY KEY (outbox_key, sop_instance_uid)
            ) STRICT, WITHOUT ROWID
            """,
        ),
    ),
    Migration(
        7,
        "who sent a series, what the fleet was told of drift, and what it has asked the box to do",
        (
            "ALTER TABLE associations ADD COLUMN calling_ae_title TEXT",
            "CREATE INDEX results_saved ON results (saved_at)",
            "CREATE INDEX scans_finished ON scans (finished_at)",
            """
            CREATE TABLE drift_reports (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                first_day TEXT NOT NULL,
                last_day TEXT NOT NULL UNIQUE,
                made_at REAL NOT NULL,
                message TEXT NOT NULL CHECK (json_valid(message)),
                CHECK (first_day <= last_day)
            ) STRICT
            """,
            """
            CREATE TABLE commands (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                command_id TEXT NOT NULL UNIQUE,
                command TEXT NOT NULL,
                accepted_at REAL NOT NULL,
                ended_at REAL
            ) STRICT
            """,
            """
            CREATE TABLE command_replies (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                command_id TEXT NOT NULL REFERENCES commands (command_id) ON DELETE CASCADE,
                outcome TEXT NOT NULL CHECK (outcome IN ('accepted', 'done', 'failed', 'refused')),
                code TEXT,
                numbers TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(numbers)),
                at REAL NOT NULL,
                published_at REAL,
                UNIQUE (command_id, outcome)
            ) STRICT
            """,
            "CREATE INDEX command_replies_waiting ON command_replies (id) WHERE published_at IS NULL",
            """
            CREATE TABLE self_tests (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                asked_at REAL NOT NULL,
                began_at REAL,
                ended_at REAL,
                passed INTEGER,
                failed INTEGER,
                CHECK ((ended_at IS NULL) = (passed IS NULL) AND (passed IS NULL) = (failed IS NULL))
            ) STRICT
            """,
        ),
    ),
    Migration(
        8,
        "which kinds of DICOM objects of a result could not be made",
        (
            """
            CREATE TABLE missing_objects (
                scan_id INTEGER NOT NULL REFERENCES results (scan_id),
                kind TEXT NOT NULL,
                error TEXT NOT NULL,
                place TEXT NOT NULL,
                PRIMARY KEY (scan_id, kind)
            ) STRICT, WITHOUT ROWID
            """,
        ),
    ),
)

LATEST = MIGRATIONS[-1].version


def version(database: sqlite_utils.Database) -> int:
    """Return the number of the last step that the database has taken."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def check(database: sqlite_utils.Database) -> None:
    """Refuse a file that is not ours or that a newer release wrote.

    Raises
    ------
    StoreError
        The database belongs to another program or has a newer schema.
    """
    marked = int(database.execute("PRAGMA application_id").fetchone()[0])
    if marked != APPLICATION_ID and (marked or version(database) or database.table_names()):
        raise StoreError(
            "The database file belongs to another program (its application_id is not the appliance's); "
            "set box.state_directory to a folder of the appliance's own."
        )
    if version(database) > LATEST:
        raise StoreError(
            f"The database has schema {version(database)} and this release knows schemas up to {LATEST}: "
            "a newer release wrote it. Install that release again, or stop the services and put the copy that the "
            "update has left beside the database (appliance.v<schema>.db) in its place."
        )


def migrate(database: sqlite_utils.Database, *, to: int | None = None) -> None:
    """Take every step that the database has not taken yet, each in one transaction.

    Parameters
    ----------
    database
        One whose ``atomic`` takes the write lock, so that two processes cannot take the same step.
    to
        Last step to take; all of them by default.

    Raises
    ------
    StoreError
        See :func:`check`.
    """
    check(database)
    for migration in MIGRATIONS:
        if to is not None and migration.version > to:
            break
        with database.atomic():
            if version(database) >= migration.version:
                continue
            for statement in migration.statements:
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {migration.version}")
