"""One file, one process, one schema; whatever is not that is refused in words."""

import os
import sqlite3
from pathlib import Path

import pytest

from serving.monitor.evidence import schema, writing
from serving.monitor.evidence.schema import (
    FILE,
    MIGRATIONS,
    SCHEMA_VERSION,
    CannotKeep,
    FileInUse,
    open_file,
)
from tests.unit.monitor.evidence.pieces import PAIR, PROBE_SET, STEP, live


def close(opened: tuple[sqlite3.Connection, int]) -> None:
    db, lock = opened
    db.close()
    os.close(lock)


def write_some(folder: Path) -> Path:
    """A file with something in it; returns its path."""
    db, lock = open_file(folder)
    for _ in range(50):
        writing.add_live(db, 1.0, PAIR, PROBE_SET, live(), 0)
    writing.add_step(db, 1.0, PAIR, PROBE_SET, STEP)
    close((db, lock))
    return folder / FILE


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = write_some(tmp_path / "new" / "folder")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_one_process_has_it_at_a_time(tmp_path: Path) -> None:
    opened = open_file(tmp_path)
    with pytest.raises(FileInUse, match=r"evidence\.folder of its own"):
        open_file(tmp_path)
    # Whoever looks with SQLite's own tools may read.
    with sqlite3.connect(tmp_path / FILE) as reader:
        assert reader.execute("SELECT count(*) FROM pairs").fetchone() == (0,)
    reader.close()
    close(opened)
    close(open_file(tmp_path))


def test_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = write_some(tmp_path)
    with sqlite3.connect(file) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    before = file.read_bytes()
    with pytest.raises(CannotKeep, match=rf"{FILE}: is of version 2.*reads up to 1"):
        open_file(tmp_path)
    assert file.read_bytes() == before


def test_an_earlier_version_is_brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_some(tmp_path)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    change = "ALTER TABLE pairs ADD COLUMN note TEXT; UPDATE pairs SET note = 'old';"
    monkeypatch.setitem(MIGRATIONS, SCHEMA_VERSION, change)
    db, lock = open_file(tmp_path)
    assert db.execute("SELECT note FROM pairs").fetchall() == [("old",)]
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    close((db, lock))


def test_another_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("CREATE TABLE somebody_elses (x)")
    db.close()
    with pytest.raises(CannotKeep, match="no file of evidence"):
        open_file(tmp_path)


def test_a_damaged_file_is_refused_and_its_lock_given_back(tmp_path: Path) -> None:
    file = write_some(tmp_path)
    content = bytearray(file.read_bytes())
    content[4_096:-4_096] = b"\xa5" * (len(content) - 8_192)
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(CannotKeep, match=FILE):
            open_file(tmp_path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("a letter " * 1_000)
    with pytest.raises(CannotKeep, match=f"{FILE}: cannot be used: file is not a database"):
        open_file(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(CannotKeep, match=f"taken/{FILE}: cannot be used: File exists"):
        open_file(tmp_path / "taken")
