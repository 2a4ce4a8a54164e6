"""The least that could do in Python: bare INSERTs by `sqlite3`, and a bare loop that sleeps."""
import sqlite3, time
from driving import calls, count, folder, measure, peak, report, sync

SCHEMA = """
CREATE TABLE job (id INTEGER PRIMARY KEY, service TEXT, function TEXT, args TEXT, state INTEGER, run_at INTEGER);
CREATE INDEX ready ON job (service, run_at, id) WHERE state = 0;"""
INSERT = "INSERT INTO job (service, function, args, state, run_at) VALUES ('events', 'noop', ?, 0, ?) RETURNING id"


def each():
    db = sqlite3.connect(folder / "queue.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={sync}")
    db.executescript(SCHEMA)
    took = calls(lambda number: db.execute(INSERT, (f"[{number},7]", 1_700_000_000_000)).fetchone())
    assert db.execute("SELECT COUNT(*) FROM job").fetchone() == (count,)
    return took


def sleep():
    return calls(lambda number: time.sleep(0.001))


report({"each": each, "sleep": sleep}[measure](), kib=peak())
