"""Requests are counted and timed where their answer is written."""

from serving.metrics import EdgeMetrics, Labels, exposition
from tests.unit.metrics.pages import EMBEDDINGS, samples, value


def test_every_answer_is_counted_and_what_was_worked_on_is_timed() -> None:
    metrics = EdgeMetrics("r1")
    observed = {200: 0.25, 400: 1, 422: 1, 429: 1, 499: 2, 500: 1, 503: 1, 504: 4}
    for status, duration_s in observed.items():
        metrics.observe(EMBEDDINGS, status, duration_s)
    registry = metrics.registry
    for status in observed:
        more = {"operation": "embeddings", "status": str(status)}
        assert value(registry, "requests_total", EMBEDDINGS, **more) == 1
    assert value(registry, "request_duration_seconds_count", EMBEDDINGS) == 3
    assert value(registry, "request_duration_seconds_sum", EMBEDDINGS) == 0.25 + 2 + 4


def test_what_no_backend_was_asked_is_not_timed() -> None:
    metrics = EdgeMetrics("r1")
    for status in (499, 504):
        metrics.observe(EMBEDDINGS, status, None)
    assert value(metrics.registry, "request_duration_seconds_count", EMBEDDINGS) is None


def test_nothing_is_exported_before_the_first_request() -> None:
    assert samples(exposition([EdgeMetrics("r1").registry])) == []


def test_a_burst_may_begin_with_the_first_refusal() -> None:
    metrics = EdgeMetrics("r1")
    metrics.start(EMBEDDINGS)
    metrics.start(Labels("minilm", "auto", "embeddings"), [503])
    counts = samples(exposition([metrics.registry]))
    assert [count for *_, count in counts] == [0] * len(counts)
    started = {(dict(labels)["variant"], dict(labels)["status"]) for _, labels, _ in counts}
    assert started == {("int4", "429"), ("auto", "503")}

    metrics.observe(EMBEDDINGS, 429, 0.1)
    more = {"operation": "embeddings", "status": "429"}
    assert value(metrics.registry, "requests_total", EMBEDDINGS, **more) == 1


def test_a_choice_of_auto_is_counted_by_the_limit_that_it_misses() -> None:
    metrics = EdgeMetrics("r1")
    for missed in ((), ("min_quality",), ("max_latency_ms", "max_weights_bytes")):
        metrics.observe_choice(EMBEDDINGS, missed)
    for which in ("none", "min_quality", "several"):
        assert value(metrics.registry, "auto_requests_total", EMBEDDINGS, missed=which) == 1
