"""What the pictures are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.report.latency_pictures import cumulative, over_time
from loadtests.report.pareto_picture import pareto_picture
from loadtests.report.pareto_points import judge, place, speeds
from loadtests.report.rate_picture import rate_points
from loadtests.report.styles import styles
from loadtests.results import Peak
from tests.unit.loadtests.report.runs import DURATION_S, REQUESTS, Made, make_results

MIB = 1024**2


@pytest.mark.parametrize(
    "made", [Made(num_errors=REQUESTS // 4), Made(num_cut_off=REQUESTS // 4)], ids=["failed", "cut"]
)
def test_what_was_never_answered_keeps_the_curve_below_one(made: Made) -> None:
    variant = make_results({"fp32": made}).scenarios[0].variants[0]
    times, shares = cumulative(variant.samples)
    assert (np.diff(times) >= 0).all()
    assert shares[0] > 0
    assert shares[-1] == pytest.approx(0.75)
    assert times[-1] == pytest.approx(np.nanmax(variant.samples.latency))


def test_stretches_of_time_stay_within_their_round() -> None:
    variant = make_results({"fp32": Made(latency_s=0.02)}, rounds=2).scenarios[0].variants[0]
    seconds, p50, p95, ends = over_time(variant.samples)
    assert len(seconds) == 2 * REQUESTS // 20
    assert (np.diff(seconds) > 0).all()
    assert (seconds < ends[0]).sum() == REQUESTS // 20
    assert ends == pytest.approx([DURATION_S, 2 * DURATION_S], abs=0.5)
    assert p50 == pytest.approx(np.full(len(p50), 0.02), rel=0.3)
    assert (p95 > p50).all()


def test_steps_are_rates_of_their_own() -> None:
    steps = [{"rate": 10, "duration_s": 4}, {"rate": 30, "duration_s": 6}]
    results = make_results({"fp32": Made()}, arrivals={"kind": "steps", "steps": steps})
    latency = results.scenarios[0].variants[0].samples.latency
    planned = results.scenarios[0].variants[0].samples.planned
    (rate, p50, _), (later, later_p50, _) = rate_points(results, 0, "fp32")
    assert (rate, later) == (10, 30)
    assert p50 == pytest.approx(np.median(latency[planned < 4]))
    assert later_p50 == pytest.approx(np.median(latency[planned >= 4]))


def test_scenarios_that_differ_only_in_their_rate_share_a_picture() -> None:
    one, other = make_results({"fp32": Made()}), make_results({"fp32": Made(0.05)})
    both = one.model_copy(
        update={
            "scenarios": one.scenarios + other.scenarios,
            "plan": {**one.plan, "scenarios": one.plan["scenarios"] + other.plan["scenarios"]},
        }
    )
    assert len(rate_points(both, 0, "fp32")) == len(rate_points(both, 1, "fp32")) == 2
    both.plan["scenarios"][1] = {**both.plan["scenarios"][1], "inputs": {"file": "other"}}
    assert len(rate_points(both, 0, "fp32")) == 1


def test_a_point_without_enough_requests_has_no_p99() -> None:
    steps = [{"rate": 1, "duration_s": 0.5}, {"rate": 30, "duration_s": 9.5}]
    arrivals = {"kind": "steps", "steps": steps}
    results = make_results({"fp32": Made()}, arrivals=arrivals, rounds=2)
    (_, p50, p99), (_, _, later) = rate_points(results, 0, "fp32")
    assert p50 > 0
    assert np.isnan(p99)
    assert later > 0


def test_peaks_are_placed_and_judge_nobody() -> None:
    variants = {
        "fp32": Made(0.02, weights=90 * MIB),
        "same": Made(0.02, weights=90 * MIB),
        "worse": Made(0.04, off_labels=20, weights=90 * MIB),
    }
    rates = {"fp32": 40, "same": 40, "worse": 20}
    peaks = tuple(
        Peak(variant=name, rate=rate, missed_at=1.1 * rate, probes=())
        for name, rate in rates.items()
    )
    scenario = make_results(variants, peaks=peaks).scenarios[0]
    latency, peak = speeds(scenario)
    points = place(scenario, peak)
    assert (points["worse"].speed.low, points["worse"].speed.high) == (20, pytest.approx(22))
    assert judge(peak, points) == (set(), [])
    assert "worse" in judge(latency, place(scenario, latency))[0]
    picture = pareto_picture(scenario)
    assert picture is not None
    assert "By the highest rate nothing is joined or grey" in picture.caption


def test_the_axes_are_what_the_slo_times() -> None:
    variants = {"fp32": Made(0.02, ttft_s=0.012), "fast": Made(0.05, ttft_s=0.004)}

    def titles(slo: dict[str, float]) -> list[str]:
        return [speed.title for speed in speeds(make_results(variants, slo=slo).scenarios[0])]

    assert titles({"ttft_ms": 9}) == ["p95 TTFT from the planned time, ms", "SLO met, %"]
    assert titles({"ttft_ms": 9, "tpot_ms": 9}) == [
        "p95 TTFT from the planned time, ms",
        "p95 TPOT, ms per token",
    ]
    assert titles({"latency_ms": 9})[0] == "p95 latency from the planned time, ms"
    assert len(titles({})) == 1
    scenario = make_results(variants, slo={"ttft_ms": 9}).scenarios[0]
    assert place(scenario, speeds(scenario)[0])["fast"].speed.value == pytest.approx(0.004)


def test_a_peak_that_was_not_found_is_open_to_the_right() -> None:
    peaks = (Peak(variant="fp32", rate=40, missed_at=None, probes=(), note="the generator"),)
    scenario = make_results({"fp32": Made(), "int4": Made()}, peaks=peaks).scenarios[0]
    points = place(scenario, speeds(scenario)[1])
    assert list(points) == ["fp32"]
    assert (points["fp32"].speed.low, points["fp32"].speed.high) == (40, None)


@pytest.mark.parametrize(
    ("quick", "reason"),
    [
        (Made(0.001, num_errors=REQUESTS // 10), "too many errors or too few requests"),
        (Made(0.001, stopped="over-saturated"), "stopped early"),
        (Made(0.001, num_cut_off=REQUESTS // 10), "too many cut off"),
        (Made(0.001, num_errors=REQUESTS), "not valid"),
    ],
)
def test_who_fails_or_was_stopped_does_not_dominate_the_healthy(quick, reason) -> None:
    variants = {"fp32": Made(0.02), "same": Made(0.02), "quick": quick}
    scenario = make_results(variants).scenarios[0]
    latency = speeds(scenario)[0]
    assert "quick" not in place(scenario, latency)
    picture = pareto_picture(scenario)
    assert picture is not None
    assert "By p95 latency from the planned time: dominated none" in picture.caption
    assert f"Not placed by p95 latency from the planned time: quick ({reason})." in picture.caption


def test_goodput_is_ranked_by_the_share_that_met_the_slo() -> None:
    variants = {"fp32": Made(0.1), "fast": Made(0.02), "same": Made(0.02)}
    scenario = make_results(variants, rounds=3).scenarios[0]
    met = speeds(scenario)[1]
    grey, pairs = judge(met, place(scenario, met))
    assert (grey, pairs) == ({"fp32"}, [("fast", "same")])


def test_without_intervals_nothing_is_judged() -> None:
    scenario = make_results({"a": Made(0.02), "b": Made(0.04)}, rounds=1).scenarios[0]
    speed = speeds(scenario)[0]
    assert judge(speed, place(scenario, speed)) == (set(), [])


def test_a_style_belongs_to_its_variant() -> None:
    assert styles(["int4", "x"])["int4"] == styles(["int4"])["int4"]
    look = styles(["fp32", "bf16", "int8-dynamic", "int4", "v", "w", "x", "y"])
    assert len({(style.colour, style.marker) for style in look.values()}) == 8
    assert len({style.marker for style in look.values()}) == 8
