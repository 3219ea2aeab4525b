"""The intervals: by hand, in degenerate cases, and whether they cover as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from serving.quality.statistics import (
    mean,
    mean_of_shares,
    paired_difference,
    perplexity,
    perplexity_change,
    ratio_of_rounds,
    share,
    smallest_difference,
    smallest_perplexity_change,
)
from serving.seams import Estimate


def ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


def test_wilson_by_hand() -> None:
    # z² = 3.8415, n = 100, p = .9. Centre (p + z²/2n) / (1 + z²/n) = .919207/1.038415 = .885202;
    # margin z/(1 + z²/n) · √(p(1-p)/n + z²/4n²) = 1.959964/1.038415 · √(.0009 + .000096)
    # = 1.887458 · .0315601 = .059568.
    estimate = share(90, 100)
    assert (estimate.value, estimate.count) == (0.9, 100)
    assert ends(estimate) == pytest.approx((0.825634, 0.944770), abs=2e-6)


def test_wilson_of_none_and_of_all() -> None:
    # k = 0: from 0 to z²/(n + z²) = 3.8415/53.8415.
    assert ends(share(0, 50)) == pytest.approx((0, 0.071348), abs=1e-6)
    assert ends(share(50, 50)) == pytest.approx((1 - 0.071348, 1), abs=1e-6)
    assert ends(share(1, 1)) == pytest.approx((1 - 3.8415 / 4.8415, 1), abs=1e-4)


def test_wilson_covers() -> None:
    """Exactly, summed over all outcomes; on average 95 %, and 93 % at each of these."""
    for count in (50, 200):
        low, high = np.array([ends(share(k, count)) for k in range(count + 1)]).T
        truths = np.linspace(0.5, 0.98, 25)
        covered = (low <= truths[:, None]) & (truths[:, None] <= high)
        chances = stats.binom.pmf(np.arange(count + 1), count, truths[:, None])
        coverage = (covered * chances).sum(axis=1)
        assert coverage.mean() > 0.945
        assert coverage[truths < 0.95].min() > 0.92


@pytest.mark.parametrize("count", [64, 200])
@pytest.mark.parametrize(
    ("overlap", "spread"),
    # Each sample's own chance that a neighbour is found is drawn from beta(overlap·spread, …).
    [(0.983, 1e6), (0.95, 1e6), (0.9, 20)],
)
def test_the_mean_of_shares_covers(count: int, overlap: float, spread: float) -> None:
    """Overlaps of ten neighbours; 2,000 samples, of which .95 has a standard error of .005."""
    rng = np.random.default_rng(1)
    chances = rng.beta(overlap * spread, (1 - overlap) * spread, (2_000, count))
    intervals = [mean_of_shares(row) for row in rng.binomial(10, chances) / 10]
    low, high = np.array([ends(interval) for interval in intervals]).T
    assert 0.93 <= np.mean((low <= overlap) & (overlap <= high)) <= 0.975
    # The router relies on the lower end: it may be too high in one of 40.
    assert np.mean(low > overlap) <= 0.04


def test_the_bootstrap_covers() -> None:
    """Log ratios of perplexity, 500 samples of 100; .95 has a standard error of .010."""
    draws = 0.02 + 0.1 * np.random.default_rng(1).standard_normal((500, 100))
    intervals = [ends(mean(row)) for row in draws]
    assert 0.92 <= np.mean([low <= 0.02 <= high for low, high in intervals]) <= 0.98


def test_the_bootstrap_is_as_wide_as_the_standard_error_says() -> None:
    # Values 0, 1, … 99: standard deviation √((100² - 1)/12) = 28.866, of the mean 2.8866;
    # 49.5 ± 1.96 · 2.8866. A thousand resamples know their quantiles within some 5 % of the width.
    estimate = mean(range(100))
    assert estimate.value == 49.5
    assert ends(estimate) == pytest.approx((49.5 - 5.658, 49.5 + 5.658), abs=0.6)
    assert mean(range(100)) == estimate


def test_values_that_are_all_the_same_have_the_interval_of_a_share() -> None:
    assert mean_of_shares([1.0] * 50) == share(50, 50)
    # The mean of 50 times .9 is not quite .9.
    assert ends(mean_of_shares([0.9] * 50)) == pytest.approx(ends(share(45, 50)), abs=1e-12)


def test_zeros_and_ones_are_a_share() -> None:
    estimate = mean_of_shares([1, 0, 1, 1])
    assert (estimate.value, estimate.count) == (0.75, 4)
    assert ends(estimate) == pytest.approx(ends(share(3, 4)), abs=1e-12)


def test_less_spread_counts_as_more_samples() -> None:
    # 50 times .8 and 50 times 1: mean .9, variance .01 instead of .09, so 100 count as 900.
    estimate = mean_of_shares([0.8, 1.0] * 50)
    assert estimate.count == 100
    assert ends(estimate) == pytest.approx(ends(share(810, 900)), abs=1e-12)


def test_wilson_is_scipys() -> None:
    for successes, count in [(0, 1), (1, 1), (3, 7), (45, 50), (1_999, 2_000)]:
        known = stats.binomtest(successes, count).proportion_ci(method="wilson")
        assert ends(share(successes, count)) == pytest.approx((known.low, known.high), abs=1e-12)


def test_a_single_value_says_all_that_is_possible() -> None:
    assert mean([0.3]) == Estimate(0.3, -math.inf, math.inf, 1)
    assert mean_of_shares([1.0]) == share(1, 1)
    assert ends(paired_difference([-0.2], [-0.3])) == (-math.inf, math.inf)
    assert perplexity([-2.0], [2]) == Estimate(math.e, 1, math.inf, 1)
    change = perplexity_change([-2.0], [-2.0], [2])
    assert change == Estimate(0, -1, math.inf, 1)
    assert smallest_perplexity_change(change) == math.inf


def test_values_without_bounds_that_are_all_the_same_are_a_point() -> None:
    assert mean([0.25, 0.25]) == Estimate(0.25, 0.25, 0.25, 2)


def test_nothing_is_refused() -> None:
    for estimate in (
        lambda: mean([]),
        lambda: mean_of_shares([]),
        lambda: paired_difference([], []),
        lambda: perplexity([], []),
        lambda: share(0, 0),
    ):
        with pytest.raises(ValueError, match=r"."):
            estimate()


def test_both_sides_of_a_pair_are_needed() -> None:
    with pytest.raises(ValueError, match="2 values beside 1"):
        paired_difference([1, 1], [1])
    with pytest.raises(ValueError, match="1 values beside 2"):
        perplexity_change([-1, -1], [-1], [1, 1])


def test_the_difference_of_accuracies_by_hand() -> None:
    # 98 items, 10 lost, 3 gained: p = 4/100, q = 11/100, centre -.07,
    # margin 1.959964 · √((.15 - .0049)/100) = 1.959964 · .0380920 = .074659.
    values = [0] * 10 + [1] * 3 + [1] * 85
    reference = [1] * 10 + [0] * 3 + [1] * 85
    difference = paired_difference(values, reference)
    assert difference.value == pytest.approx(-7 / 98)
    assert ends(difference) == pytest.approx((-0.144659, 0.004659), abs=1e-6)


@pytest.mark.parametrize(("lost", "is_seen"), [(4, False), (5, False), (6, True)])
def test_six_losses_without_a_gain_are_a_loss(lost: int, is_seen: bool) -> None:
    """As of the sign test: chances of 2 · ½⁵ = 6.3 % and 2 · ½⁶ = 3.1 %."""
    difference = paired_difference([0] * lost + [1] * (200 - lost), [1] * 200)
    assert (difference.high < 0) == is_seen


def test_no_differing_item_still_leaves_room() -> None:
    # p = q = 1/52, margin 1.959964 · √((2/52)/52) = 1.959964 · .0271964 = .053304.
    assert ends(paired_difference([1] * 50, [1] * 50)) == pytest.approx(
        (-0.053304, 0.053304), abs=1e-6
    )


def test_the_difference_of_accuracies_covers_where_few_items_differ() -> None:
    """Exactly: 200 items, of which 2 % are lost and 1 % gained."""
    count, lost, gained = 200, 0.02, 0.01
    coverage = 0.0
    for minus in range(16):
        for plus in range(12):
            values = [0] * minus + [1] * (count - minus)
            reference = [1] * minus + [0] * plus + [1] * (count - minus - plus)
            low, high = ends(paired_difference(values, reference))
            if low <= gained - lost <= high:
                coverage += stats.multinomial.pmf(
                    [minus, plus, count - minus - plus], count, [lost, gained, 1 - lost - gained]
                )
    assert coverage > 0.93


def test_pairs_cancel_what_is_hard_for_both() -> None:
    # Items spread by 1, differences by .01: unpaired intervals would be a hundred times as wide.
    rng = np.random.default_rng(5)
    reference = rng.normal(-3, 1, 200)
    difference = paired_difference(reference - 0.01 + rng.normal(0, 0.01, 200), reference)
    # 1.96 · .01/√200 = .0014 on either side; the mean itself is off by as much in 1 of 20 draws.
    assert difference.high - difference.low == pytest.approx(0.0028, rel=0.2)
    assert difference.high < 0


def test_perplexity_weighs_items_by_their_tokens() -> None:
    # exp((ln 2 · 30 + ln 8 · 10) / 40) = exp((30 + 30) ln 2 / 40) = 2^1.5
    sums = [-30 * math.log(2), -10 * math.log(8)]
    estimate = perplexity(sums, [30, 10])
    assert estimate.value == pytest.approx(2**1.5)
    # Resamples of two items are the items themselves, or both.
    assert ends(estimate) == pytest.approx((2, 8))


def test_the_change_of_perplexity_is_paired() -> None:
    # Every item is worse by ln 1.1 per token, however hard it is: no uncertainty at all.
    rng = np.random.default_rng(6)
    counts = rng.integers(5, 50, 80)
    reference = -counts * rng.uniform(1, 5, 80)
    change = perplexity_change(reference - counts * math.log(1.1), reference, counts)
    assert (change.value, *ends(change)) == pytest.approx((0.1, 0.1, 0.1), abs=1e-9)
    assert change.count == 80
    assert smallest_perplexity_change(change) == pytest.approx(0, abs=1e-9)


def test_the_smallest_change_of_perplexity_by_hand() -> None:
    # Interval of the log from 0 to 2 · 1.959964 · .01: a standard error of .01, times 2.8.
    change = Estimate(0.02, 0.0, math.expm1(0.03919928), 80)
    assert smallest_perplexity_change(change) == pytest.approx(math.expm1(0.028), abs=1e-8)


def test_the_smallest_difference_by_hand() -> None:
    # 2.8 · √(.02/200) = .028; 2.8 · √(.071348/50) = .10577 where none was seen; never above 1.
    assert smallest_difference(0.02, 200) == pytest.approx(0.028)
    assert smallest_difference(0, 50) == pytest.approx(0.10577, abs=1e-5)
    assert smallest_difference(0.5, 1) == 1
    assert smallest_difference(0, 0) == 1


def test_the_ratio_of_rounds_by_hand() -> None:
    # Logs of 0.5, 0.25, 0.5: mean -0.924196, deviation ln 2 / √3 = 0.400189, t(2) = 4.302653;
    # margin 4.302653 · 0.400189 / √3 = 0.994128.
    found = ratio_of_rounds([1, 1, 4], [2, 4, 8])
    assert found.value == pytest.approx(0.396850, abs=1e-6)
    assert ends(found) == pytest.approx((0.146861, 1.072377), rel=1e-4)
    assert found.count == 3


def test_the_ratio_of_rounds_covers() -> None:
    """95 % by the theory of normal logs; 2,000 draws have a standard error of 0.5 %."""
    chance = np.random.default_rng(2)
    drift = chance.lognormal(0, 1, (2_000, 5))
    own = 0.3 * drift * chance.lognormal(0, 0.1, drift.shape)
    found = [ratio_of_rounds(a, b) for a, b in zip(own, drift, strict=True)]
    covered = np.mean([one.low <= 0.3 <= one.high for one in found])
    assert 0.935 < covered < 0.965


def test_a_single_round_bounds_no_ratio() -> None:
    assert ends(ratio_of_rounds([1], [2])) == (0, math.inf)
    with pytest.raises(ValueError, match="above 0"):
        ratio_of_rounds([1, 0], [2, 2])
