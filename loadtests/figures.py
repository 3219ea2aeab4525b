"""Figures of one variant from its rounds. Each docstring is the figure's definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loadtests.intervals import mean_of
from loadtests.results import Distribution, IntervalEstimate
from loadtests.rounds import Round
from loadtests.samples import CUT_OFF, OK, Floats, RequestSamples
from serving.quality.statistics import share

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def distribution(rounds: Sequence[Floats]) -> Distribution | None:
    """Mean and percentiles; None without a finite value.

    Args:
        rounds: Of each round the values: NaN does not count, infinity (see ``endless``) counts for
            the percentiles alone.
    """
    counted = [values[~np.isnan(values)] for values in rounds]
    finite = [values[np.isfinite(values)] for values in rounds]
    if not any(map(len, finite)):
        return None
    return Distribution(
        count=sum(map(len, finite)),
        mean=mean_of([float(values.mean()) if len(values) else None for values in finite]),
        **{name: percentile(counted, level) for name, level in PERCENTILES.items()},
    )


def endless(samples: RequestSamples, values: Floats) -> Floats:
    """Times of requests, (requests,); infinite of those that have none because they never ended.

    Without them a variant that fails, or leaves without an answer, what it cannot answer in time
    would look fast. Of those that were cut off the time is unknown, but longer than others'.
    """
    return np.where(np.isnan(values) & ~samples.is_ok, np.inf, values)


def percentile(rounds: Sequence[Floats], level: float) -> IntervalEstimate | None:
    """A percentile, linear between the nearest samples.

    It takes at least one sample beyond it. Where every round that has samples has that, it is the
    mean of the rounds' percentiles; where only all of them together have it, it is theirs, with no
    interval; else None. None also where it is infinite.

    Args:
        rounds: Of each round the samples, without NaN.
        level: Share of the samples that lie below.
    """
    if not any(map(len, rounds)):
        return None
    if all(_is_enough(values, level) for values in rounds if len(values)):
        found = [_quantile(values, level) if len(values) else None for values in rounds]
        return None if math.inf in found else mean_of(found)
    pooled = np.concatenate(rounds)
    value = _quantile(pooled, level)
    return IntervalEstimate(value=value) if _is_enough(pooled, level) and value < math.inf else None


def _quantile(values: Floats, level: float) -> float:
    """As NumPy's, but infinite, not NaN, beside an infinite value."""
    ordered, rank = np.sort(values), level * (len(values) - 1)
    below, above = math.floor(rank + 1e-9), math.ceil(rank - 1e-9)
    if ordered[above] == math.inf:
        return math.inf
    return float(ordered[below] + (rank - below) * (ordered[above] - ordered[below]))


def _is_enough(values: Floats, level: float) -> bool:
    return len(values) * (1 - level) >= 1 - 1e-9


def rate_of(rounds: Sequence[Round], amount: Callable[[RequestSamples], float]) -> IntervalEstimate:
    """Something per second of the measured time."""
    return mean_of([amount(round_.samples) / round_.duration_s for round_ in rounds])


def rate_until_last_answer(
    rounds: Sequence[Round], amount: Callable[[RequestSamples], float]
) -> IntervalEstimate:
    """Something per second until the end of the turn or of the last success, whichever is later.

    So that what an overloaded server answers after the turn does not count as if it had come in it.
    """
    return mean_of([amount(round_.samples) / _until_last_answer(round_) for round_ in rounds])


def _until_last_answer(round_: Round) -> float:
    ended = round_.samples.ended[round_.samples.is_ok]
    return max(round_.duration_s, float(ended.max())) if len(ended) else round_.duration_s


def count_ok(samples: RequestSamples) -> float:
    """Requests answered with success."""
    return float(samples.is_ok.sum())


def count_output_tokens(samples: RequestSamples) -> float:
    """Output tokens of successes."""
    return float(np.nansum(samples.output_tokens[samples.is_ok]))


def errors_by_kind(samples: RequestSamples) -> dict[str, int]:
    """Requests by outcome, but for those that went well or were cut off."""
    counts = {kind: int(samples.had(kind).sum()) for kind in samples.outcomes}
    return {kind: n for kind, n in counts.items() if n and kind not in (OK, CUT_OFF)}


SLO_VALUES: dict[str, Callable[[RequestSamples], Floats]] = {
    "latency_ms": lambda samples: samples.latency * 1e3,
    "ttft_ms": lambda samples: samples.ttft * 1e3,
    "tpot_ms": lambda samples: samples.tpot * 1e3,
}


def met(samples: RequestSamples, limits: Mapping[str, float]) -> NDArray[np.bool_]:
    """Which requests were answered with success and kept every limit.

    What was not measured does not keep its limit, but for the time per output token of a success
    that has a single one: there is none.
    """
    kept = samples.is_ok
    for name, limit in limits.items():
        keeps = SLO_VALUES[name](samples) <= limit
        if name == "tpot_ms":
            keeps |= samples.output_tokens <= 1
        kept = kept & keeps
    return kept


def goodput(rounds: Sequence[Round], limits: Mapping[str, float]) -> IntervalEstimate:
    """Requests that met every limit, per second of the measured time."""
    return rate_of(rounds, lambda samples: float(met(samples, limits).sum()))


def is_decided(samples: RequestSamples, limits: Mapping[str, float]) -> NDArray[np.bool_]:
    """Which requests met the limits or surely did not, (requests,).

    A request that was cut off missed a limit that it had waited past by then. Before that it could
    still have kept it. Of the time per output token it says nothing.
    """
    waited = {"latency_ms": samples.ended - samples.planned}
    first = np.where(np.isnan(samples.first), samples.ended, samples.first)
    waited["ttft_ms"] = first - samples.planned
    is_past = np.zeros(len(samples), np.bool_)
    for name in waited.keys() & limits.keys():
        is_past |= waited[name] * 1e3 > limits[name]
    return ~samples.is_cut_off | is_past


def attainment(rounds: Sequence[Round], limits: Mapping[str, float]) -> IntervalEstimate | None:
    """Share of requests that met every limit; errors are misses, and so are cut-off requests.

    But those do not count that were cut off before they had waited past a limit.

    The interval is the wider of two. Student's over the rounds is a point where every round met the
    SLO entirely; Wilson's over the requests knows that 100 of 100 do not prove 99 %. Wilson's takes
    requests for independent, which those that queue together are not; the one over rounds does not.

    Returns:
        None if no request counts.
    """
    num_met = [int(met(round_.samples, limits).sum()) for round_ in rounds]
    counted = [int(is_decided(round_.samples, limits).sum()) for round_ in rounds]
    if not sum(counted):
        return None
    shares = [kept / all_ if all_ else None for kept, all_ in zip(num_met, counted, strict=True)]
    over_rounds = mean_of(shares, is_share=True)
    over_requests = share(sum(num_met), sum(counted))
    lows, highs = [over_requests.low, over_rounds.low], [over_requests.high, over_rounds.high]
    return IntervalEstimate(
        value=over_requests.value,
        low=min(low for low in lows if low is not None),
        high=max(high for high in highs if high is not None),
        by_round=over_rounds.by_round,
    )


def too_many_undecided(num_undecided: int, num_planned: int, target: float) -> bool:
    """Whether the target would be missed if those that were cut off early had missed the SLO."""
    return num_undecided > (1 - target) * num_planned


def lagged_time(limits: Mapping[str, float]) -> str:
    """Which of the measured times the generator's lag is held against: the one with a limit."""
    return "time to first token" if "ttft_ms" in limits else "latency"


def lag_share(samples: RequestSamples, limits: Mapping[str, float]) -> float | None:
    """p99 of the generator's lag / p99 of ``lagged_time``; None without both."""
    lags = samples.lag
    times = samples.ttft if lagged_time(limits) == "time to first token" else samples.latency
    lags, times = lags[~np.isnan(lags)], times[~np.isnan(times)]
    if not len(lags) or not len(times):
        return None
    return float(np.quantile(lags, 0.99) / np.quantile(times, 0.99))
