"""Reads evidence. Every function raises ``sqlite3.Error`` if the database cannot be read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from serving.monitor.evidence.pairs import known_pair
from serving.monitor.evidence.records import JudgedPair, KnownEvidence, LiveSample, ProbeStep
from serving.quality.labels import LabelledScore
from serving.quality.samples import WINDOW
from serving.seams import Comparison, Input, LabelReport, OriginReport, VerdictChange

_LABELS = TypeAdapter(LabelReport)
_ORIGINS = TypeAdapter(tuple[OriginReport, ...])
_INPUT: TypeAdapter[Input] = TypeAdapter(Input)

_VERDICTS = (
    "SELECT model, at, variant, artifact, reference_artifact, verdict, reason, in_auto, origins, "
    "labels FROM verdicts JOIN pairs ON pairs.id = pair "
)


def known(
    db: sqlite3.Connection, pair: JudgedPair, probe_set: str, data_set: str | None
) -> KnownEvidence:
    """Return what is known of a pair with these probes and these labelled data."""
    number = known_pair(db, pair)
    last = db.execute(
        f"{_VERDICTS} WHERE model = ? AND variant = ? ORDER BY verdicts.id DESC LIMIT 1",
        (pair.model, pair.variant),
    ).fetchone()
    live, num_live = _live(db, number, probe_set)
    return KnownEvidence(
        steps=_steps(db, number, probe_set),
        live=live,
        num_live=num_live,
        labels=_labels(db, number, data_set),
        last_verdict=None if last is None else _verdict(last),
    )


def known_scores(db: sqlite3.Connection, pair: JudgedPair, data_set: str) -> list[LabelledScore]:
    """How a variant did on the labelled examples, from the first one on, none missing."""
    found: list[LabelledScore] = []
    for first, scores in db.execute(
        "SELECT first, scores FROM label_scores WHERE pair = ? AND data_set = ? ORDER BY first",
        (known_pair(db, pair), data_set),
    ):
        if first != len(found):
            break
        found += [LabelledScore(value, count) for value, count in json.loads(scores)]
    return found


def live_inputs(db: sqlite3.Connection, model: str, count: int) -> tuple[Input, ...]:
    """The latest inputs of a model's live samples that were kept, the oldest first."""
    found = db.execute(
        "SELECT input FROM live_samples JOIN pairs ON pairs.id = pair "
        "WHERE model = ? AND input IS NOT NULL ORDER BY live_samples.id DESC LIMIT ?",
        (model, count),
    ).fetchall()
    return tuple(_INPUT.validate_json(text) for (text,) in reversed(found))


def history(db: sqlite3.Connection, since: float) -> dict[str, tuple[VerdictChange, ...]]:
    """Changes of verdicts since a time in seconds since 1970, by model, the oldest first."""
    found: dict[str, list[VerdictChange]] = {}
    for row in db.execute(f"{_VERDICTS} WHERE at >= ? ORDER BY at, verdicts.id", (since,)):
        found.setdefault(row[0], []).append(_verdict(row))
    return {model: tuple(changes) for model, changes in found.items()}


def _steps(db: sqlite3.Connection, pair: int | None, probe_set: str) -> tuple[ProbeStep, ...]:
    found: list[ProbeStep] = []
    for number, answered, comparisons, seconds, width, answers in db.execute(
        "SELECT number, answered, comparisons, seconds, width, answers FROM probe_steps "
        "WHERE pair = ? AND probe_set = ? ORDER BY number",
        (pair, probe_set),
    ):
        if number != len(found):
            break
        rows = None
        if answers is not None:
            rows = np.frombuffer(answers, "<f4").reshape(answered, width).astype(np.float32)
        compared = tuple(Comparison(*one) for one in json.loads(comparisons))
        found.append(ProbeStep(number, answered, compared, seconds, rows))
    return tuple(found)


def _live(
    db: sqlite3.Connection, pair: int | None, probe_set: str
) -> tuple[tuple[LiveSample, ...], int]:
    of_pair = "FROM live_samples WHERE pair = ? AND probe_set = ?"
    (num_live,) = db.execute(f"SELECT count(*) {of_pair}", (pair, probe_set)).fetchone()
    found = db.execute(
        f"SELECT agreement, measures, input {of_pair} AND (input IS NOT NULL OR id IN "
        f"(SELECT id {of_pair} ORDER BY id DESC LIMIT ?)) ORDER BY id",
        (pair, probe_set, pair, probe_set, WINDOW),
    )
    samples = tuple(
        LiveSample(
            Comparison(agreement, json.loads(measures)),
            None if given is None else _INPUT.validate_json(given),
        )
        for agreement, measures, given in found
    )
    return samples, num_live


def _labels(db: sqlite3.Connection, pair: int | None, data_set: str | None) -> LabelReport | None:
    found = db.execute(
        "SELECT report FROM label_reports WHERE pair = ? AND data_set = ? ORDER BY id DESC LIMIT 1",
        (pair, data_set),
    ).fetchone()
    return None if found is None else _LABELS.validate_python(json.loads(found[0]))


def _verdict(row: Sequence[Any]) -> VerdictChange:
    _, at, variant, artifact, reference_artifact, verdict, reason, in_auto, origins, labels = row
    return VerdictChange(
        at=at,
        variant=variant,
        artifact=artifact,
        reference_artifact=reference_artifact,
        verdict=verdict,
        reason=reason,
        in_auto=bool(in_auto),
        origins=_ORIGINS.validate_python(json.loads(origins)),
        labels=None if labels is None else _LABELS.validate_python(json.loads(labels)),
    )
