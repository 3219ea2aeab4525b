"""Searches the highest rate that meets the SLO."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.figures import (
    attainment,
    count_ok,
    endless,
    is_decided,
    lag_share,
    lagged_time,
    percentile,
    rate_until_last_answer,
    too_many_undecided,
)
from loadtests.plan import LoadPlan
from loadtests.results import Peak, Probe
from loadtests.rounds import Round, no_open_loop
from loadtests.samples import NOT_SENT
from serving.quality.statistics import share

PRECISION = 0.1
"""The search ends when the lowest rate missed is at most so much above the highest rate met."""

MAX_RATES = 16
MAX_FACTOR = 1_000
"""The search stays within this factor of where it starts."""

Try = Callable[[float], Awaitable[Probe]]


@dataclass(frozen=True, slots=True)
class Tried:
    """A rate and the two turns that agree on it, of two or three."""

    rate: float
    turns: list[Probe]

    @property
    def met(self) -> bool:
        """Whether the two met the SLO."""
        return self.turns[0].met

    @property
    def limit(self) -> str:
        """Why it was the generator that missed; empty if it was not."""
        return next((turn.why_not for turn in self.turns if turn.is_generators), "")

    @property
    def num_met(self) -> int:
        """Requests of both that met the SLO."""
        return sum(round(turn.attainment * turn.counted) for turn in self.turns)

    @property
    def counted(self) -> int:
        """Requests of both that met the SLO or surely did not."""
        return sum(turn.counted for turn in self.turns)

    def is_sure(self, attainment: float) -> bool:
        """Whether Wilson's interval of both turns lies on the side that they are on.

        A turn that missed for another reason than its share was stopped or left requests behind.
        """
        if not self.met and any(turn.attainment >= attainment for turn in self.turns):
            return True
        found = share(self.num_met, self.counted) if self.counted else None
        if found is None:
            return not self.met
        return found.low >= attainment if self.met else found.high < attainment


async def find_peak(variant: str, start: float, attainment: float, probe: Try) -> Peak:
    """Double or halve the rate until the peak lies between two rates, then halve what is between.

    A rate is met or missed by two turns of at most three, so that one disturbance decides nothing.
    The peak's two rates are those of which the two turns are sure; what is between is unclear.

    Args:
        variant: Whose peak.
        start: First rate, requests per second.
        attainment: Share of the requests that have to meet the SLO.
        probe: Tries a rate.
    """
    probes: list[Probe] = []
    met: Tried | None = None
    missed: Tried | None = None
    tried: list[Tried] = []
    rate = start
    while len(tried) < MAX_RATES and start / MAX_FACTOR <= rate <= start * MAX_FACTOR:
        turns = await _best_of_three(rate, probe)
        probes += turns
        tried.append(Tried(rate, [turn for turn in turns if turn.met == _majority(turns)]))
        if tried[-1].met:
            met = tried[-1]
        else:
            missed = tried[-1]
        if met and missed and missed.rate <= met.rate * (1 + PRECISION):
            break
        rate = _next_rate(met.rate if met else None, missed.rate if missed else None)
    sure = [one for one in tried if one.is_sure(attainment) and not one.limit]
    return Peak(
        variant=variant,
        rate=max((one.rate for one in sure if one.met), default=None),
        missed_at=min((one.rate for one in sure if not one.met), default=None),
        probes=tuple(probes),
        note=_note(met, missed, attainment),
    )


async def _best_of_three(rate: float, probe: Try) -> list[Probe]:
    turns = [await probe(rate), await probe(rate)]
    return turns if turns[0].met == turns[1].met else [*turns, await probe(rate)]


def _majority(turns: Sequence[Probe]) -> bool:
    return sum(turn.met for turn in turns) > len(turns) / 2


def _note(met: Tried | None, missed: Tried | None, attainment: float) -> str:
    """Why the peak may be far from the two rates; empty if they are as near as the search goes."""
    if missed and missed.limit:
        return f"the generator was the limit at {missed.rate:.4g}/s ({missed.limit})"
    unclear = [one for one in (met, missed) if one and not one.is_sure(attainment)]
    if not unclear:
        return ""
    words = [f"at {one.rate:.4g}/s {one.num_met} of {one.counted} met it" for one in unclear]
    return f"unclear: {', '.join(words)}, too few requests to be sure"


def _next_rate(met: float | None, missed: float | None) -> float:
    if missed is None:
        return 2 * (met or 0)
    return missed / 2 if met is None else (met + missed) / 2


def to_probe(plan: LoadPlan, rate: float, round_: Round, limits: dict[str, float]) -> Probe:
    """Judge a turn at one rate."""
    samples = round_.samples
    found = attainment([round_], limits)
    reached = found.value if found else 0.0
    generators = _generators_miss(plan, round_, limits)
    why_not = generators or _servers_miss(plan, round_, reached, limits)
    latencies = endless(samples, samples.latency)
    latencies = latencies[~np.isnan(latencies)]
    p50, p99 = (percentile([latencies], level) for level in (0.5, 0.99))
    return Probe(
        rate=rate,
        achieved_rate=rate_until_last_answer([round_], count_ok).value,
        p50=p50.value if p50 else None,
        p99=p99.value if p99 else None,
        counted=int(is_decided(samples, limits).sum()),
        attainment=reached,
        met=not why_not,
        why_not=why_not,
        is_generators=bool(generators),
    )


def _generators_miss(plan: LoadPlan, round_: Round, limits: dict[str, float]) -> str:
    """Why the turn says nothing of the server; empty if it does."""
    lag = lag_share(round_.samples, limits)
    if lag is not None and lag > plan.max_lag_share:
        return f"the generator lagged by {lag:.0%} of the {lagged_time(limits)}"
    num_not_sent = int(round_.samples.had(NOT_SENT).sum())
    return no_open_loop(num_not_sent) if num_not_sent else ""


def _servers_miss(plan: LoadPlan, round_: Round, reached: float, limits: dict[str, float]) -> str:
    """Why the rate is not met; empty if it is."""
    if round_.stopped:
        return round_.stopped
    if reached < plan.attainment:
        return f"{reached:.1%} met the SLO (at least {plan.attainment:.1%})"
    num_undecided = int((~is_decided(round_.samples, limits)).sum())
    if too_many_undecided(num_undecided, len(round_.samples), plan.attainment):
        return f"{num_undecided} still ran after the grace"
    return ""
