"""The recommendation says what the figures say, and no more."""

from __future__ import annotations

import pytest

from loadtests.report.advice import advice
from loadtests.report.slo import sure_attainment, verdict
from loadtests.results import Peak
from tests.unit.loadtests.report.runs import Made, make_results

MIB = 1024**2
FAST = Made(latency_s=0.01, off_labels=10, weights=30 * MIB)
SLOW = Made(latency_s=0.02, weights=90 * MIB)
SMALL = Made(latency_s=0.03, off_labels=60, weights=10 * MIB)


def text(variants: dict[str, Made], target: float = 0.99, **fields: object) -> str:
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
    assert verdict(variant, {"latency_ms": 1_000}, 0.99) == "unclear"
    assert verdict(variant, {"latency_ms": 1_000}, 0.9) == "meets"


def test_the_interval_is_the_wider_of_the_two() -> None:
    results = make_results({"fp32": Made(num_errors=2)}, slo={"latency_ms": 1_000})
    variant = results.scenarios[0].variants[0]
    over_rounds, sure = variant.slo_attainment, sure_attainment(variant, {"latency_ms": 1_000})
    assert over_rounds is not None
    assert over_rounds.low == over_rounds.high == pytest.approx(0.99)
    assert sure is not None
    assert sure.low is not None
    assert sure.low < 0.985


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"slo": {}}, "no SLO"), ({"lag_s": 0.05}, "not valid")],
)
def test_nothing_is_recommended_without_slo_or_validity(fields, message) -> None:
    found = text({"fp32": SLOW, "fast": FAST}, **fields)
    assert message in found
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
    assert "%  (40 cut off, not counted)".replace("  ", " ") in found
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


def test_a_limit_of_the_generator_is_told_as_one() -> None:
    problem = "at least 40/s: the generator was the limit"
    peaks = (Peak(variant="fp32", rate=40, missed_at=None, probes=(), problem=problem),)
    assert f"one turn each: fp32 {problem}." in text({"fp32": SLOW}, peaks=peaks)


def test_peaks_are_told_with_the_rate_missed() -> None:
    peaks = (
        Peak(variant="fp32", rate=40, missed_at=44, probes=()),
        Peak(variant="fast", rate=None, missed_at=1, probes=()),
    )
    found = text({"fp32": SLOW, "fast": FAST}, peaks=peaks)
    assert "fp32 40/s (missed at 44/s), fast none (missed at 1/s)" in found


def test_names_are_shown_as_they_are() -> None:
    assert r"**a\_b\*** meets it" in text({"a_b*": FAST}, slo={"latency_ms": 200})
