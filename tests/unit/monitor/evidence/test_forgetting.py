"""What is too old goes, the last verdicts stay; inputs stay only as far as they may."""

import sqlite3
from dataclasses import replace

import pytest

from serving.monitor.evidence import forgetting, reading, writing
from serving.monitor.evidence.forgetting import forget_inputs, forget_old
from serving.quality.labels import LabelledScore
from tests.unit.monitor.evidence.pieces import (
    DATA_SET,
    LABELS,
    PAIR,
    PROBE_SET,
    STEP,
    change,
    live,
)


def write_all(db: sqlite3.Connection, at: float, model: str = "sentiment") -> None:
    pair = replace(PAIR, model=model)
    writing.add_step(db, at, pair, PROBE_SET, replace(STEP, number=int(at)))
    writing.add_live(db, at, pair, PROBE_SET, live(), 0)
    writing.add_scores(db, at, pair, DATA_SET, int(at), [LabelledScore(1.0, 1)])
    writing.add_labels(db, at, pair, DATA_SET, LABELS)
    writing.add_verdict(db, pair, change(at))


def times(db: sqlite3.Connection, table: str) -> list[float]:
    return [at for (at,) in db.execute(f"SELECT at FROM {table} ORDER BY at")]


def test_what_is_too_old_goes_from_every_table(db: sqlite3.Connection) -> None:
    for at in (1.0, 2.0, 3.0):
        write_all(db, at)
    forget_old(db, {"sentiment": 3.0})
    for table in ("probe_steps", "live_samples", "label_scores", "label_reports", "verdicts"):
        assert times(db, table) == [3.0], table


def test_the_last_verdict_of_a_variant_stays_however_old(db: sqlite3.Connection) -> None:
    for at in (1.0, 2.0):
        writing.add_verdict(db, PAIR, change(at))
    writing.add_verdict(db, replace(PAIR, variant="bf16", artifact="bf16-1"), change(1.5))
    forget_old(db, {"sentiment": 10.0})
    assert times(db, "verdicts") == [1.5, 2.0]


def test_each_model_has_its_time_and_one_that_is_gone_the_longest(db: sqlite3.Connection) -> None:
    for model in ("sentiment", "minilm", "gone"):
        for at in (1.0, 2.0, 3.0):
            write_all(db, at, model)
    forget_old(db, {"sentiment": 3.0, "minilm": 2.0})
    kept: dict[str, list[float]] = {}
    for model, at in db.execute(
        "SELECT model, at FROM live_samples JOIN pairs ON pairs.id = pair ORDER BY at"
    ):
        kept.setdefault(model, []).append(at)
    assert kept == {"sentiment": [3.0], "minilm": [2.0, 3.0], "gone": [2.0, 3.0]}


def test_a_pair_of_which_nothing_is_left_goes(db: sqlite3.Connection) -> None:
    for at, artifact in ((1.0, "int4-1"), (3.0, "int4-2")):
        pair = replace(PAIR, artifact=artifact)
        writing.add_live(db, at, pair, PROBE_SET, live(), 0)
    forget_old(db, {"sentiment": 2.0})
    assert db.execute("SELECT artifact FROM pairs").fetchall() == [("int4-2",)]


def test_more_than_one_transaction_forgets_them_all(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "AT_ONCE", 2)
    for _ in range(5):
        writing.add_live(db, 1.0, PAIR, PROBE_SET, live(), 0)
    forget_old(db, {"sentiment": 2.0})
    assert times(db, "live_samples") == []


def test_the_latest_inputs_and_the_worst_stay(db: sqlite3.Connection) -> None:
    for agreement, text in ((0.1, "bad"), (0.2, "second"), (0.3, "c"), (1.0, "d"), (0.9, "e")):
        writing.add_live(db, 1.0, PAIR, PROBE_SET, live(agreement, text), 2)
    kept = [sample.input for sample in reading.known(db, PAIR, PROBE_SET, None).live]
    assert kept == ["bad", "second", None, "d", "e"]
    # Of another pair its own worst, too; the latest are those of the model.
    other = replace(PAIR, artifact="int4-2")
    writing.add_live(db, 1.0, other, PROBE_SET, live(1.0, "f"), 2)
    writing.add_live(db, 1.0, other, PROBE_SET, live(0.8, "g"), 2)
    kept = [sample.input for sample in reading.known(db, PAIR, PROBE_SET, None).live]
    assert kept == ["bad", "second", None, None, None]
    assert reading.live_inputs(db, "sentiment", 2) == ("f", "g")


def test_inputs_go_when_they_may_be_kept_no_longer(db: sqlite3.Connection) -> None:
    for model in ("sentiment", "gone"):
        for text in ("a", "b"):
            pair = replace(PAIR, model=model)
            writing.add_live(db, 1.0, pair, PROBE_SET, live(0.5, text), 2)
    forget_inputs(db, {"sentiment": 1})
    assert reading.live_inputs(db, "sentiment", 9) == ("b",)
    assert reading.live_inputs(db, "gone", 9) == ()
    assert reading.known(db, PAIR, PROBE_SET, None).num_live == 2
