"""What ``auto`` does under a load step, beside each fixed variant on the same arrivals.

Run as ``python -m benchmarks.auto_simulation``. A simulation, without Ray: requests of one text
arrive at random times (Poisson, open loop) at four variants that share one machine. Each variant
runs one forward pass at a time over what waits for it, as the replica does, and passes of several
variants at once share the processor equally. The policy and the record of latencies are
quantserve's own (``serving/gateway/auto_policy.py``, ``latencies.py``), on simulated time.

That a service should choose the variant by limits, and give up some accuracy under load, is the
idea of INFaaS (Romero et al., USENIX ATC 2021) and Proteus (Ahmad et al., ASPLOS 2024).
"""

from __future__ import annotations

import argparse
import json
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from statistics import fmean

from serving.gateway.auto_policy import Candidate, choose
from serving.gateway.latencies import Call, Latencies
from serving.seams import AutoChoice, Limits

MODEL = "sentiment"
OVERHEAD_S = 0.006
"""Of the path around the passes, on either side: RESULTS.md, "The serving path", selecting path."""

MAX_BATCH = 8
"""Texts of 128 tokens in one pass of at most 1,024 tokens, the default on CPU."""

MAX_QUEUED = 128
"""The default of ``max_queued_requests``; further requests are refused."""

LOAD = ((60, 40.0), (60, 120.0), (180, 40.0))
"""Seconds, and requests per second in them."""

LIMITS = Limits(max_latency_s=0.2, min_quality=0.99)


@dataclass(frozen=True)
class Variant:
    """A pass over n texts of 128 tokens takes ``first_s + (n - 1) * next_s``."""

    name: str
    first_s: float
    next_s: float
    quality: float
    weights_bytes: int

    def pass_s(self, texts: int) -> float:
        return self.first_s + (texts - 1) * self.next_s


# RESULTS.md: "Engines", rows 1×128 and 8×128; "Accuracy", the same label as fp32, and weights.
VARIANTS = (
    Variant("fp32", 0.0311, (0.1730 - 0.0311) / 7, 1.000, 90_900_000),
    Variant("bf16", 0.0164, (0.0676 - 0.0164) / 7, 0.992, 45_400_000),
    Variant("int8-dynamic", 0.0165, (0.0601 - 0.0165) / 7, 0.952, 26_000_000),
    Variant("int4", 0.0234, (0.0776 - 0.0234) / 7, 0.914, 18_100_000),
)


@dataclass
class Request:
    """A request; ``latency_s`` is None if it was refused."""

    arrived: float
    variant: Variant
    call: Call
    started: float = 0.0
    latency_s: float | None = None


@dataclass
class Server:
    """One variant's queue, and the pass that it runs."""

    variant: Variant
    queue: deque[Request] = field(default_factory=deque)
    batch: list[Request] = field(default_factory=list)
    remaining_s: float = 0.0


class Machine:
    """The variants on one processor. ``now`` is the simulated time."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self.now = 0.0
        self.latencies = Latencies(lambda: self.now)
        self._servers = {variant.name: Server(variant) for variant in variants}

    def run(
        self, arrivals: Sequence[float], choose_variant: Callable[[], Variant]
    ) -> list[Request]:
        """Let requests arrive and be answered; return them in the order of their arrival."""
        requests = []
        for arrival in arrivals:
            self._advance(arrival)
            requests.append(self._accept(choose_variant()))
        self._advance(float("inf"))
        return requests

    def _accept(self, variant: Variant) -> Request:
        server = self._servers[variant.name]
        request = Request(self.now, variant, self.latencies.begin(MODEL, variant.name))
        if len(server.queue) >= MAX_QUEUED:
            self.latencies.end(request.call)
            return request
        server.queue.append(request)
        if not server.batch:
            self._start(server)
        return request

    def _start(self, server: Server) -> None:
        server.batch = [server.queue.popleft() for _ in range(min(len(server.queue), MAX_BATCH))]
        for request in server.batch:
            request.started = self.now
        if server.batch:
            server.remaining_s = server.variant.pass_s(len(server.batch))

    def _advance(self, until: float) -> None:
        while busy := [server for server in self._servers.values() if server.batch]:
            first = min(busy, key=lambda server: server.remaining_s)
            ends = self.now + first.remaining_s * len(busy)
            worked_s = (min(ends, until) - self.now) / len(busy)
            for server in busy:
                server.remaining_s -= worked_s
            self.now = min(ends, until)
            if ends > until:
                return
            self._finish(first)
        if until != float("inf"):
            self.now = until

    def _finish(self, server: Server) -> None:
        for request in server.batch:
            request.latency_s = self.now - request.arrived + OVERHEAD_S
            self.latencies.answered(
                request.call, request.started - request.arrived, request.latency_s
            )
        self._start(server)


def auto(machine: Machine, variants: Sequence[Variant], limits: Limits) -> Callable[[], Variant]:
    """The router's choice for the next request, as ``serving/gateway/auto.py`` makes it."""
    by_name = {variant.name: variant for variant in variants}
    previous: str | None = None

    def choose_variant() -> Variant:
        nonlocal previous
        table = [_candidate(machine.latencies, variant) for variant in variants]
        choice = choose(table, limits, "best_effort", previous)
        assert isinstance(choice, AutoChoice)
        previous = choice.variant
        return by_name[choice.variant]

    return choose_variant


def _candidate(latencies: Latencies, variant: Variant) -> Candidate:
    measured = latencies.figures(MODEL, variant.name)
    probe_s = variant.first_s + OVERHEAD_S
    service_s = measured.service_s if measured else None
    return Candidate(
        variant=variant.name,
        p95_latency_s=measured.p95_s if measured else probe_s,
        service_s=service_s if service_s is not None else probe_s,
        device="cpu",
        share_of_machine=1.0,
        quality_low=variant.quality,
        in_auto=True,
        weights_bytes=variant.weights_bytes,
    )


def poisson(load: Sequence[tuple[float, float]], seed: int) -> list[float]:
    """Times of arrival, in seconds."""
    rng = random.Random(seed)
    arrivals, begins = [], 0.0
    for seconds, rate in load:
        time = begins + rng.expovariate(rate)
        while time < begins + seconds:
            arrivals.append(time)
            time += rng.expovariate(rate)
        begins += seconds
    return arrivals


def rows(
    runs: Sequence[Sequence[float]], variants: Sequence[Variant], limits: Limits
) -> Iterator[str]:
    """One line of the table for ``auto`` and for each fixed variant, the mean of all runs."""
    machines = [Machine(variants) for _ in runs]
    yield _row(
        "auto",
        [m.run(run, auto(m, variants, limits)) for m, run in zip(machines, runs, strict=True)],
        limits,
    )
    for variant in variants:
        yield _row(variant.name, [Machine(variants).run(r, _always(variant)) for r in runs], limits)


def _always(variant: Variant) -> Callable[[], Variant]:
    return lambda: variant


def _row(name: str, runs: Sequence[Sequence[Request]], limits: Limits) -> str:
    figures = [_figures(requests, limits) for requests in runs]
    *shares, quality, p95_s, refused = (fmean(column) for column in zip(*figures, strict=True))
    in_time = " | ".join(f"{share:.1%}" for share in shares)
    return f"| {name} | {in_time} | {quality:.4f} | {p95_s * 1e3:.0f} | {refused:.0f} |"


def _figures(requests: Sequence[Request], limits: Limits) -> list[float]:
    assert limits.max_latency_s is not None
    assert limits.min_quality is not None
    ends = (LOAD[0][0], LOAD[0][0] + LOAD[1][0])
    before = [r for r in requests if r.arrived < ends[0]]
    during = [r for r in requests if ends[0] <= r.arrived < ends[1]]
    after = [r for r in requests if r.arrived >= ends[1]]
    good = [r for r in requests if r.variant.quality >= limits.min_quality]
    latencies = sorted(r.latency_s for r in requests if r.latency_s is not None)
    return [
        *(_share_in_time(phase, limits.max_latency_s) for phase in (before, during, after)),
        _share_in_time(requests, limits.max_latency_s),
        _share_in_time(good, limits.max_latency_s) * len(good) / len(requests),
        fmean(r.variant.quality for r in requests if r.latency_s is not None),
        latencies[ceil(0.95 * len(latencies)) - 1],
        len(requests) - len(latencies),
    ]


def _share_in_time(requests: Sequence[Request], limit_s: float) -> float:
    in_time = sum(r.latency_s is not None and r.latency_s <= limit_s for r in requests)
    return in_time / max(len(requests), 1)


def _read_times(path: Path) -> tuple[Variant, ...]:
    """Read ``{"fp32": [ms of a pass over 1 text, ms over 8], …}``, measured elsewhere."""
    times = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        replace(variant, first_s=first / 1e3, next_s=(eighth - first) / 7e3)
        for variant in VARIANTS
        for first, eighth in [times[variant.name]]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What auto does under a load step.")
    parser.add_argument("--service-times", type=Path, help=_read_times.__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="runs, each with other arrivals")
    arguments = parser.parse_args()
    variants = _read_times(arguments.service_times) if arguments.service_times else VARIANTS
    load = ", then ".join(f"{rate:g} requests/s for {seconds:g} s" for seconds, rate in LOAD)
    print(f"{load}; texts of 128 tokens; mean of {arguments.seeds} runs")
    print("limits: max_latency_ms 200, min_quality 0.99; best_effort\n")
    print(
        "| | in time before | during | after | in all | in time and quality | mean quality "
        "| p95, ms | refused |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    runs = [poisson(LOAD, seed) for seed in range(arguments.seeds)]
    for row in rows(runs, variants, LIMITS):
        print(row)


if __name__ == "__main__":
    main()
