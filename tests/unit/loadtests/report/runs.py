"""Results of the real types, from latencies that are made up."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtests.plan import LoadPlan
from loadtests.results import Peak, Results
from loadtests.rounds import Round, ServerRound
from loadtests.samples import CUT_OFF, OK, RequestSamples
from loadtests.summary import summarise
from tests.unit.loadtests.plans import make_plan

REQUESTS = 200
DURATION_S = 10.0


@dataclass(frozen=True)
class Made:
    """A variant to make up.

    Attributes:
        latency_s: Median; each round's own is a little off it, times that round's ``pace``.
        off_labels: How many of a round's labels differ from the reference's.
        weights: Bytes.
        num_errors: Of each round.
        stopped: Of every round.
        num_cut_off: Of each round.
        ttft_s: Median; None for no stream.
        growth: Bytes of memory by which the server grows with every round.
    """

    latency_s: float = 0.02
    off_labels: int = 0
    weights: int | None = 100 * 1024**2
    num_errors: int = 0
    stopped: str = ""
    num_cut_off: int = 0
    ttft_s: float | None = None
    growth: int | None = None


def make_results(
    variants: Mapping[str, Made],
    *,
    rounds: int = 4,
    slo: Mapping[str, float] | None = None,
    peaks: tuple[Peak, ...] = (),
    lag_s: float = 1e-5,
    seed: int = 0,
    arrivals: dict[str, Any] | None = None,
    pace: Sequence[float] = (),
    plan_seed: int = 0,
) -> Results:
    """A run of one scenario, ``classify`` or streams; the first variant is the reference.

    ``pace`` is a factor of all variants' latencies for each round.
    """
    is_stream = any(variant.ttft_s is not None for variant in variants.values())
    plan = make_plan(
        scenario={
            "variants": list(variants),
            "slo": {"latency_ms": 100} if slo is None else slo,
            "arrivals": arrivals or {"kind": "poisson", "rate": REQUESTS / DURATION_S},
        },
        operation="completions" if is_stream else "classify",
        rounds=rounds,
        duration_s=DURATION_S,
        seed=plan_seed,
    )
    pace = pace or [1.0] * rounds
    random = np.random.default_rng(seed)
    made = {
        name: [_round(random, number, variant, lag_s, pace[number]) for number in range(rounds)]
        for name, variant in variants.items()
    }
    found = summarise(plan, plan.scenarios[0], next(iter(variants)), made)
    found = found.model_copy(update={"peaks": peaks})
    problems = [f"m, {v.variant}: {problem}" for v in found.variants for problem in v.problems]
    return Results(
        plan=_as_data(plan),
        started_at="2026-01-01T00:00:00+00:00",
        wall_s=60,
        conditions={"processor": "Made up", "cores": "2"},
        problems=tuple(problems),
        scenarios=(found,),
    )


def _as_data(plan: LoadPlan) -> dict[str, Any]:
    return plan.model_dump(mode="json")


def _round(
    random: np.random.Generator, number: int, made: Made, lag_s: float, pace: float
) -> Round:
    planned = np.sort(random.uniform(0, DURATION_S, REQUESTS))
    latencies = pace * made.latency_s * random.normal(1, 0.01) * random.lognormal(0, 0.2, REQUESTS)
    outcome = np.zeros(REQUESTS)
    outcome[: made.num_errors] = 2
    outcome[REQUESTS - made.num_cut_off :] = 1
    last: dict[str, int | str] = {}
    if made.weights is not None:
        last["weights_bytes"] = made.weights
    if made.growth is not None:
        last["resident_bytes"] = 100 * 1024**2 + number * made.growth
    samples = RequestSamples(
        round=np.full(REQUESTS, number),
        index=np.arange(REQUESTS, dtype=np.float64),
        planned=planned,
        sent=planned + lag_s,
        first=planned + (math.nan if made.ttft_s is None else made.ttft_s),
        last=planned + latencies,
        ended=planned + latencies,
        outcome=outcome,
        output_tokens=np.full(REQUESTS, np.nan if made.ttft_s is None else 10),
        in_flight=np.ones(REQUESTS),
        agreement=np.full(REQUESTS, np.nan),
        outcomes=(OK, CUT_OFF, "http_503"),
    )
    labels = ["no" if index < made.off_labels else "yes" for index in range(REQUESTS)]
    return Round(
        samples=samples,
        duration_s=DURATION_S,
        stopped=made.stopped,
        generator_cpu=math.nan,
        answers={i: json.dumps({"data": [{"label": x}]}).encode() for i, x in enumerate(labels)},
        server=ServerRound(
            means={"queue": 0.001, "forward": 0.9 * made.latency_s},
            last=last,
        ),
    )
