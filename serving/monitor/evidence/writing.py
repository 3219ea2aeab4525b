"""Writes evidence, each call in one transaction.

Every function raises ``sqlite3.Error`` if the database cannot be written. ``at`` is the time, in
seconds since 1970.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from serving.monitor.evidence.forgetting import forget_inputs_of
from serving.monitor.evidence.pairs import pair_id, transaction
from serving.monitor.evidence.records import JudgedPair, LiveSample, ProbeStep
from serving.quality.labels import LabelledScore
from serving.seams import LabelReport, VerdictChange


def add_step(
    db: sqlite3.Connection, at: float, pair: JudgedPair, probe_set: str, step: ProbeStep
) -> None:
    """Take what came of one turn of probing."""
    rows = step.rows
    width = None if rows is None else rows.shape[1]
    answers = None if rows is None else np.ascontiguousarray(rows, "<f4").tobytes()
    comparisons = json.dumps([[one.agreement, dict(one.measures)] for one in step.comparisons])
    with transaction(db):
        number = pair_id(db, pair)
        db.execute(
            "INSERT OR REPLACE INTO probe_steps (pair, probe_set, number, at, answered, "
            "comparisons, seconds, width, answers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(number, probe_set, step.number, at, step.answered, comparisons, step.seconds),
                *(width, answers),
            ),
        )


def add_live(
    db: sqlite3.Connection,
    at: float,
    pair: JudgedPair,
    probe_set: str,
    sample: LiveSample,
    keep_inputs: int,
) -> None:
    """Take a live sample.

    Args:
        db: The database.
        at: Now.
        pair: What was compared.
        probe_set: What neighbours were sought among.
        sample: What came of it.
        keep_inputs: So many of the model's latest inputs, and of the pair's worst, stay.
    """
    comparison, given = sample.comparison, sample.input
    measures = json.dumps(dict(comparison.measures))
    with transaction(db):
        db.execute(
            "INSERT INTO live_samples (pair, probe_set, at, agreement, measures, input) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(pair_id(db, pair), probe_set, at, comparison.agreement, measures),
                None if given is None else json.dumps(given),
            ),
        )
        if given is not None:
            forget_inputs_of(db, pair.model, keep_inputs)


def add_scores(
    db: sqlite3.Connection,
    at: float,
    pair: JudgedPair,
    data_set: str,
    first: int,
    scores: Sequence[LabelledScore],
) -> None:
    """Take how a variant did on consecutive labelled examples, from the index ``first`` on."""
    written = json.dumps([[score.value, score.count] for score in scores])
    with transaction(db):
        db.execute(
            "INSERT OR REPLACE INTO label_scores (pair, data_set, first, at, scores) "
            "VALUES (?, ?, ?, ?, ?)",
            (pair_id(db, pair), data_set, first, at, written),
        )


def add_labels(
    db: sqlite3.Connection, at: float, pair: JudgedPair, data_set: str, report: LabelReport
) -> None:
    """Take the result of an evaluation."""
    with transaction(db):
        db.execute(
            "INSERT INTO label_reports (pair, data_set, at, report) VALUES (?, ?, ?, ?)",
            (pair_id(db, pair), data_set, at, json.dumps(asdict(report))),
        )


def add_verdict(db: sqlite3.Connection, pair: JudgedPair, change: VerdictChange) -> None:
    """Take a change of a verdict."""
    origins = json.dumps([asdict(one) for one in change.origins])
    labels = None if change.labels is None else json.dumps(asdict(change.labels))
    with transaction(db):
        db.execute(
            "INSERT INTO verdicts (pair, at, verdict, reason, in_auto, origins, labels) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(pair_id(db, pair), change.at, change.verdict, change.reason, change.in_auto),
                *(origins, labels),
            ),
        )
