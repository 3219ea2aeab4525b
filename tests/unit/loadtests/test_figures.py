"""Every figure from samples whose figures are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from loadtests.client import Exchange
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
    met,
    percentile,
    rate_of,
    rate_until_last_answer,
)
from loadtests.intervals import mean_of
from loadtests.rounds import Round, ServerRound, join, to_samples

STARTED = 1_000.0


def exchange(planned: float, latency: float = 0.1, **fields: Any) -> Exchange:
    """A request planned at a second of the measured time, sent at once, and answered."""
    sent = STARTED + planned
    fields = {"sent": sent, "ended": sent + latency, "outcome": "ok", **fields}
    return Exchange(0, STARTED + planned, **fields)


def a_round(exchanges: Sequence[Exchange], number: int = 0) -> Round:
    samples = to_samples(number, exchanges, STARTED)
    return Round(samples, 10.0, "", 0.0, {}, ServerRound({}, {}))


def test_students_interval_over_rounds() -> None:
    # Mean 0.2, standard deviation 0.1, t of 2 degrees of freedom is 4.303: 4.303 / √3 * 0.1.
    found = mean_of([0.1, 0.2, 0.3, None], is_share=True)
    assert (found.value, found.high) == pytest.approx((0.2, 0.4484), abs=1e-4)
    assert (found.low, found.by_round) == (0, (0.1, 0.2, 0.3, None))
    assert mean_of([5]).low is None
    assert mean_of([0.9, 1.0], is_share=True).high == 1


def test_times_have_no_interval_below_zero() -> None:
    # Logs 1, 2, 3: 2 ± 4.303 / √3.
    found = mean_of([math.exp(1), math.exp(2), math.exp(3)])
    assert found.low is not None
    assert found.high is not None
    assert np.log([found.low, found.value, found.high]) == pytest.approx(
        [2 - 2.4841, 2, 2 + 2.4841], abs=1e-4
    )
    high = mean_of([1e-300, 1e300]).high
    assert high is not None
    assert high < math.inf
    assert mean_of([0, 2]).value == 1


@pytest.mark.parametrize("outcomes", [("timeout",) * 2, ("cut_off",) * 2, ("timeout", "cut_off")])
def test_requests_that_failed_or_never_ended_are_infinitely_late(outcomes) -> None:
    good = [exchange(index / 10, latency=(index + 1) / 10) for index in range(19)]
    others = [exchange(9, latency=5, outcome=outcome) for outcome in outcomes]
    samples = a_round([*good, *others]).samples
    found = distribution([endless(samples, samples.latency)])
    assert found is not None
    assert found.count == 19
    assert found.mean.value == pytest.approx(1.0)
    assert found.p50 is not None
    assert found.p50.value == pytest.approx(1.1)
    assert found.p90 is not None
    assert found.p90.value == pytest.approx(1.9)
    assert found.p95 is None


def test_one_in_ten_that_hangs_is_a_miss_and_the_slowest() -> None:
    answered = [exchange(index / 10, latency=0.05) for index in range(90)]
    hanging = [exchange(9, latency=30, outcome="cut_off")] * 10
    round_ = a_round([*answered, *hanging])
    share = attainment([round_], {"latency_ms": 100})
    assert share is not None
    assert share.value == pytest.approx(0.9)
    found = distribution([endless(round_.samples, round_.samples.latency)])
    assert found is not None
    assert found.p50 is not None
    assert found.p95 is None


def test_a_request_that_was_cut_off_has_missed_only_what_it_waited_past() -> None:
    soon = exchange(0, latency=0.05, outcome="cut_off")
    streaming = exchange(1, latency=0.5, outcome="cut_off")
    streaming.first = STARTED + 1.02
    silent = exchange(2, latency=0.5, outcome="cut_off")
    samples = a_round([soon, streaming, silent, exchange(3)]).samples
    for limits, decided in (
        ({"latency_ms": 100}, [False, True, True, True]),
        ({"latency_ms": 600}, [False, False, False, True]),
        ({"ttft_ms": 100}, [False, False, True, True]),
        ({"ttft_ms": 10}, [True, True, True, True]),
        ({"tpot_ms": 1}, [False, False, False, True]),
        ({"latency_ms": 600, "ttft_ms": 100}, [False, False, True, True]),
    ):
        np.testing.assert_array_equal(is_decided(samples, limits), decided)
    np.testing.assert_allclose(
        endless(samples, samples.ttft), [np.inf, 0.02, np.inf, np.nan], atol=1e-9
    )


def test_results_that_did_not_note_when_requests_were_cut_off_leave_them_open() -> None:
    samples = a_round([exchange(0, ended=np.nan, outcome="cut_off")]).samples
    assert not is_decided(samples, {"latency_ms": 0.001, "ttft_ms": 0.001}).any()


def test_a_limit_that_was_not_measured_is_not_kept() -> None:
    whole, single = exchange(0), exchange(1)
    whole.output_tokens, single.output_tokens = 8, 1
    round_ = a_round([whole, single, exchange(2)])
    np.testing.assert_array_equal(met(round_.samples, {"tpot_ms": 1e9}), [False, True, False])
    np.testing.assert_array_equal(met(round_.samples, {"ttft_ms": 1e9}), [False] * 3)


def test_the_interval_of_the_attainment_is_the_wider_of_two() -> None:
    same = [a_round([exchange(i / 10, latency=(i > 97) + 0.1) for i in range(100)])] * 4
    found = attainment(same, {"latency_ms": 500})
    assert found is not None
    assert found.low is not None
    assert (found.value, found.by_round) == (pytest.approx(0.98), (0.98,) * 4)
    assert found.low == pytest.approx(0.961, abs=0.001)
    none = a_round([exchange(i / 10, latency=1) for i in range(100)])
    apart = attainment([*same[:3], none], {"latency_ms": 500})
    assert apart is not None
    assert (apart.low, apart.high) == (0, 1)


def test_percentiles_are_those_of_the_rounds() -> None:
    rounds = [np.arange(101) / 100, np.arange(101) / 50]
    found = distribution([*rounds, np.array([np.nan])])
    assert found is not None
    assert found.count == 202
    assert found.p50 is not None
    assert found.p99 is not None
    assert found.p50.value == pytest.approx(math.sqrt(0.5))
    assert len(found.p50.by_round) == 3
    assert found.p50.by_round[2] is None
    assert found.p99.value == pytest.approx(math.sqrt(0.99 * 1.98))
    assert found.p50.low is not None
    assert found.p999 is None


def test_a_percentile_takes_a_sample_beyond_it() -> None:
    few = [np.arange(60.0), np.arange(60.0)]
    pooled = percentile(few, 0.99)
    assert pooled is not None
    assert (pooled.value, pooled.low) == (pytest.approx(58.81), None)
    assert percentile([np.arange(60.0)], 0.99) is None
    assert distribution([np.array([np.nan])]) is None


def test_errors_and_cut_off_requests() -> None:
    round_ = a_round(
        [
            exchange(0),
            exchange(1, latency=0.3),
            exchange(2, outcome="http_503"),
            exchange(3, outcome="timeout"),
            exchange(4, outcome="timeout"),
            exchange(5, outcome="cut_off"),
            exchange(5, latency=0.3, outcome="cut_off"),
        ]
    )
    assert errors_by_kind(round_.samples) == {"http_503": 1, "timeout": 2}
    share = attainment([round_], {"latency_ms": 200})
    assert share is not None
    assert share.value == pytest.approx(1 / 6)
    assert goodput([round_], {"latency_ms": 200}).value == pytest.approx(0.1)
    assert goodput([round_], {"latency_ms": 400}).value == pytest.approx(0.2)
    assert np.isnan(round_.samples.latency[2:]).all()


def test_latency_counts_from_the_planned_time() -> None:
    late = exchange(0, sent=STARTED + 0.5, ended=STARTED + 0.6)
    samples = a_round([late]).samples
    assert samples.latency[0] == pytest.approx(0.6)
    assert samples.latency_from_send[0] == pytest.approx(0.1)
    assert samples.lag[0] == pytest.approx(0.5)
    assert lag_share(samples, {}) == pytest.approx(0.5 / 0.6)


def test_lag_is_held_against_the_first_token_where_that_has_a_limit() -> None:
    late = exchange(0, sent=STARTED + 0.1, ended=STARTED + 2)
    late.first = STARTED + 0.4
    samples = a_round([late]).samples
    assert lag_share(samples, {"latency_ms": 1, "ttft_ms": 1}) == pytest.approx(0.1 / 0.4)
    assert lag_share(samples, {"latency_ms": 1, "tpot_ms": 1}) == pytest.approx(0.1 / 2)


def test_the_achieved_rate_counts_until_the_last_answer() -> None:
    in_time = a_round([exchange(index / 2) for index in range(20)])
    overloaded = a_round([exchange(index / 2, latency=10.5) for index in range(20)])
    assert rate_of([in_time], len).value == rate_of([overloaded], len).value == 2
    assert rate_until_last_answer([in_time], count_ok).value == pytest.approx(2)
    assert rate_until_last_answer([overloaded], count_ok).value == pytest.approx(1)


def test_times_of_tokens() -> None:
    stream = exchange(0, sent=STARTED + 0.1, ended=STARTED + 2)
    stream.first, stream.last, stream.output_tokens = STARTED + 0.3, STARTED + 1.2, 4
    single = exchange(1)
    single.first = single.last = STARTED + 1.05
    single.output_tokens = 1
    round_ = a_round([stream, single])
    np.testing.assert_allclose(round_.samples.ttft, [0.3, 0.05])
    np.testing.assert_allclose(round_.samples.ttft_from_send, [0.2, 0.05])
    np.testing.assert_allclose(round_.samples.tpot, [0.3, np.nan])
    assert rate_until_last_answer([round_], count_output_tokens).value == pytest.approx(0.5)
    for limits, kept in (({"ttft_ms": 100}, 1), ({"tpot_ms": 310}, 2), ({"tpot_ms": 290}, 1)):
        share = attainment([round_], limits)
        assert share is not None
        assert share.value == kept / 2


def test_joined_rounds_keep_their_outcomes() -> None:
    parts = [
        a_round([exchange(0), exchange(1, outcome="timeout")], 0).samples,
        a_round([exchange(0, outcome="http_500"), exchange(1)], 1).samples,
    ]
    joined = join(parts)
    assert errors_by_kind(joined) == {"timeout": 1, "http_500": 1}
    np.testing.assert_array_equal(joined.is_ok, [True, False, False, True])
    np.testing.assert_array_equal(joined.round, [0, 0, 1, 1])
