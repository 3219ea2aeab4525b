"""The search for the peak, on a server that is a formula."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from loadtests.client import Exchange
from loadtests.peak import MAX_RATES, PRECISION, find_peak, to_probe
from loadtests.results import Probe
from loadtests.rounds import Round, ServerRound, to_samples
from tests.unit.loadtests.plans import make_plan


def probing(
    meets: Callable[[float, int], bool], lags_above: float = math.inf, counted: int = 1_000
) -> tuple[Callable, list[float]]:
    rates: list[float] = []

    async def probe(rate: float) -> Probe:
        rates.append(rate)
        met = meets(rate, len(rates))
        return Probe(
            rate=rate,
            achieved_rate=rate,
            p50=None,
            p99=None,
            counted=counted,
            attainment=float(met),
            met=met,
            why_not="" if met else "lagged" if rate > lags_above else "slow",
            is_generators=not met and rate > lags_above,
        )

    return probe, rates


@pytest.mark.parametrize("peak", [0.3, 9.9, 10, 37, 900])
async def test_the_peak_lies_between_two_rates(peak) -> None:
    probe, rates = probing(lambda rate, _: rate <= peak)
    found = await find_peak("v", 10, 0.99, probe)
    assert found.rate is not None
    assert found.missed_at is not None
    assert found.rate <= peak < found.missed_at <= found.rate * (1 + PRECISION)
    assert [probe.rate for probe in found.probes] == rates
    assert len(rates) <= 2 * MAX_RATES
    assert found.note == ""


@pytest.mark.parametrize("disturbed", [1, 2])
@pytest.mark.parametrize("rate", [10, 40])
async def test_one_disturbance_decides_nothing(disturbed, rate) -> None:
    """Neither a turn that misses a rate that can be met, nor one that meets one that cannot."""
    tried: Counter[float] = Counter()

    def meets(this: float, _: int) -> bool:
        tried[this] += 1
        return (this <= 37) != (this == rate and tried[this] == disturbed)

    probe, _ = probing(meets)
    found = await find_peak("v", 10, 0.99, probe)
    assert found.rate is not None
    assert found.missed_at is not None
    assert found.rate <= 37 < found.missed_at <= found.rate * (1 + PRECISION)
    assert tried[rate] == 3


async def test_too_few_requests_leave_it_unclear() -> None:
    probe, _ = probing(lambda rate, _: rate <= 37, counted=12)
    found = await find_peak("v", 10, 0.99, probe)
    assert found.rate is None
    assert found.missed_at is not None
    assert found.missed_at > 37
    assert "unclear: at 35/s 24 of 24 met it" in found.note


@pytest.mark.parametrize(("always", "rate"), [(False, None), (True, 8192.0)])
async def test_the_search_ends_where_there_is_no_peak(always, rate) -> None:
    probe, rates = probing(lambda *_: always)
    found = await find_peak("v", 16, 0.99, probe)
    assert found.rate == rate
    assert len(rates) <= 2 * MAX_RATES


async def test_a_limit_of_the_generator_is_not_the_servers() -> None:
    probe, _ = probing(lambda rate, _: rate <= 37, lags_above=37)
    found = await find_peak("v", 10, 0.99, probe)
    assert found.rate == pytest.approx(37, rel=PRECISION)
    assert found.missed_at is None
    assert found.note.startswith("the generator was the limit at 3")
    assert found.note.endswith("/s (lagged)")


async def test_a_generator_that_lags_beyond_the_servers_peak_does_not_matter() -> None:
    probe, _ = probing(lambda rate, _: rate <= 37, lags_above=60)
    found = await find_peak("v", 10, 0.99, probe)
    assert (found.note, found.missed_at) == ("", pytest.approx(37, rel=2 * PRECISION))


def turn(*outcomes: str, lag: float = 0.0, stopped: str = "") -> Round:
    exchanges: Sequence[Exchange] = [answered(i, name, lag) for i, name in enumerate(outcomes)]
    return Round(to_samples(0, exchanges, 0), 10.0, stopped, 0.0, {}, ServerRound({}, {}))


def answered(index: int, outcome: str, lag: float) -> Exchange:
    times: dict[str, Any] = {"sent": index + lag, "ended": index + lag + 0.1}
    if outcome == "hanging":
        return Exchange(index, float(index), sent=float(index), ended=index + 30.0)
    return Exchange(
        index, float(index), outcome=outcome, **(times if outcome in ("ok", "cut_off") else {})
    )


@pytest.mark.parametrize(
    ("round_", "why_not", "is_generators"),
    [
        (turn(*["ok"] * 100), "", False),
        (turn(*["ok"] * 99, "cut_off"), "", False),
        (turn(*["ok"] * 98, *["cut_off"] * 2), "2 still ran after the grace", False),
        (turn(*["ok"] * 98, *["hanging"] * 2), "98.0% met the SLO (at least 99.0%)", False),
        (turn(*["ok"] * 98, *["timeout"] * 2), "98.0% met the SLO (at least 99.0%)", False),
        (turn(*["ok"] * 100, stopped="too much"), "too much", False),
        (turn(*["ok"] * 100, lag=0.9), "the generator lagged by 90% of the latency", True),
        (
            turn(*["ok"] * 90, *["not_sent"] * 10, stopped="errors"),
            "no longer an open loop: 10 not sent, raise max_in_flight",
            True,
        ),
    ],
)
def test_a_turn_is_judged(round_, why_not, is_generators) -> None:
    probe = to_probe(make_plan(), 10, round_, {"latency_ms": 500})
    assert (probe.why_not, probe.met) == (why_not, not why_not)
    assert probe.is_generators == is_generators


def test_a_turns_percentiles_take_enough_requests_and_count_those_that_failed() -> None:
    few = to_probe(make_plan(), 10, turn(*["ok"] * 99), {"latency_ms": 500})
    assert (few.counted, few.p50, few.p99) == (99, pytest.approx(0.1), None)
    failed = to_probe(make_plan(), 10, turn(*["ok"] * 40, *["timeout"] * 60), {"latency_ms": 500})
    assert (failed.p50, failed.p99) == (None, None)
