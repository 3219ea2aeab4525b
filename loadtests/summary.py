"""Joins everything that is known of one variant into its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from loadtests.agreement import agreement, agreements, pair
from loadtests.figures import (
    attainment,
    count_ok,
    count_output_tokens,
    distribution,
    endless,
    errors_by_kind,
    goodput,
    is_decided,
    lag_share,
    lagged_time,
    rate_of,
    rate_until_last_answer,
)
from loadtests.intervals import mean_of
from loadtests.plan import LoadPlan, Scenario
from loadtests.results import Distribution, ScenarioResult, ServerSide, VariantResult
from loadtests.rounds import Round, ServerRound, join, no_open_loop
from loadtests.samples import CUT_OFF, NO_DONE, NOT_SENT, OK, Floats, RequestSamples


def summarise(
    plan: LoadPlan, scenario: Scenario, reference: str, rounds: dict[str, list[Round]]
) -> ScenarioResult:
    """A scenario's result.

    Args:
        plan: The plan.
        scenario: One of it.
        reference: With whose answers the others' are compared.
        rounds: By variant, at least one each; without the reference if it had no turn.
    """
    return ScenarioResult(
        name=scenario.name,
        model=scenario.model,
        operation=scenario.operation,
        reference=reference,
        slo=scenario.slo.limits,
        variants=tuple(
            summarise_variant(plan, scenario, variant, found, rounds.get(reference, []))
            for variant, found in rounds.items()
        ),
    )


def summarise_variant(
    plan: LoadPlan, scenario: Scenario, variant: str, rounds: list[Round], reference: list[Round]
) -> VariantResult:
    """One variant's result; it is the reference itself if the two lists of rounds are one."""
    samples = join([round_.samples for round_ in rounds])
    is_stream, limits = scenario.is_streamed, scenario.slo.limits
    is_reference = rounds is reference
    lag = None if scenario.arrivals.kind == "closed" else lag_share(samples, limits)
    by_metric = {name: attainment(rounds, {name: limit}) for name, limit in limits.items()}
    cpu = [None if math.isnan(r.generator_cpu) else r.generator_cpu for r in rounds]
    tokens = count_output_tokens(samples)
    errors = errors_by_kind(samples)
    pairs = {} if is_reference else pair(_answers(rounds), _answers(reference))
    agreed = agreements(scenario.operation, list(pairs.values()))
    return VariantResult(
        variant=variant,
        is_reference=is_reference,
        offered_rate=rate_of(rounds, len),
        achieved_rate=rate_until_last_answer(rounds, count_ok),
        planned=len(samples),
        ok=int(samples.had(OK).sum()),
        cut_off=int(samples.had(CUT_OFF).sum()),
        errors=errors,
        latency=_times(rounds, lambda samples: samples.latency),
        latency_from_send=_times(rounds, lambda samples: samples.latency_from_send),
        ttft=_times(rounds, lambda samples: samples.ttft) if is_stream else None,
        ttft_from_send=_times(rounds, lambda samples: samples.ttft_from_send)
        if is_stream
        else None,
        tpot=_times(rounds, lambda samples: samples.tpot) if is_stream else None,
        output_tokens_per_s=rate_until_last_answer(rounds, count_output_tokens) if tokens else None,
        goodput=goodput(rounds, limits) if limits else None,
        slo_attainment=attainment(rounds, limits) if limits else None,
        slo_attainment_by_metric={name: share for name, share in by_metric.items() if share},
        lag=distribution([round_.samples.lag for round_ in rounds]),
        lag_share=lag,
        generator_cpu=None if set(cpu) == {None} else mean_of(cpu),
        server=server_side([round_.server for round_ in rounds]),
        agreement=agreement(scenario.operation, list(pairs.values()), agreed),
        stopped=tuple(
            f"round {number}: {round_.stopped}"
            for number, round_ in enumerate(rounds, 1)
            if round_.stopped
        ),
        problems=tuple(_problems(plan, limits, lag, int(samples.had(OK).sum()), errors)),
        undecided=int((~is_decided(samples, limits)).sum()),
        samples=samples.with_agreement(dict(zip(pairs, agreed.tolist(), strict=True))),
    )


def _times(rounds: Sequence[Round], of: Callable[[RequestSamples], Floats]) -> Distribution | None:
    return distribution([endless(round_.samples, of(round_.samples)) for round_ in rounds])


def server_side(rounds: Sequence[ServerRound]) -> ServerSide:
    """Means over the rounds that have them; the rest from the last round, and memory of each."""
    names = dict.fromkeys(name for round_ in rounds for name in round_.means)
    means = {name: [r.means.get(name) for r in rounds] for name in names}
    resident = [r.last["resident_bytes"] for r in rounds if "resident_bytes" in r.last]
    return ServerSide.model_validate(
        {name: mean_of(values) for name, values in means.items()}
        | rounds[-1].last
        | ({"resident_bytes_by_round": resident} if resident else {})
    )


def _answers(rounds: Sequence[Round]) -> list[dict[int, bytes]]:
    return [round_.answers for round_ in rounds]


def _problems(
    plan: LoadPlan,
    limits: dict[str, float],
    lag: float | None,
    num_ok: int,
    errors: dict[str, int],
) -> Iterator[str]:
    if NOT_SENT in errors:
        yield no_open_loop(errors[NOT_SENT])
    if not num_ok:
        yield f"no request was answered with success{_hint(errors)}"
    elif lag is not None and lag > plan.max_lag_share:
        yield (
            f"the generator lagged: its p99 is {lag:.0%} of the measured p99 {lagged_time(limits)} "
            f"(at most {plan.max_lag_share:.0%}); lower the rate, or give it a core of its own"
        )


def _hint(errors: dict[str, int]) -> str:
    if NO_DONE not in errors:
        return ""
    return (
        f": {errors[NO_DONE]} streams ended without the event data: [DONE], by which one that is "
        "whole is told from one that broke off; does this server send it?"
    )
