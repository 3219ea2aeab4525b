"""The recommendation says what the figures say, and no more."""

from __future__ import annotations

from typing import Any

from loadtests.report.advice import advice
from loadtests.report.slo import verdict
from loadtests.results import IntervalEstimate, VariantResult
from tests.unit.loadtests.report.runs import Made, make_results

MIB = 1024**2
FAST = Made(latency_s=0.01, off_labels=10, weights=30 * MIB)
SLOW = Made(latency_s=0.02, weights=90 * MIB)
SMALL = Made(latency_s=0.03, off_labels=60, weights=10 * MIB)


def p95_of(variant: VariantResult) -> IntervalEstimate:
    assert variant.latency is not None
    assert variant.latency.p95 is not None
    return variant.latency.p95


def text(variants: dict[str, Made], target: float = 0.99, **fields: Any) -> str:
    return "\n".join(advice(make_results(variants, **fields).scenarios[0], target))


def test_the_fastest_the_smallest_and_the_closest_that_meet_it_are_named() -> None:
    found = text({"fp32": SLOW, "fast": FAST, "small": SMALL}, slo={"latency_ms": 200})
    assert "latency ≤ 200 ms for 99 % of the requests" in found
    assert "**fast** meets it with the lowest p95" in found
    assert "smallest that meets it is **small**" in found
    assert "closest to the reference that meets it is **fp32**" in found
    assert "agreement 0.9500 (" in found
    assert "cannot be told" not in found


def test_variants_that_the_samples_cannot_tell_apart_are_named() -> None:
    found = text({"fp32": SLOW, "a": FAST, "b": FAST}, slo={"latency_ms": 200}, seed=3)
    assert any(f"{name} cannot be told from it in p95" in found for name in "ab")


def test_rounds_that_differ_do_not_hide_what_every_round_shows() -> None:
    variants = {"fp32": SLOW, "fast": FAST}
    results = make_results(variants, rounds=3, slo={"latency_ms": 500}, pace=(1, 2.5, 1.1))
    slow, fast = (p95_of(variant) for variant in results.scenarios[0].variants)
    assert fast.high is not None
    assert slow.low is not None
    assert fast.high > slow.low
    found = "\n".join(advice(results.scenarios[0], 0.99))
    assert "**fast** meets it with the lowest p95" in found
    assert "cannot be told" not in found


def test_nobody_is_called_the_lowest_of_what_is_not_known() -> None:
    scenario = make_results({"fp32": SLOW, "fast": FAST}, slo={"latency_ms": 200}).scenarios[0]
    unknown = [
        variant.model_copy(update={"latency": variant.latency.model_copy(update={"p95": None})})
        for variant in scenario.variants
        if variant.latency
    ]
    found = "\n".join(advice(scenario.model_copy(update={"variants": tuple(unknown)}), 0.99))
    assert "**fp32** and **fast**: meet it; too few samples for their p95 latency" in found
    assert "lowest" not in found


def test_nothing_is_recommended_where_nothing_meets_the_slo() -> None:
    found = text({"fp32": SLOW, "fast": FAST}, slo={"latency_ms": 10})
    assert "No variant surely meets it" in found
    assert "fast comes closest: 51.25 (44.58 … 57.92) %" in found
    assert "Miss it: fp32 with 0.12 (0.00 … " in found
    assert "** meets it" not in found


def test_too_few_requests_leave_it_open() -> None:
    results = make_results({"fp32": SLOW}, slo={"latency_ms": 1_000}, rounds=1)
    variant = results.scenarios[0].variants[0]
    assert variant.slo_attainment is not None
    assert variant.slo_attainment.value == 1
    assert verdict(variant, 0.99) == "unclear"
    assert verdict(variant, 0.9) == "meets"


def test_nothing_is_recommended_without_slo() -> None:
    found = text({"fp32": SLOW, "fast": FAST}, slo={})
    assert "no SLO" in found
    assert "nothing is recommended" in found
    assert "** meets it" not in found


def test_a_variant_that_was_stopped_does_not_meet_it() -> None:
    stopped = Made(latency_s=0.01, stopped="over-saturated")
    found = text({"fp32": SLOW, "fast": stopped}, slo={"latency_ms": 200})
    assert "**fp32** meets it" in found
    assert "Miss it: fast was stopped (round 1: over-saturated)" in found


def test_requests_that_were_cut_off_leave_it_open() -> None:
    found = text({"fp32": SLOW, "fast": Made(0.01, num_cut_off=10)}, slo={"latency_ms": 200})
    assert "**fp32** meets it" in found
    assert "May meet it or not: fast with 100.00 (" in found
    assert "%  (40 cut off before a limit, not counted)".replace("  ", " ") in found
    few = text({"fp32": SLOW, "fast": Made(0.01, num_cut_off=1)}, slo={"latency_ms": 200})
    assert "**fast** meets it" in few


def test_what_the_slo_times_decides_who_is_fastest() -> None:
    variants = {"fp32": Made(0.02, ttft_s=0.012), "fast": Made(0.05, ttft_s=0.004)}
    found = text(variants, slo={"ttft_ms": 100})
    assert "**fast** meets it with the lowest p95 TTFT: p95 TTFT 4.0 (4.0 … 4.0) ms" in found
    both = text(variants, slo={"ttft_ms": 100, "tpot_ms": 100})
    assert "p95 TPOT" in both
    whole = text(variants, slo={"latency_ms": 1_000})
    assert "**fp32** meets it with the lowest p95 latency" in whole


def test_names_are_shown_as_they_are() -> None:
    assert r"**a\_b\*** meets it" in text({"a_b*": FAST}, slo={"latency_ms": 200})
