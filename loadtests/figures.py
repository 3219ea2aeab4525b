"""Figures of one variant from its rounds. Each docstring is the figure's definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from loadtests.intervals import mean_of
from loadtests.results import Distribution, Estimate
from loadtests.rounds import Round
from loadtests.samples import CUT_OFF, OK, Floats, Samples

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def distribution(rounds: Sequence[Floats]) -> Distribution | None:
    """Mean and percentiles of the values that are not NaN; None without any."""
    known = [values[~np.isnan(values)] for values in rounds]
    known = [values for values in known if len(values)]
    if not known:
        return None
    return Distribution(
        count=sum(map(len, known)),
        mean=mean_of([float(values.mean()) for values in known]),
        **{name: percentile(known, share) for name, share in PERCENTILES.items()},
    )


def percentile(rounds: Sequence[Floats], share: float) -> Estimate | None:
    """A percentile, linear between the nearest samples.

    It takes at least one sample beyond it. Where every round has that, it is the mean of the
    rounds' percentiles; where only all of them together have it, it is theirs, with no interval;
    else None.
    """
    if all(_is_enough(values, share) for values in rounds):
        return mean_of([float(np.quantile(values, share)) for values in rounds])
    pooled = np.concatenate(rounds)
    return Estimate(value=float(np.quantile(pooled, share))) if _is_enough(pooled, share) else None


def _is_enough(values: Floats, share: float) -> bool:
    return len(values) * (1 - share) >= 1 - 1e-9


def rate_of(rounds: Sequence[Round], amount: Callable[[Samples], float]) -> Estimate:
    """Something per second of the measured time."""
    return mean_of([amount(round_.samples) / round_.duration_s for round_ in rounds])


def rate_until_last_answer(rounds: Sequence[Round], amount: Callable[[Samples], float]) -> Estimate:
    """Something per second until the end of the turn or of the last success, whichever is later.

    So that what an overloaded server answers after the turn does not count as if it had come in it.
    """
    return mean_of([amount(round_.samples) / _until_last_answer(round_) for round_ in rounds])


def _until_last_answer(round_: Round) -> float:
    ended = round_.samples.ended[round_.samples.is_ok]
    return max(round_.duration_s, float(ended.max())) if len(ended) else round_.duration_s


def count_ok(samples: Samples) -> float:
    """Requests answered with success."""
    return float(samples.is_ok.sum())


def count_output_tokens(samples: Samples) -> float:
    """Output tokens of successes."""
    return float(np.nansum(samples.output_tokens[samples.is_ok]))


def errors_by_kind(samples: Samples) -> dict[str, int]:
    """Requests by outcome, but for those that went well or were cut off."""
    counts = {kind: int(samples.had(kind).sum()) for kind in samples.outcomes}
    return {kind: n for kind, n in counts.items() if n and kind not in (OK, CUT_OFF)}


SLO_VALUES: dict[str, Callable[[Samples], Floats]] = {
    "latency_ms": lambda samples: samples.latency * 1e3,
    "ttft_ms": lambda samples: samples.ttft * 1e3,
    "tpot_ms": lambda samples: samples.tpot * 1e3,
}


def met(samples: Samples, limits: dict[str, float]) -> NDArray[np.bool_]:
    """Which requests were answered with success and kept every limit.

    A success whose time per output token has no meaning, for it has one token, keeps that limit.
    """
    kept = samples.is_ok
    for name, limit in limits.items():
        values = SLO_VALUES[name](samples)
        kept = kept & ((values <= limit) | (np.isnan(values) & (name == "tpot_ms")))
    return kept


def goodput(rounds: Sequence[Round], limits: dict[str, float]) -> Estimate:
    """Requests that met every limit, per second of the measured time."""
    return rate_of(rounds, lambda samples: float(met(samples, limits).sum()))


def attainment(rounds: Sequence[Round], limits: dict[str, float]) -> Estimate | None:
    """Share of requests that met every limit; errors are misses, cut-off requests do not count.

    None if no request counts.
    """
    shares = [
        float(met(round_.samples, limits).sum()) / counted
        for round_ in rounds
        if (counted := int((~round_.samples.is_cut_off).sum()))
    ]
    return mean_of(shares, is_share=True) if shares else None


def too_many_cut_off(num_cut_off: int, num_planned: int, target: float) -> bool:
    """Whether the target would be missed if those that were cut off had missed the SLO."""
    return num_cut_off > (1 - target) * num_planned


def lag_share(samples: Samples) -> float | None:
    """p99 of the generator's lag / p99 of the latency from the planned time; None without both."""
    lags, latencies = samples.lag, samples.latency
    lags, latencies = lags[~np.isnan(lags)], latencies[~np.isnan(latencies)]
    if not len(lags) or not len(latencies):
        return None
    return float(np.quantile(lags, 0.99) / np.quantile(latencies, 0.99))
