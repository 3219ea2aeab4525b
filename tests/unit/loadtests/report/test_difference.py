"""Differences are those of the textbooks, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from loadtests.intervals import mean_of
from loadtests.report.difference import Difference, Shares, over_requests, over_rounds, ratio, wider
from serving.quality.statistics import paired_difference

BF16, INT4 = [60.0, 85.0, 59.0], [123.0, 165.0, 141.0]


def test_a_ratio_that_every_round_shows_is_sure_though_the_rounds_differ() -> None:
    found = ratio(mean_of(BF16), mean_of(INT4))
    assert found is not None
    expected = stats.ttest_rel(np.log(INT4), np.log(BF16))
    assert found.p_value == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    shown = found.estimate
    assert (shown.low, shown.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert shown.value == pytest.approx(mean_of(INT4).value / mean_of(BF16).value)
    assert found.is_sure
    slower_low, faster_high = mean_of(INT4).low, mean_of(BF16).high
    assert slower_low is not None
    assert faster_high is not None
    assert slower_low < faster_high


def test_without_pairs_it_is_welchs_test_of_the_logs() -> None:
    after = [*INT4, 100.0]
    found = ratio(mean_of(BF16), mean_of(after), paired=False)
    assert found is not None
    expected = stats.ttest_ind(np.log(BF16), np.log(after), equal_var=False).pvalue
    assert found.p_value == pytest.approx(expected)


def test_rounds_that_one_of_the_two_lacks_do_not_count() -> None:
    one, other = mean_of([60, None, 85, 59]), mean_of([123, 1e9, 165, 141, 1e9])
    assert ratio(one, other) == ratio(mean_of(BF16), mean_of(INT4))
    unpaired = ratio(one, mean_of(INT4), paired=False)
    assert unpaired is not None
    assert unpaired.freedom < 4


def test_one_round_or_none_knows_of_no_difference() -> None:
    assert ratio(mean_of([1]), mean_of([2])) is None
    assert ratio(mean_of([1, 2, 0]), mean_of([1, 2, 3])) is None
    assert ratio(None, mean_of([1, 2])) is None


def test_values_without_spread_differ_or_do_not() -> None:
    same, twice = ratio(mean_of([3, 3]), mean_of([3, 3])), ratio(mean_of([3, 3]), mean_of([6, 6]))
    assert same is not None
    assert twice is not None
    assert (same.is_sure, same.p_value, twice.is_sure, twice.p_value) == (False, 1, True, 0)


def requests(values: Sequence[float], per_round: int = 1_000) -> Shares:
    place = np.arange(len(values), dtype=np.float64)
    return Shares(place // per_round, place % per_round, np.array(values, np.float64))


def test_shares_are_compared_request_by_request() -> None:
    a, b = [1] * 380 + [0] * 20, [1] * 370 + [0] * 30
    found, expected = over_requests(requests(a), requests(b)), paired_difference(b, a)
    assert found is not None
    assert found.value == pytest.approx(expected.value) == -0.025
    assert found.half_width == pytest.approx((expected.high - expected.low) / 2, rel=0.01)
    # The same shares, but of requests of which no two fail together.
    apart = over_requests(requests(a), requests(b[::-1]))
    unpaired = over_requests(requests(a), requests(b), paired=False)
    assert apart is not None
    assert unpaired is not None
    assert found.half_width < unpaired.half_width < apart.half_width
    assert unpaired.half_width == pytest.approx(
        1.96 * math.sqrt(0.05 * 0.95 / 400 + 0.075 * 0.925 / 400), rel=0.03
    )


def test_nothing_failed_does_not_prove_that_nothing_ever_does() -> None:
    found = over_requests(requests([1] * 50), requests([1] * 50))
    assert found is not None
    assert (found.value, found.is_sure) == (0, False)
    assert found.half_width > 0.03
    assert over_requests(requests([]), requests([])) is None


def test_requests_are_matched_by_round_and_index() -> None:
    one = Shares(np.array([0.0, 0, 1]), np.array([0.0, 1, 0]), np.array([0.5, 0.2, 0.9]))
    other = Shares(np.array([1.0, 0, 2]), np.array([0.0, 0, 0]), np.array([0.8, 0.4, 0.0]))
    found = over_requests(one, other)
    assert found is not None
    assert (found.freedom, found.is_sure) == (1, True)


def test_rounds_that_differ_make_the_wider_interval() -> None:
    one = requests([1] * 300, per_round=100)
    other = requests([1] * 100 + [0] * 60 + [1] * 140, per_round=100)
    each, whole = over_requests(one, other), over_rounds(one, other)
    assert each is not None
    assert whole is not None
    assert each.is_sure
    assert not whole.is_sure
    assert wider([each, None, whole]) is whole
    assert wider([None]) is None


def test_what_could_have_been_found() -> None:
    share = Difference(0.0, 0.01, math.inf)
    assert share.smallest(0.05) == pytest.approx(0.028, abs=1e-4)
    assert share.smallest(0.01) > share.smallest(0.05)
    times = Difference(0.0, 0.01, 2, is_ratio=True)
    expected = (stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)) * 0.01
    assert times.smallest(0.05) == pytest.approx(math.exp(expected) - 1)
