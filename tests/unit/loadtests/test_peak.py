"""The search for the peak, on a server that is a formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loadtests.peak import MAX_PROBES, PRECISION, find_peak
from loadtests.results import Probe


def probing(meets: Callable[[float, int], bool]) -> tuple[Callable, list[float]]:
    rates: list[float] = []

    async def probe(rate: float) -> Probe:
        rates.append(rate)
        met = meets(rate, len(rates))
        return Probe(
            rate=rate,
            achieved_rate=rate,
            p50=None,
            p99=None,
            attainment=float(met),
            met=met,
            why_not="" if met else "slow",
        )

    return probe, rates


@pytest.mark.parametrize("peak", [0.3, 9.9, 10, 37, 900])
async def test_the_peak_lies_between_two_rates(peak) -> None:
    probe, rates = probing(lambda rate, _: rate <= peak)
    found = await find_peak("v", 10, probe)
    assert found.rate is not None
    assert found.missed_at is not None
    assert found.rate <= peak < found.missed_at <= found.rate * (1 + PRECISION)
    assert [probe.rate for probe in found.probes] == rates
    assert len(rates) <= MAX_PROBES


async def test_one_disturbance_does_not_end_the_search() -> None:
    probe, _ = probing(lambda rate, number: rate <= 37 and number != 1)
    found = await find_peak("v", 10, probe)
    assert found.rate == pytest.approx(37, rel=PRECISION)


@pytest.mark.parametrize(("always", "rate"), [(False, None), (True, 8192.0)])
async def test_the_search_ends_where_there_is_no_peak(always, rate) -> None:
    probe, rates = probing(lambda *_: always)
    found = await find_peak("v", 16, probe)
    assert found.rate == rate
    assert len(rates) <= MAX_PROBES
