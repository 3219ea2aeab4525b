"""Searches the highest rate that meets the SLO."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from loadtests.figures import attainment, count_ok, lag_share, rate_until_last_answer
from loadtests.plan import Plan
from loadtests.results import Peak, Probe
from loadtests.rounds import Round

PRECISION = 0.1
"""The search ends when the lowest rate missed is at most so much above the highest rate met."""

MAX_PROBES = 24
MAX_FACTOR = 1_000
"""The search stays within this factor of where it starts."""


async def find_peak(variant: str, start: float, probe: Callable[[float], Awaitable[Probe]]) -> Peak:
    """Double or halve the rate until the peak lies between two rates, then halve what is between.

    A rate counts as missed when it was missed twice: one disturbance would otherwise end the
    search too low.

    Args:
        variant: Whose peak.
        start: First rate, requests per second.
        probe: Tries a rate.
    """
    probes: list[Probe] = []
    met: float | None = None
    missed: float | None = None
    rate = start
    while len(probes) < MAX_PROBES and start / MAX_FACTOR <= rate <= start * MAX_FACTOR:
        probes.append(await probe(rate))
        if not probes[-1].met:
            probes.append(await probe(rate))
        if probes[-1].met:
            met = rate
        else:
            missed = rate
        if met is not None and missed is not None and missed <= met * (1 + PRECISION):
            break
        rate = _next_rate(met, missed)
    return Peak(variant=variant, rate=met, missed_at=missed, probes=tuple(probes))


def _next_rate(met: float | None, missed: float | None) -> float:
    if missed is None:
        return 2 * (met or 0)
    return missed / 2 if met is None else (met + missed) / 2


def to_probe(plan: Plan, rate: float, round_: Round, limits: dict[str, float]) -> Probe:
    """Judge a turn at one rate."""
    share = attainment([round_], limits)
    reached = share.value if share else 0.0
    lag = lag_share(round_.samples)
    why_not = round_.stopped
    if not why_not and reached < plan.attainment:
        why_not = f"{reached:.1%} met the SLO (at least {plan.attainment:.1%})"
    if not why_not and lag is not None and lag > plan.max_lag_share:
        why_not = f"the generator lagged by {lag:.0%} of the latency"
    latencies = round_.samples.latency[round_.samples.is_ok]
    p50, p99 = np.quantile(latencies, (0.5, 0.99)) if len(latencies) else (None, None)
    return Probe(
        rate=rate,
        achieved_rate=rate_until_last_answer([round_], count_ok).value,
        p50=p50,
        p99=p99,
        attainment=reached,
        met=not why_not,
        why_not=why_not,
    )
