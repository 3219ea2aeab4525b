"""What a variant answers at several times its peak rate, and how soon it is well again.

Run as ``python -m benchmarks.overload`` or ``make overload``. It starts the service with one
variant of the demo's classifier, searches its peak on the direct path (the highest rate at which
95 % of the requests are answered within the limit), and sends open-loop (Poisson) requests: at the
peak, at a multiple of it, at half of it. A request within the limit is *good*; times count from the
planned moment. What may be under way takes half of the limit at most, which is the bound to give
it where a limit is to hold: more would only make everybody late. The generator shares the machine's
cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.conditions import conditions
from loadtests.arrivals import RateSteps, planned_times
from loadtests.bodies import ROUTES, headers, make_body
from loadtests.client import Client, Exchange
from loadtests.inputs import input_source
from loadtests.plan import LoadPlan
from loadtests.runner import run_plan
from loadtests.samples import OK
from loadtests.turn import Turn
from serving.demo import DEMO_CONFIG
from tests.integration.running_service import RunningService, running_service

MODEL, VARIANT = "sentiment", "int8-dynamic"
LIMIT_MS, FACTOR = 250, 3
REFUSED = "http_429"
REFUSAL_MS = 50
"""Within which a request that is not taken is to be told so."""

PEAK_S = 60
RECOVERY_S = 30
FIRST_RATE = 50


@dataclass(frozen=True, slots=True)
class Phase:
    """Some of the requests.

    Attributes:
        name: Of the phase.
        start: Seconds from the start of the turn.
        end: Likewise.
    """

    name: str
    start: float
    end: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="of overload")
    arguments = parser.parse_args()
    print(conditions(len(os.sched_getaffinity(0))), flush=True)
    limit_s = LIMIT_MS / 1e3
    with tempfile.TemporaryDirectory() as folder:
        with _service(Path(folder), None) as service:
            peak = _peak(service)
        queue = max(int(peak * limit_s / 2), 1)
        print(f"peak {peak:.4g}/s within {LIMIT_MS} ms; max_queued_requests: {queue}")
        with _service(Path(folder), queue) as service:
            exchanges, phases, started = _overload(service, peak, arguments.seconds)
    for phase in phases:
        print(*_lines(phase, _of(phase, exchanges, started), limit_s), sep="\n")
    end = phases[1].end
    late = [
        e.planned - started - end
        for e in _of(phases[2], exchanges, started)
        if not _is_good(e, limit_s)
    ]
    print(f"last request that was refused or late after the overload: {max(late, default=0):.2f} s")


def _service(folder: Path, queue: int | None) -> AbstractContextManager[RunningService]:
    document = yaml.safe_load(DEMO_CONFIG.read_text())
    document["models"] = [m for m in document["models"] if m["name"] == MODEL]
    variant = {"name": VARIANT} | ({"max_queued_requests": queue} if queue else {})
    document["models"][0] |= {"variants": [variant], "default_variant": VARIANT}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    return running_service(config, folder / "service.log")


def _plan(service: RunningService, rate: float) -> LoadPlan:
    return LoadPlan.model_validate(
        {
            "target": {"url": f"{service.url}/{MODEL}/{VARIANT}"},
            "scenarios": [
                {
                    "model": MODEL,
                    "operation": "classify",
                    "variants": [VARIANT],
                    "inputs": {"file": "package:serving.demo/reviews_test.jsonl"},
                    "arrivals": {"kind": "poisson", "rate": rate},
                    "slo": {"latency_ms": LIMIT_MS},
                }
            ],
            "rounds": 1,
            "duration_s": 6,
            "warmup_s": 1,
            "attainment": 0.95,
            # Of a latency that is a tenth of the limit; what lags counts in it all the same.
            "max_lag_share": 1,
            "stop": {"error_share": None, "saturation_s": None},
        }
    )


def _peak(service: RunningService) -> float:
    plan = _plan(service, FIRST_RATE)
    results = asyncio.run(run_plan(plan, Path(), lambda *_: None, find_peaks=True))
    found = results.scenarios[0].peaks[0]
    assert found.rate is not None, f"no peak: {found.note}"
    return found.rate


def _overload(
    service: RunningService, peak: float, seconds: float
) -> tuple[list[Exchange], list[Phase], float]:
    """The measured requests, the phases, and when the turn began."""
    steps = [(peak, PEAK_S), (FACTOR * peak, seconds), (peak / 2, RECOVERY_S)]
    arrivals = RateSteps.model_validate(
        {"kind": "steps", "steps": [{"rate": r, "duration_s": s} for r, s in steps]}
    )
    plan = _plan(service, peak)
    scenario = plan.scenarios[0]
    times = planned_times(arrivals, plan.warmup_s, 0, (0,), Path())
    texts = input_source(scenario.inputs, Path(), (0,))(0, len(times))
    bodies = [make_body(scenario, f"{MODEL}:{VARIANT}", text) for text in texts]

    async def run() -> tuple[list[Exchange], float]:
        url = plan.target.url + ROUTES[scenario.operation]
        async with Client(url, headers(), plan.timeout_s) as client:
            turn = Turn(client, plan, bodies, float(sum(s for _, s in steps)), lambda _: None)
            record = await turn.run_open(times)
        return record.exchanges, record.started

    exchanges, started = asyncio.run(run())
    ends = np.cumsum([s for _, s in steps]).tolist()
    names = ("peak", f"{FACTOR} times the peak", "half of the peak")
    phases = [
        Phase(name, start, end) for name, start, end in zip(names, [0, *ends], ends, strict=False)
    ]
    return exchanges, phases, started


def _of(phase: Phase, exchanges: Sequence[Exchange], started: float) -> list[Exchange]:
    return [e for e in exchanges if phase.start <= e.planned - started < phase.end]


def _is_good(exchange: Exchange, limit_s: float) -> bool:
    return exchange.outcome == OK and exchange.ended - exchange.planned <= limit_s


def _lines(phase: Phase, exchanges: Sequence[Exchange], limit_s: float) -> Iterator[str]:
    seconds = phase.end - phase.start
    good = sum(_is_good(e, limit_s) for e in exchanges)
    answered = [e.ended - e.planned for e in exchanges if e.outcome == OK]
    refused = [e.ended - e.sent for e in exchanges if e.outcome == REFUSED]
    others = Counter(e.outcome for e in exchanges if e.outcome not in (OK, REFUSED))
    lag = [e.sent - e.planned for e in exchanges if not np.isnan(e.sent)]
    yield (
        f"{phase.name}: {len(exchanges) / seconds:.1f}/s sent (generator late by "
        f"{_ms(lag, 99)} ms at p99), {good / seconds:.1f}/s good, "
        f"{len(answered) / seconds:.1f}/s answered (p50 {_ms(answered, 50)}, "
        f"p95 {_ms(answered, 95)} ms), others {dict(others) or 'none'}"
    )
    if refused:
        quick = np.mean(np.array(refused) * 1e3 <= REFUSAL_MS)
        yield (
            f"  429: {len(refused) / seconds:.1f}/s, p50 {_ms(refused, 50)}, "
            f"p99 {_ms(refused, 99)}, longest {_ms(refused, 100)} ms; "
            f"{quick:.2%} within {REFUSAL_MS} ms"
        )


def _ms(seconds: Sequence[float], level: float) -> str:
    return f"{np.percentile(seconds, level) * 1e3:.1f}" if seconds else "–"


if __name__ == "__main__":
    main()
