"""What the pictures are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.report.latency_pictures import cumulative, over_time
from loadtests.report.rate_picture import rate_points
from loadtests.report.spots import judge, place, speeds
from loadtests.report.styles import styles
from loadtests.results import Peak
from tests.unit.loadtests.report.runs import DURATION_S, REQUESTS, Made, make_results

MIB = 1024**2


def test_errors_keep_the_curve_below_one() -> None:
    variant = make_results({"fp32": Made(num_errors=REQUESTS // 4)}).scenarios[0].variants[0]
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


def test_speed_is_a_peak_where_one_was_searched() -> None:
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
    assert judge(peak, place(scenario, peak)) == ({"worse"}, [("fp32", "same")])
    assert judge(latency, place(scenario, latency))[0] == {"worse"}


def test_the_axes_are_what_the_slo_times() -> None:
    variants = {"fp32": Made(0.02, ttft_s=0.012), "fast": Made(0.05, ttft_s=0.004)}

    def titles(slo: dict[str, float]) -> list[str]:
        return [speed.title for speed in speeds(make_results(variants, slo=slo).scenarios[0])]

    assert titles({"ttft_ms": 9}) == ["p95 TTFT from the planned time, ms", "goodput, requests/s"]
    assert [title[:8] for title in titles({"ttft_ms": 9, "tpot_ms": 9})] == ["p95 TTFT", "p95 TPOT"]
    assert titles({"latency_ms": 9})[0] == "p95 latency from the planned time, ms"
    scenario = make_results(variants, slo={"ttft_ms": 9}).scenarios[0]
    assert place(scenario, speeds(scenario)[0])["fast"].speed.value == pytest.approx(0.004)


def test_a_peak_that_was_not_found_is_open_to_the_right() -> None:
    peaks = (Peak(variant="fp32", rate=40, missed_at=None, probes=(), problem="the generator"),)
    scenario = make_results({"fp32": Made(), "int4": Made()}, peaks=peaks).scenarios[0]
    spots = place(scenario, speeds(scenario)[1])
    assert list(spots) == ["fp32"]
    assert (spots["fp32"].speed.low, spots["fp32"].speed.high) == (40, None)


def test_without_intervals_nothing_is_judged() -> None:
    scenario = make_results({"a": Made(0.02), "b": Made(0.04)}, rounds=1).scenarios[0]
    speed = speeds(scenario)[0]
    assert judge(speed, place(scenario, speed)) == (set(), [])


def test_a_style_belongs_to_its_variant() -> None:
    assert styles(["int4", "x"])["int4"] == styles(["int4"])["int4"]
    look = styles(["fp32", "bf16", "int8-dynamic", "int4", "v", "w", "x", "y"])
    assert len({(style.colour, style.marker) for style in look.values()}) == 8
    assert len({style.marker for style in look.values()}) == 8
