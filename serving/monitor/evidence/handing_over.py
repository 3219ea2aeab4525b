"""Hands over to a file what was kept in memory while there could be none."""

from __future__ import annotations

import sqlite3

from serving.monitor.evidence.pairs import all_pairs, pair_id, transaction
from serving.monitor.evidence.schema import OF_A_TIME

OWN_NUMBER = "id"
"""Counts the rows of one database; those that come from another one follow its own."""


def hand_over(memory: sqlite3.Connection, db: sqlite3.Connection) -> None:
    """Write everything that one database holds into another, in one transaction.

    Of a turn of probing, or scores of the same examples, that both hold, the other's stays.

    Raises:
        sqlite3.Error: The other cannot be written; then nothing of it is there.
    """
    with transaction(db):
        for number, pair in all_pairs(memory):
            there = pair_id(db, pair)
            for table in OF_A_TIME:
                _hand_over(table, memory, number, db, there)


def _hand_over(
    table: str, memory: sqlite3.Connection, number: int, db: sqlite3.Connection, there: int
) -> None:
    columns = [
        name
        for _, name, *_ in memory.execute(f"PRAGMA table_info({table})")
        if name not in ("pair", OWN_NUMBER)
    ]
    named, places = ", ".join(columns), ", ".join("?" * len(columns))
    rows = memory.execute(
        f"SELECT {named} FROM {table} WHERE pair = ? ORDER BY rowid",  # noqa: S608
        (number,),
    )
    db.executemany(
        f"INSERT OR IGNORE INTO {table} (pair, {named}) VALUES ({there}, {places})",  # noqa: S608
        rows,
    )
