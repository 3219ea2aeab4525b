"""What a variant answers at several times its peak rate, and how soon it is well again.

Run as ``python -m benchmarks.overload`` or ``make overload``. It starts the service with one
variant of the demo, searches its peak (``peak_rate.py``), and sends open-loop (Poisson) requests:
at the peak, at a multiple of it, at half of it. A request within the limit is *good*; times count
from the planned moment. What may be under way takes half of the limit at most, which is the bound
to give it where a limit is to hold: more would only make everybody late. The workloads are the
demo's classifier on the direct path, the same on the selecting path, and short texts of its
generator on the direct one. The load generator shares the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from benchmarks.conditions import conditions
from benchmarks.peak_rate import VariantLoad, find_peak
from loadtests.arrivals import RateSteps, planned_times
from loadtests.bodies import ROUTES, headers, make_body
from loadtests.client import Client, Exchange
from loadtests.inputs import input_source
from loadtests.plan import GENERATING
from loadtests.samples import OK
from loadtests.turn import Turn
from serving.demo import DEMO_CONFIG
from tests.integration.running_service import RunningService, running_service

FACTOR = 3
REFUSED = "http_429"
REFUSAL_MS = 50
"""Within which a request that is not taken is to be told so."""

PEAK_S = 60
RECOVERY_S = 30


REVIEWS = {"file": "package:serving.demo/reviews_test.jsonl"}
CLASSIFIER = VariantLoad("sentiment", "int8-dynamic", "classify", REVIEWS, 250, 50)
WORKLOADS = {
    "direct": CLASSIFIER,
    "selecting": replace(CLASSIFIER, is_selecting=True),
    "generation": VariantLoad(
        *("smollm2", "q4_1", "completions", REVIEWS, 2_000, 2),
        slots=8,
        body={"max_tokens": 16, "stream": False},
        turn_s=15,
    ),
}


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
    parser.add_argument("workload", nargs="?", choices=WORKLOADS, default="direct")
    parser.add_argument("--seconds", type=float, default=300, help="of overload")
    arguments = parser.parse_args()
    load = WORKLOADS[arguments.workload]
    print(conditions(len(os.sched_getaffinity(0))), flush=True)
    limit_s = load.limit_ms / 1e3
    with tempfile.TemporaryDirectory() as folder:
        with _service(load, Path(folder), {}, {}) as service:
            peak = find_peak(load, service.url)
        under_way = max(int(peak * limit_s / 2), load.slots + 1)
        print(f"{load.model}:{load.variant}, {arguments.workload}: peak {peak:.4g}/s within")
        print(f"{load.limit_ms} ms; at most {under_way} under way", flush=True)
        variant = {"max_queued_requests": under_way - load.slots}
        server = {"max_requests_under_way": under_way}
        with _service(load, Path(folder), variant, server) as service:
            exchanges, phases, started = _overload(load, service, peak, arguments.seconds)
    for phase in phases:
        print(*_lines(phase, _of(phase, exchanges, started), limit_s), sep="\n")
    end = phases[1].end
    late = [
        e.planned - started - end
        for e in _of(phases[2], exchanges, started)
        if not _is_good(e, limit_s)
    ]
    print(f"last request that was refused or late after the overload: {max(late, default=0):.2f} s")


def _service(
    load: VariantLoad, folder: Path, variant: Mapping[str, int], server: Mapping[str, int]
) -> AbstractContextManager[RunningService]:
    """The demo's model with this variant of it alone, and what is given besides."""
    document = yaml.safe_load(DEMO_CONFIG.read_text())
    model = next(m for m in document["models"] if m["name"] == load.model)
    entries = [{"name": v} if isinstance(v, str) else v for v in model["variants"]]
    entry = next(e for e in entries if e["name"] == load.variant)
    model |= {"variants": [{**entry, **variant}], "default_variant": load.variant}
    document |= {"models": [model], "server": document["server"] | server}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    return running_service(config, folder / "service.log")


def _overload(
    load: VariantLoad, service: RunningService, peak: float, seconds: float
) -> tuple[list[Exchange], list[Phase], float]:
    """The measured requests, the phases, and when the turn began."""
    steps = [(peak, PEAK_S), (FACTOR * peak, seconds), (peak / 2, RECOVERY_S)]
    arrivals = RateSteps.model_validate(
        {"kind": "steps", "steps": [{"rate": r, "duration_s": s} for r, s in steps]}
    )
    plan = load.plan(service.url, peak)
    scenario = plan.scenarios[0]
    times = planned_times(arrivals, plan.warmup_s, 0, (0,), Path())
    texts = input_source(scenario.inputs, Path(), (0,))(0, len(times))
    bodies = [make_body(scenario, f"{load.model}:{load.variant}", text) for text in texts]

    async def run() -> tuple[list[Exchange], float]:
        url = plan.target.url + ROUTES[scenario.operation]
        async with Client(
            url, headers(), plan.timeout_s, is_generation=scenario.operation in GENERATING
        ) as client:
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
