"""What was written is read again as it was, and belongs to its pair and its set alone."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from serving.monitor.evidence import NOTHING_KNOWN, JudgedPair, reading, writing
from serving.quality.labels import LabelledScore
from serving.quality.samples import WINDOW
from tests.unit.monitor.evidence.pieces import (
    DATA_SET,
    LABELS,
    PAIR,
    PROBE_SET,
    STEP,
    change,
    live,
)

OTHER_PAIRS = (
    replace(PAIR, model="minilm"),
    replace(PAIR, variant="bf16"),
    replace(PAIR, artifact="int4-2"),
    replace(PAIR, reference="bf16"),
    replace(PAIR, reference_artifact="fp32-2"),
    replace(PAIR, max_tokens=64),
)


def scores(*values: float) -> list[LabelledScore]:
    return [LabelledScore(value, 3) for value in values]


def test_everything_comes_back_as_it_was(db: sqlite3.Connection) -> None:
    writing.add_step(db, 1.0, PAIR, PROBE_SET, STEP)
    writing.add_step(db, 1.0, PAIR, PROBE_SET, replace(STEP, number=1, seconds=0.5, rows=None))
    samples = [live(0.5, "a text"), live(0.25, ("a query", "a document")), live(1.0)]
    for sample in samples:
        writing.add_live(db, 1.0, PAIR, PROBE_SET, sample, 5)
    writing.add_labels(db, 1.0, PAIR, DATA_SET, replace(LABELS, dataset="earlier"))
    writing.add_labels(db, 1.0, PAIR, DATA_SET, LABELS)
    writing.add_verdict(db, PAIR, change())

    known = reading.known(db, PAIR, PROBE_SET, DATA_SET)
    first, second = known.steps
    assert first.rows is not None
    assert STEP.rows is not None
    assert first.rows.dtype == np.float32
    assert np.array_equal(first.rows, STEP.rows)
    assert replace(first, rows=None) == replace(STEP, rows=None)
    assert (second.number, second.seconds, second.rows) == (1, 0.5, None)
    assert known.live == tuple(samples)
    assert known.num_live == 3
    assert known.labels == LABELS
    assert known.last_verdict == change()
    assert reading.history(db, 0.0) == {"sentiment": (change(),)}


@pytest.mark.parametrize("other", OTHER_PAIRS, ids=lambda pair: str(pair)[:60])
def test_evidence_belongs_to_its_pair(db: sqlite3.Connection, other: JudgedPair) -> None:
    assert other != PAIR
    writing.add_step(db, 1.0, PAIR, PROBE_SET, STEP)
    writing.add_live(db, 1.0, PAIR, PROBE_SET, live(), 0)
    writing.add_labels(db, 1.0, PAIR, DATA_SET, LABELS)
    writing.add_scores(db, 1.0, PAIR, DATA_SET, 0, scores(1.0))
    assert reading.known(db, other, PROBE_SET, DATA_SET) == NOTHING_KNOWN
    assert reading.known_scores(db, other, DATA_SET) == []


def test_evidence_belongs_to_its_probes_and_its_data(db: sqlite3.Connection) -> None:
    writing.add_step(db, 1.0, PAIR, PROBE_SET, STEP)
    writing.add_live(db, 1.0, PAIR, PROBE_SET, live(), 0)
    writing.add_labels(db, 1.0, PAIR, DATA_SET, LABELS)
    assert reading.known(db, PAIR, "other probes", "other data") == NOTHING_KNOWN
    known = reading.known(db, PAIR, PROBE_SET, None)
    assert (len(known.steps), known.num_live, known.labels) == (1, 1, None)


def test_the_window_is_read_and_all_are_counted(db: sqlite3.Connection) -> None:
    writing.add_live(db, 1.0, PAIR, PROBE_SET, live(0.0, "the worst"), 5)
    for number in range(WINDOW + 2):
        writing.add_live(db, 1.0, PAIR, PROBE_SET, live(number / 10_000), 5)
    known = reading.known(db, PAIR, PROBE_SET, None)
    assert known.num_live == WINDOW + 3
    assert len(known.live) == WINDOW + 1
    assert known.live[0].input == "the worst"
    assert known.live[1].comparison.agreement == 2 / 10_000


def test_turns_and_scores_after_a_gap_do_not_count(db: sqlite3.Connection) -> None:
    for number in (0, 1, 3):
        writing.add_step(db, 1.0, PAIR, PROBE_SET, replace(STEP, number=number))
    assert [s.number for s in reading.known(db, PAIR, PROBE_SET, None).steps] == [0, 1]
    for first in (0, 2, 5):
        writing.add_scores(db, 1.0, PAIR, DATA_SET, first, scores(float(first), 1.0))
    assert reading.known_scores(db, PAIR, DATA_SET) == scores(0.0, 1.0, 2.0, 1.0)


def test_a_turn_that_is_taken_again_replaces_the_first(db: sqlite3.Connection) -> None:
    for seconds in (0.5, 0.75):
        writing.add_step(db, 1.0, PAIR, PROBE_SET, replace(STEP, seconds=seconds))
    assert [s.seconds for s in reading.known(db, PAIR, PROBE_SET, None).steps] == [0.75]


def test_the_last_verdict_is_that_of_the_variant_whatever_it_was(db: sqlite3.Connection) -> None:
    writing.add_verdict(db, PAIR, change(1.0, "failing"))
    writing.add_verdict(db, replace(PAIR, variant="bf16"), change(2.0))
    known = reading.known(db, replace(PAIR, artifact="int4-2"), PROBE_SET, None)
    assert known.last_verdict is not None
    assert (known.last_verdict.at, known.last_verdict.verdict) == (1.0, "failing")


def test_history_begins_at_a_time_and_is_by_model(db: sqlite3.Connection) -> None:
    for at in (1.0, 3.0, 2.0):
        writing.add_verdict(db, PAIR, change(at))
    writing.add_verdict(db, replace(PAIR, model="minilm"), change(5.0))
    history = reading.history(db, 2.0)
    assert {model: [one.at for one in changes] for model, changes in history.items()} == {
        "sentiment": [2.0, 3.0],
        "minilm": [5.0],
    }
