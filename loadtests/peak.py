"""Searches the highest rate that meets the SLO."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from loadtests.figures import (
    attainment,
    count_ok,
    lag_share,
    rate_until_last_answer,
    too_many_cut_off,
)
from loadtests.plan import Plan
from loadtests.results import Peak, Probe
from loadtests.rounds import Round, no_open_loop
from loadtests.samples import NOT_SENT

PRECISION = 0.1
"""The search ends when the lowest rate missed is at most so much above the highest rate met."""

MAX_PROBES = 24
MAX_FACTOR = 1_000
"""The search stays within this factor of where it starts."""


async def find_peak(variant: str, start: float, probe: Callable[[float], Awaitable[Probe]]) -> Peak:
    """Double or halve the rate until the peak lies between two rates, then halve what is between.

    A rate counts as missed when it was missed twice: one disturbance would otherwise end the
    search too low. Where one of the two misses is the generator's, the peak's ``problem`` says so.

    Args:
        variant: Whose peak.
        start: First rate, requests per second.
        probe: Tries a rate.
    """
    probes: list[Probe] = []
    met: float | None = None
    missed: float | None = None
    generators: list[Probe] = []
    rate = start
    while len(probes) < MAX_PROBES and start / MAX_FACTOR <= rate <= start * MAX_FACTOR:
        probes.append(await probe(rate))
        if not probes[-1].met:
            probes.append(await probe(rate))
        if probes[-1].met:
            met = rate
        else:
            missed = rate
            generators = [tried for tried in probes[-2:] if tried.is_generators]
        if met is not None and missed is not None and missed <= met * (1 + PRECISION):
            break
        rate = _next_rate(met, missed)
    return Peak(
        variant=variant,
        rate=met,
        missed_at=None if generators else missed,
        probes=tuple(probes),
        problem=_unknown(met, generators[-1].why_not) if generators else "",
    )


def _unknown(met: float | None, why_not: str) -> str:
    """That what the server can take was not found."""
    least = "no rate was met" if met is None else f"at least {met:.4g}/s"
    return f"{least}: the generator was the limit ({why_not})"


def _next_rate(met: float | None, missed: float | None) -> float:
    if missed is None:
        return 2 * (met or 0)
    return missed / 2 if met is None else (met + missed) / 2


def to_probe(plan: Plan, rate: float, round_: Round, limits: dict[str, float]) -> Probe:
    """Judge a turn at one rate."""
    share = attainment([round_], limits)
    reached = share.value if share else 0.0
    generators = _generators_miss(plan, round_)
    why_not = generators or _servers_miss(plan, round_, reached)
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
        is_generators=bool(generators),
    )


def _generators_miss(plan: Plan, round_: Round) -> str:
    """Why the turn says nothing of the server; empty if it does."""
    lag = lag_share(round_.samples)
    if lag is not None and lag > plan.max_lag_share:
        return f"the generator lagged by {lag:.0%} of the latency"
    num_not_sent = int(round_.samples.had(NOT_SENT).sum())
    return no_open_loop(num_not_sent) if num_not_sent else ""


def _servers_miss(plan: Plan, round_: Round, reached: float) -> str:
    """Why the rate is not met; empty if it is."""
    if round_.stopped:
        return round_.stopped
    if reached < plan.attainment:
        return f"{reached:.1%} met the SLO (at least {plan.attainment:.1%})"
    num_cut_off = int(round_.samples.is_cut_off.sum())
    if too_many_cut_off(num_cut_off, len(round_.samples), plan.attainment):
        return f"{num_cut_off} still ran after the grace"
    return ""
