"""Requests are counted and timed where their answer is written."""

from serving.metrics import EdgeMetrics, exposition
from tests.unit.metrics.pages import EMBEDDINGS, samples, value


def test_every_answer_is_counted_and_only_those_below_400_are_timed() -> None:
    metrics = EdgeMetrics("r1")
    for status, duration_s in ((200, 0.25), (400, 1), (422, 1), (429, 1), (499, 1), (503, 1)):
        metrics.observe(EMBEDDINGS, status, duration_s)
    registry = metrics.registry
    for status in ("200", "400", "422", "429", "499", "503"):
        more = {"operation": "embeddings", "status": status}
        assert value(registry, "requests_total", EMBEDDINGS, **more) == 1
    assert value(registry, "request_duration_seconds_count", EMBEDDINGS) == 1
    assert value(registry, "request_duration_seconds_sum", EMBEDDINGS) == 0.25


def test_nothing_is_exported_before_the_first_request() -> None:
    assert samples(exposition([EdgeMetrics("r1").registry])) == []


def test_a_choice_of_auto_is_counted_by_the_limit_that_it_misses() -> None:
    metrics = EdgeMetrics("r1")
    for missed in ((), ("min_quality",), ("max_latency_ms", "max_weights_bytes")):
        metrics.observe_choice(EMBEDDINGS, missed)
    for which in ("none", "min_quality", "several"):
        assert value(metrics.registry, "auto_requests_total", EMBEDDINGS, missed=which) == 1
