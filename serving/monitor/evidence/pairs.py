"""Pairs by their number in the database, and transactions on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from serving.monitor.evidence.records import JudgedPair


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """What the block writes is there whole or not at all."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def known_pair(db: sqlite3.Connection, pair: JudgedPair) -> int | None:
    """Number of a pair; None if there is nothing of it."""
    found = db.execute(
        "SELECT id FROM pairs WHERE model = ? AND variant = ? AND artifact = ? AND "
        "reference = ? AND reference_artifact = ? AND max_tokens = ?",
        _values(pair),
    ).fetchone()
    return None if found is None else int(found[0])


def all_pairs(db: sqlite3.Connection) -> list[tuple[int, JudgedPair]]:
    """Number and pair of all that there is something of."""
    found = db.execute(
        "SELECT id, model, variant, artifact, reference, reference_artifact, max_tokens FROM pairs"
    )
    return [
        (number, JudgedPair(model, variant, artifact, reference, of_reference, max_tokens or None))
        for number, model, variant, artifact, reference, of_reference, max_tokens in found
    ]


def pair_id(db: sqlite3.Connection, pair: JudgedPair) -> int:
    """Number of a pair, which is added if it is new."""
    known = known_pair(db, pair)
    if known is not None:
        return known
    added = db.execute(
        "INSERT INTO pairs (model, variant, artifact, reference, reference_artifact, max_tokens) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        _values(pair),
    )
    assert added.lastrowid is not None
    return added.lastrowid


def _values(pair: JudgedPair) -> tuple[str | int, ...]:
    return (
        *(pair.model, pair.variant, pair.artifact, pair.reference, pair.reference_artifact),
        pair.max_tokens or 0,
    )
