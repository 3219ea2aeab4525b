"""The tables of evidence, and opening the file that holds them."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from serving.artifacts.exclusive_lock import try_lock

FILE = "evidence.sqlite3"
LOCK = "evidence.lock"

APPLICATION_ID = 0x71_73_65_76
"""Tells the file apart from other SQLite files: "qsev"."""

SCHEMA_VERSION = 1
"""Raised whenever a table changes, together with an entry in ``MIGRATIONS``."""

MIGRATIONS: dict[int, str] = {}
"""By version, the statements that make the next one of it."""

TABLES = """
CREATE TABLE pairs (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, variant TEXT NOT NULL, artifact TEXT NOT NULL,
    reference TEXT NOT NULL, reference_artifact TEXT NOT NULL, max_tokens INTEGER NOT NULL,
    UNIQUE (model, variant, artifact, reference, reference_artifact, max_tokens));
CREATE TABLE probe_steps (
    pair INTEGER NOT NULL REFERENCES pairs, probe_set TEXT NOT NULL, number INTEGER NOT NULL,
    at REAL NOT NULL, answered INTEGER NOT NULL, comparisons TEXT NOT NULL, seconds REAL,
    width INTEGER, answers BLOB, PRIMARY KEY (pair, probe_set, number));
CREATE TABLE live_samples (
    id INTEGER PRIMARY KEY, pair INTEGER NOT NULL REFERENCES pairs, probe_set TEXT NOT NULL,
    at REAL NOT NULL, agreement REAL NOT NULL, measures TEXT NOT NULL, input TEXT);
CREATE INDEX live_by_pair ON live_samples (pair, probe_set);
CREATE INDEX live_inputs ON live_samples (pair, agreement) WHERE input IS NOT NULL;
CREATE TABLE label_scores (
    pair INTEGER NOT NULL REFERENCES pairs, data_set TEXT NOT NULL, first INTEGER NOT NULL,
    at REAL NOT NULL, scores TEXT NOT NULL, PRIMARY KEY (pair, data_set, first));
CREATE TABLE label_reports (
    id INTEGER PRIMARY KEY, pair INTEGER NOT NULL REFERENCES pairs, data_set TEXT NOT NULL,
    at REAL NOT NULL, report TEXT NOT NULL);
CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY, pair INTEGER NOT NULL REFERENCES pairs, at REAL NOT NULL,
    verdict TEXT NOT NULL, reason TEXT NOT NULL, in_auto INTEGER NOT NULL, origins TEXT NOT NULL,
    labels TEXT);
CREATE INDEX verdicts_by_time ON verdicts (at);
"""
"""Times are seconds since 1970; what has a shape of its own is JSON; a ``max_tokens`` of 0 is none;
``answers`` are float32 (answered, width), little-endian."""

OF_A_TIME = ("probe_steps", "live_samples", "label_scores", "label_reports", "verdicts")
"""Tables whose rows are forgotten when they are too old."""


class CannotKeep(Exception):
    """Evidence cannot be kept in its folder; the message names the file, and says why."""


class FileInUse(CannotKeep):
    """Another process has the file open."""


def open_file(folder: Path) -> tuple[sqlite3.Connection, int]:
    """Open the file of a folder for this process alone; both are made if they are missing.

    Returns:
        The connection, and the handle of the lock, which holds as long as it is open.

    Raises:
        CannotKeep: The folder cannot be written, another process has the file open, or it is
            damaged, of a later version or something else.
    """
    file = folder / FILE
    lock = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(folder / LOCK)
        if lock is None:
            raise FileInUse(
                f"{file}: another quality process has it open; give each service an "
                "evidence.folder of its own"
            )
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # not for others to read
        return connect(str(file)), lock
    except (OSError, sqlite3.Error, CannotKeep) as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, CannotKeep):
            raise
        why = error.strerror if isinstance(error, OSError) else error
        raise CannotKeep(f"{file}: cannot be used: {why}") from None


def open_memory() -> sqlite3.Connection:
    """The same tables, empty, in memory."""
    return connect(":memory:")


def connect(place: str) -> sqlite3.Connection:
    """Open a database, and make its tables or bring them to ``SCHEMA_VERSION``.

    Raises:
        CannotKeep: It is damaged, of a later version or something else.
        sqlite3.Error: It cannot be read or written.
    """
    # Each call is one transaction of its own, begun by hand; any one thread at a time may use it.
    connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, place)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, place: str) -> None:
    is_new = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not is_new and application != APPLICATION_ID:
        raise CannotKeep(f"{place}: is no file of evidence; name another evidence.folder")
    if version > SCHEMA_VERSION:
        raise CannotKeep(
            f"{place}: is of version {version}, made by a later quantserve; this one reads up to "
            f"{SCHEMA_VERSION}. Name another evidence.folder, or go back to the later one"
        )
    if not is_new and (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise CannotKeep(f"{place}: is damaged ({found}); move it away to begin a new one")
    # Forgotten inputs are overwritten, and freed pages go back to the file system.
    connection.execute("PRAGMA secure_delete = ON")
    if is_new:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # A transaction survives the process without this, and a power cut only with it: what it could
    # lose then are the last few samples, and no order among them.
    connection.execute("PRAGMA synchronous = NORMAL")
    if is_new or version < SCHEMA_VERSION:
        older = range(version, SCHEMA_VERSION)
        changes = TABLES if is_new else " ".join(MIGRATIONS[number] for number in older)
        connection.executescript(
            f"BEGIN IMMEDIATE; {changes} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
