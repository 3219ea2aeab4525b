"""Forgets evidence that is too old, and inputs that may not be kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from serving.monitor.evidence.pairs import transaction
from serving.quality.samples import MAX_WORST

AT_ONCE = 1_000
"""Rows of one transaction: whoever wants to write waits for it."""

LAST_VERDICTS = (
    "SELECT max(verdicts.id) FROM verdicts JOIN pairs ON pairs.id = pair GROUP BY model, variant"
)

_OLD = (
    "SELECT {table}.rowid FROM {table} JOIN pairs ON pairs.id = pair "
    "WHERE model = ? AND at < ? LIMIT ?"
)

OLD_ROWS = {
    table: _OLD.format(table=table)
    for table in ("probe_steps", "live_samples", "label_scores", "label_reports")
} | {
    "verdicts": _OLD.format(table="verdicts").replace(
        "LIMIT", f"AND verdicts.id NOT IN ({LAST_VERDICTS}) LIMIT"
    )
}
"""What finds a model's rows of each table that are older than a time."""

PAIRS_IN_USE = " UNION ".join(f"SELECT pair FROM {table}" for table in OLD_ROWS)  # noqa: S608


def forget_old(db: sqlite3.Connection, before: Mapping[str, float]) -> None:
    """Forget what is too old, except the last verdict of each variant.

    Args:
        db: The database.
        before: By model, the time in seconds since 1970 whose elders go. Of models that are not in
            it the earliest of these times.
    """
    for (model,) in db.execute("SELECT DISTINCT model FROM pairs").fetchall():
        oldest = before.get(model, min(before.values()))
        for table, find in OLD_ROWS.items():
            forgotten = AT_ONCE
            while forgotten == AT_ONCE:
                with transaction(db):
                    forgotten = db.execute(
                        f"DELETE FROM {table} WHERE rowid IN ({find})",  # noqa: S608
                        (model, oldest, AT_ONCE),
                    ).rowcount
    with transaction(db):
        db.execute(f"DELETE FROM pairs WHERE id NOT IN ({PAIRS_IN_USE})")  # noqa: S608
    db.execute("PRAGMA incremental_vacuum").fetchall()


def forget_inputs(db: sqlite3.Connection, keep: Mapping[str, int]) -> None:
    """Forget inputs beyond what is allowed by now: so many by model, of all others none."""
    for (model,) in db.execute("SELECT DISTINCT model FROM pairs").fetchall():
        with transaction(db):
            forget_inputs_of(db, model, keep.get(model, 0))
    # What was overwritten there still lies in the log that it was written to first.
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def forget_inputs_of(db: sqlite3.Connection, model: str, keep: int) -> None:
    """Forget all inputs of a model but the latest ``keep``, and as many of each pair's worst."""
    db.execute(
        "WITH held AS (SELECT live_samples.id, pair, agreement FROM live_samples "
        "JOIN pairs ON pairs.id = pair WHERE model = :model AND input IS NOT NULL), "
        "latest AS (SELECT id FROM held ORDER BY id DESC LIMIT :keep), "
        "worst AS (SELECT id, row_number() OVER (PARTITION BY pair ORDER BY agreement, id DESC) "
        "AS place FROM held WHERE agreement < 1) "
        "UPDATE live_samples SET input = NULL WHERE id IN (SELECT id FROM held) "
        "AND id NOT IN (SELECT id FROM latest) "
        "AND id NOT IN (SELECT id FROM worst WHERE place <= :worst)",
        {"model": model, "keep": keep, "worst": min(keep, MAX_WORST)},
    )
