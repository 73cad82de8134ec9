"""Changes reach an open page, whatever happens to the database meanwhile."""

import sqlite3
import time

import pytest

from tests.machine import wait_until


def versions(visitor, wanted, at_most_s=60.0):
    """Read the stream until ``wanted`` is satisfied by the versions so far."""
    seen = []
    deadline = time.monotonic() + at_most_s
    with visitor.client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(line.removeprefix("data: "))
                if wanted(seen):
                    return seen
            assert time.monotonic() < deadline, seen
    return seen


def test_an_alert_changes_the_version(visit, room):
    scan = room.add_scan("A1")
    visitor = visit()
    first = versions(visitor, lambda seen: seen)[0]
    room.raise_alert(scan)
    assert versions(visitor, lambda seen: seen[-1] != first)
    assert "Open alerts: 1" in visitor.get("/").text


def test_beats_come_without_a_change_and_name_nobody(visit, room):
    room.add_scan("A1")
    visitor = visit()
    seen = versions(visitor, lambda seen: len(seen) == 2)
    assert all(version.isdigit() for version in seen)


def test_a_stream_ends_when_its_session_does(visit, room):
    room.add_scan()
    visitor = visit()
    with visitor.client.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        visitor.post("/logout", {})
        assert any(line == "event: ended" for line in lines)


def test_the_service_stops_with_open_pages(visit, room):
    room.add_scan()
    board = room.start()
    visitor = visit(board)
    with visitor.client.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        wait_until(lambda: board.heartbeat().get("pages") == 1, "the page in the heartbeat")
        assert board.stop() == 0
    assert not board.heartbeat()


def test_a_database_that_is_gone_is_told_and_comes_back(visit, room):
    scan = room.add_scan("A1")
    room.raise_alert(scan)
    visitor = visit()
    wait_until(lambda: "Open alerts: 1" in visitor.get("/").text, "the alert")
    aside = room.database.with_name("aside.db")
    for suffix in ("-wal", "-shm"):
        room.database.with_name(room.database.name + suffix).unlink(missing_ok=True)
    room.database.rename(aside)
    wait_until(lambda: visitor.get("/").status_code == 503, "the trouble")
    text = visitor.get("/").text
    assert "THE BOX CANNOT READ ITS RESULTS" in text
    assert "A1" in text  # what was known before stays
    assert visitor.get(f"/scans/{scan}").status_code == 503
    aside.rename(room.database)
    wait_until(lambda: visitor.get("/").status_code == 200, "the database again")


def test_a_damaged_database_is_told(visit, room):
    scan = room.add_scan("A1")
    visitor = visit()
    assert visitor.get(f"/scans/{scan}").status_code == 200
    room.database.write_bytes(b"no database" * 1000)
    for suffix in ("-wal", "-shm"):
        room.database.with_name(room.database.name + suffix).unlink(missing_ok=True)
    wait_until(lambda: visitor.get("/").status_code == 503, "the trouble")
    assert visitor.post("/acknowledge", {"name": "x", "alerts": "1"}).status_code == 503


@pytest.mark.slow
def test_a_locked_database_keeps_no_page_waiting(visit, room):
    scan = room.add_scan("A1")
    (alert,) = room.raise_alert(scan)
    visitor = visit()
    wait_until(lambda: "Open alerts: 1" in visitor.get("/").text, "the alert")
    locker = sqlite3.connect(room.database, isolation_level=None)
    locker.execute("PRAGMA locking_mode = EXCLUSIVE")
    locker.execute("BEGIN EXCLUSIVE")
    try:
        answer = visitor.post("/acknowledge", {"name": "Li Wei", "alerts": str(alert)})
        assert answer.status_code == 503
        assert "could not be recorded" in answer.text
        assert "A1" in visitor.get("/").text
    finally:
        locker.execute("ROLLBACK")
        locker.close()
    wait_until(lambda: visitor.get("/").status_code == 200, "the database again")
