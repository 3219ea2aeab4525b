"""The measured part of one variant's turn in one round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.client import Exchange
from loadtests.samples import COLUMNS, CUT_OFF, OK, RequestSamples
from loadtests.turn import TurnRecord


@dataclass(frozen=True, slots=True)
class ServerRound:
    """What the server said of one turn, warm-up included; None is what it did not say.

    Attributes:
        means: Of this turn, by the names of ``ServerSide``'s estimates.
        last: ``ServerSide``'s other fields, after the turn.
    """

    means: dict[str, float]
    last: dict[str, int | str]


@dataclass(frozen=True, slots=True)
class Round:
    """One variant's turn, reduced to what is kept.

    Attributes:
        samples: Without the warm-up.
        duration_s: Measured seconds.
        stopped: Why it was stopped early, or empty.
        generator_cpu: CPU seconds of the generator per sent request; NaN if none was sent.
        answers: Bodies of the answers that are kept, by the request's index.
        server: What the server said.
    """

    samples: RequestSamples
    duration_s: float
    stopped: str
    generator_cpu: float
    answers: dict[int, bytes]
    server: ServerRound


def reduce_turn(number: int, record: TurnRecord, server: ServerRound) -> Round:
    """Leave out the warm-up, and make times count from the start of the measured part."""
    measured = [e for e in record.exchanges if e.planned >= record.started]
    sent = sum(not math.isnan(e.sent) for e in record.exchanges)
    return Round(
        samples=to_samples(number, measured, record.started),
        duration_s=record.duration_s,
        stopped=record.stopped,
        generator_cpu=record.generator_cpu_s / sent if sent else math.nan,
        answers={e.index: e.answer for e in measured if e.answer is not None},
        server=server,
    )


def to_samples(number: int, exchanges: Sequence[Exchange], started: float) -> RequestSamples:
    """Exchanges as columns; times become seconds since ``started``."""
    outcomes = (OK, CUT_OFF, *sorted({e.outcome for e in exchanges} - {OK, CUT_OFF}))
    codes = {outcome: code for code, outcome in enumerate(outcomes)}
    times = ("planned", "sent", "first", "last", "ended")
    columns = {
        name: np.array([getattr(e, name) for e in exchanges], np.float64) - started
        for name in times
    }
    return RequestSamples(
        round=np.full(len(exchanges), number, np.float64),
        index=np.array([e.index for e in exchanges], np.float64),
        **columns,
        outcome=np.array([codes[e.outcome] for e in exchanges], np.float64),
        output_tokens=np.array([e.output_tokens for e in exchanges], np.float64),
        in_flight=np.array([e.in_flight for e in exchanges], np.float64),
        agreement=np.full(len(exchanges), math.nan),
        outcomes=outcomes,
    )


def no_open_loop(num_not_sent: int) -> str:
    """The problem that requests were not sent when they were planned."""
    return f"no longer an open loop: {num_not_sent} not sent, raise max_in_flight"


def join(parts: Sequence[RequestSamples]) -> RequestSamples:
    """All rounds' samples one after the other."""
    outcomes = tuple(dict.fromkeys(outcome for part in parts for outcome in part.outcomes))
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in COLUMNS
        if name != "outcome"
    }
    codes = [
        np.array([outcomes.index(outcome) for outcome in part.outcomes], np.float64)[
            part.outcome.astype(np.int64)
        ]
        for part in parts
    ]
    return RequestSamples(**columns, outcome=np.concatenate(codes), outcomes=outcomes)
