"""Opening, checking, mending, upgrading and copying the file."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.errors import StoreError
from appliance.store import database as database_module
from appliance.store import migrations
from appliance.store.database import DatabaseDamagedError, open_database
from appliance.store.events import EventKind
from appliance.store.lifecycle import ScanState
from tests.store.conftest import spooled

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store


def _pragma(store: Store, name: str) -> object:
    return store.rows(f"PRAGMA {name}")[0][name]


def _fill(path: Path, scans: int = 300) -> None:
    with open_database(path) as store:
        for number in range(scans):
            store.associations.see(f"a{number}", at=0.0)
            store.instances.add(f"a{number}", [spooled(1, series=f"1.{number}")])


def _damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def test_commits_survive_a_power_cut(store: Store) -> None:
    assert _pragma(store, "journal_mode") == "wal"
    assert _pragma(store, "synchronous") == 2
    assert _pragma(store, "foreign_keys") == 1


def test_nobody_else_may_read_the_file(store: Store, path: Path) -> None:
    store.events.record(EventKind.STARTED)
    for suffix in ("", "-wal", "-shm"):
        assert path.with_name(path.name + suffix).stat().st_mode & 0o777 == 0o600


def test_the_file_is_marked_as_ours(store: Store) -> None:
    assert _pragma(store, "application_id") == migrations.APPLICATION_ID
    assert _pragma(store, "user_version") == migrations.LATEST


def test_a_newer_schema_is_refused_with_a_sentence(path: Path) -> None:
    open_database(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
    with pytest.raises(StoreError, match="a newer release wrote it"):
        open_database(path)


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="belongs to another program"):
        open_database(path)
    assert path.read_bytes() == before


def test_versions_are_numbered_from_one_without_a_gap() -> None:
    assert [m.version for m in migrations.MIGRATIONS] == list(range(1, migrations.LATEST + 1))


@pytest.mark.parametrize("version", range(1, migrations.LATEST + 1))
def test_an_older_schema_is_upgraded_with_its_rows(path: Path, version: int) -> None:
    path.parent.mkdir()
    with closing(database_module._Database(sqlite3.connect(path, isolation_level=None))) as old:
        migrations.migrate(old, to=version)
        with old.atomic():
            old.execute(
                "INSERT INTO scans (study_instance_uid, series_instance_uid, revision, state, created_at, "
                "last_instance_at) VALUES ('1', '1.1', 1, 'receiving', 0, 0)"
            )
    with open_database(path) as store:
        assert _pragma(store, "user_version") == migrations.LATEST
        assert store.scans.get(1).state is ScanState.RECEIVING
        assert store.events.waiting() == []


@pytest.mark.parametrize("version", [m.version for m in migrations.MIGRATIONS[:-1]])
def test_an_older_schema_is_copied_before_it_is_upgraded(path: Path, version: int) -> None:
    path.parent.mkdir()
    with closing(database_module._Database(sqlite3.connect(path, isolation_level=None))) as old:
        migrations.migrate(old, to=version)
        with old.atomic():
            old.execute(
                "INSERT INTO scans (study_instance_uid, series_instance_uid, revision, state, created_at, "
                "last_instance_at) VALUES ('1', '1.1', 1, 'receiving', 0, 0)"
            )
    open_database(path).close()
    assert {file.name for file in path.parent.glob("*.db")} == {path.name, f"{path.stem}.v{version}.db"}
    with closing(sqlite3.connect(path.with_suffix(f".v{version}.db"))) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (version,)
        assert kept.execute("SELECT series_instance_uid FROM scans").fetchall() == [("1.1",)]


def test_a_database_of_this_release_is_not_copied(path: Path) -> None:
    for _ in range(2):
        open_database(path).close()
    assert [file.name for file in path.parent.glob("*.db")] == [path.name]


def test_a_migration_that_fails_leaves_the_version_before_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(path).close()
    broken = migrations.Migration(migrations.LATEST + 1, "broken", ("CREATE TABLE made (x)", "CREATE TABLE made (x)"))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))
    monkeypatch.setattr(migrations, "LATEST", broken.version)
    with pytest.raises(StoreError, match="already exists"):
        open_database(path)
    monkeypatch.undo()
    with open_database(path) as store:
        assert not store.rows("SELECT 1 FROM sqlite_schema WHERE name = 'made'")


def test_a_damaged_file_is_moved_aside_and_replaced(path: Path) -> None:
    _fill(path)
    _damage(path)
    with open_database(path) as store:
        assert store.moved_aside is not None
        assert store.moved_aside.name.startswith("appliance.db.corrupt-")
        assert store.moved_aside.exists()
        assert store.scans.last() == []
        assert [event.kind for event in store.events.waiting()] == [EventKind.DATABASE_RECOVERED]
    with open_database(path) as store:
        assert store.moved_aside is None


def test_a_file_that_is_no_database_is_moved_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 500)
    with open_database(path) as store:
        assert store.moved_aside is not None


def test_a_truncated_file_is_moved_aside(path: Path) -> None:
    _fill(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)
    with open_database(path) as store:
        assert store.moved_aside is not None


def test_a_log_without_its_database_is_never_replayed(path: Path) -> None:
    with open_database(path) as store:
        store.events.record(EventKind.STARTED)
        log = path.with_name(path.name + "-wal").read_bytes()
    path.unlink()
    path.with_name(path.name + "-wal").write_bytes(log)
    with open_database(path) as store:
        assert [event.kind for event in store.events.waiting()] == [EventKind.DATABASE_RECOVERED]


def test_a_damaged_file_in_use_is_not_pulled_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_S", 0.2)
    _fill(path)
    with open_database(path):
        _damage(path)
        with pytest.raises(DatabaseDamagedError, match="other services still use it"):
            open_database(path)
    assert [p.name for p in path.parent.glob("*.corrupt-*")] == []


def test_damage_met_while_running_is_a_sentence(path: Path) -> None:
    _fill(path)
    with open_database(path) as store:
        _damage(path)
        with pytest.raises(DatabaseDamagedError, match="restart the services"):
            store.scans.last(1000)


def test_read_only_writes_nothing(path: Path, store: Store) -> None:
    with open_database(path, read_only=True) as reader:
        assert reader.scans.last() == []
        with pytest.raises(StoreError, match="readonly"):
            reader.events.record(EventKind.STARTED)


def test_read_only_says_when_there_is_nothing_yet(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database yet"):
        open_database(path, read_only=True)


def test_a_state_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used for the database"):
        open_database(tmp_path / "file" / "appliance.db")


def test_backup_while_writing_is_one_sound_file(path: Path, tmp_path: Path) -> None:
    _fill(path, scans=50)
    copy = tmp_path / "copy.db"
    with open_database(path) as store, open_database(path) as writer:
        writer.events.record(EventKind.STARTED)
        store.backup(copy)
        writer.events.record(EventKind.STARTED)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.db", "state"]
    assert copy.stat().st_mode & 0o777 == 0o600
    with open_database(copy) as restored:
        assert len(restored.scans.last(100)) == 50
        assert len(restored.events.waiting()) == 1


def test_backup_to_a_missing_folder_is_a_sentence(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        store.backup(tmp_path / "missing" / "copy.db")


def test_a_store_belongs_to_its_thread(store: Store) -> None:
    raised = []

    def use() -> None:
        try:
            store.scans.last()
        except StoreError as error:
            raised.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert raised == ["A store is used by the thread that opened it only; open another one."]


def _record_and_fail(store: Store) -> None:
    with store.atomic():
        store.events.record(EventKind.STARTED)
        raise ZeroDivisionError


def _record_many(store: Store, number: int) -> None:
    with store.atomic():
        for _ in range(number):
            store.events.record(EventKind.STARTED)


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        _record_and_fail(store)
    assert store.events.waiting() == []


def test_a_failed_inner_part_can_be_survived(store: Store) -> None:
    with store.atomic():
        store.events.record(EventKind.STARTED)
        with pytest.raises(ZeroDivisionError):
            _record_and_fail(store)
    assert len(store.events.waiting()) == 1


def test_writes_outside_a_transaction_are_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="outside a transaction"):
        store.execute("DELETE FROM events")


def test_full_disk_is_a_sentence(store: Store) -> None:
    store.rows(f"PRAGMA max_page_count = {store.rows('PRAGMA page_count')[0]['page_count']}")
    with pytest.raises(StoreError, match="check the disk"):
        _record_many(store, 5000)
    assert store.events.waiting() == []


def _write_many(path: Path, start: object, number: int) -> None:
    with open_database(path) as store:
        start.wait()  # type: ignore[attr-defined]
        for step in range(40):
            # Reads before it writes, which is what a deferred transaction would fail at.
            with store.atomic():
                count = len(store.outbox.of_scan(0))
                store.outbox.put(f"{number}/{step}/{count}", "test", {})


def test_writers_and_readers_do_not_lock_each_other_out(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    writers = [context.Process(target=_write_many, args=(path, start, n)) for n in range(3)]
    for writer in writers:
        writer.start()
    with open_database(path, read_only=False) as reader:
        start.wait()
        seen = []
        while any(writer.is_alive() for writer in writers):
            seen.append(sum(reader.outbox.counts().values()))
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [0, 0, 0]
        assert seen == sorted(seen)
        assert sum(reader.outbox.counts().values()) == 120


def test_a_killed_writer_leaves_whole_transactions(path: Path) -> None:
    open_database(path).close()
    script = (
        "import sys, pathlib\n"
        "from appliance.store.database import open_database\n"
        "from appliance.store.events import EventKind\n"
        "with open_database(pathlib.Path(sys.argv[1])) as store:\n"
        "    while True:\n"
        "        with store.atomic():\n"
        "            store.events.record(EventKind.STARTED)\n"
        "            store.events.record(EventKind.RECOVERED)\n"
        "        print('.', flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(20):
                process.stdout.readline()
            process.kill()
    with open_database(path) as store:
        kinds = [event.kind for event in store.events.waiting(100_000)]
    assert len(kinds) >= 120
    assert kinds[::2] == [EventKind.STARTED] * (len(kinds) // 2)
    assert kinds[1::2] == [EventKind.RECOVERED] * (len(kinds) // 2)


def test_opening_many_at_once_makes_one_database(path: Path, add_scan: Callable[..., int]) -> None:
    add_scan()
    stores = [open_database(path) for _ in range(5)]
    assert all(len(store.scans.last()) == 1 for store in stores)
    for store in stores:
        store.close()


def test_opening_again_drops_no_lock_of_this_process(path: Path) -> None:
    with open_database(path) as store:
        store.events.record(EventKind.STARTED)
        before = _posix_locks(path)
        open_database(path).close()
        assert _posix_locks(path) == before
    assert before


def _posix_locks(path: Path) -> list[str]:
    """What this process has locked of a file, as the kernel says."""
    inode = path.stat().st_ino
    lines = [line.split()[1:] for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    return sorted(" ".join(line) for line in lines if line[0] == "POSIX" and line[4].endswith(f":{inode}"))


def test_a_momentary_opening_reads_no_more_than_it_must(path: Path) -> None:
    _fill(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 4096)
        file.write(b"\xff" * 4096)
    with open_database(path, check=False) as store:
        assert store.moved_aside is None
    with open_database(path) as store:
        assert store.moved_aside is not None
