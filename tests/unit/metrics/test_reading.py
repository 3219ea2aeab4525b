"""Figures out of Prometheus text, against what was put in and against Prometheus' own quantile."""

from __future__ import annotations

import math

import pytest

from serving.metrics import EdgeMetrics, Labels, ReplicaMetrics, exposition
from serving.metrics.reading import figures_between, quantile, read_pages, shares_within
from serving.seams import Timings
from tests.unit.metrics.pages import encoder

FP32 = Labels("minilm", "fp32", "embeddings")
NAME = ("minilm", "fp32")


def edge(replica: str, *seconds: float, failed: int = 0) -> EdgeMetrics:
    metrics = EdgeMetrics(replica)
    for one in seconds:
        metrics.observe(FP32, 200, one)
    for _ in range(failed):
        metrics.observe(FP32, 503, None)
    return metrics


def page(*metrics: EdgeMetrics | ReplicaMetrics) -> list[str]:
    return [exposition([one.registry]) for one in metrics]


def test_only_what_happened_between_counts() -> None:
    metrics = edge("a", *[1.0] * 10)
    before = read_pages(page(metrics), at=100)
    for _ in range(4):
        metrics.observe(FP32, 200, 0.01)
    metrics.observe(FP32, 429, None)
    metrics.observe(FP32, 404, None)
    found = figures_between(before, read_pages(page(metrics), at=110))[NAME]
    assert found.requests_per_s == pytest.approx(0.6)
    assert found.failed_per_s == pytest.approx(0.1)
    assert found.p95_s is not None
    assert found.p95_s < 0.05


def test_a_replica_that_was_replaced_is_no_negative_rate() -> None:
    before = read_pages(page(edge("old", *[0.1] * 100), edge("stays", 0.1)), at=0)
    after = read_pages(page(edge("new", 0.1, 0.1), edge("stays", 0.1, 0.1, 0.1)), at=10)
    assert figures_between(before, after)[NAME].requests_per_s == pytest.approx(0.4)


def test_nothing_happened() -> None:
    metrics = edge("a", 0.1)
    before, after = (read_pages(page(metrics), at=at) for at in (0, 10))
    found = figures_between(before, after)[NAME]
    assert (found.requests_per_s, found.p50_s, found.p95_s) == (0, None, None)
    assert found.core_wait_s is None
    assert (found.answers_per_busy_s, found.within) == (None, ())


def test_answers_are_told_for_each_second_in_which_a_replica_had_any() -> None:
    replicas = [encoder(FP32, name) for name in ("r1", "r2")]
    pages = [replica for replica, _ in replicas]
    for replica, metrics in replicas:
        replica.busy.inc(100)
        metrics.observe_request(Timings(0, 0, 0, 0, 0), 3)
    before = read_pages(page(*pages), at=0)
    (first, metrics), (second, _) = replicas
    first.busy.inc(2)
    second.busy.inc(0.5)
    for _ in range(10):
        metrics.observe_request(Timings(0, 0, 0, 0, 0), 3)
    found = figures_between(before, read_pages(page(*pages), at=60))[NAME]
    assert found.answers_per_busy_s == pytest.approx(10 / 2.5)


def test_how_many_came_within_what_time_is_told_from_none_to_all() -> None:
    buckets = {0.1: 0.0, 0.2: 0.0, 0.4: 3.0, 0.8: 4.0, 1.6: 4.0, math.inf: 4.0}
    assert shares_within(buckets) == ((0.2, 0.0), (0.4, 0.75), (0.8, 1.0))
    # Beyond the last bound nothing is known.
    assert shares_within(buckets | {math.inf: 8.0})[-1] == (1.6, 0.5)
    assert shares_within({0.1: 2.0, 0.2: 2.0, math.inf: 2.0}) == ((0.1, 1.0),)
    assert shares_within({0.1: 0.0, math.inf: 0.0}) == ()
    assert shares_within({}) == ()


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_quantiles_are_within_a_bucket_of_the_true_ones(share: float) -> None:
    """Bounds grow by a factor of 1.5 in this range, which is how far an estimate can be off."""
    values = sorted(0.004 * 1.01**i for i in range(400))
    metrics = EdgeMetrics("a")
    before = read_pages(page(metrics), at=0)
    for value in values:
        metrics.observe(FP32, 200, value)
    found = figures_between(before, read_pages(page(metrics), at=1))[NAME]
    true = values[int(share * len(values))]
    estimate = {0.5: found.p50_s, 0.95: found.p95_s}[share]
    assert estimate is not None
    assert true / 1.5 <= estimate <= true * 1.5


def test_quantile_is_that_of_prometheus() -> None:
    """The example of its documentation's rule: straight within the bucket that holds the rank."""
    buckets = {0.1: 10.0, 0.2: 30.0, 0.4: 40.0, math.inf: 40.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.15)  # rank 20: half way between 10 and 30
    assert quantile(buckets, 0.95) == pytest.approx(0.36)  # rank 38: 0.8 of the last
    assert quantile(buckets | {math.inf: 100.0}, 0.95) == 0.4  # beyond the last bound
    assert quantile({math.inf: 0.0}, 0.5) is None
    assert quantile({}, 0.5) is None
