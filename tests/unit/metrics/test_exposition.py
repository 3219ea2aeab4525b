"""The page of several processes: complete, readable for Prometheus, and not too large."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.metrics import (
    EdgeMetrics,
    GatewayMetrics,
    Labels,
    QualityDrops,
    QualityMetrics,
    ScrapeMetrics,
    exposition,
    merge_expositions,
)
from serving.metrics.series import REQUEST_BUCKETS
from serving.monitor.shadowing import DROP_REASONS
from serving.replica.sample_sink import SENDER_REASONS
from serving.seams import (
    Comparison,
    Estimate,
    LabelReport,
    ModelQuality,
    Origin,
    OriginReport,
    Progress,
    VariantQuality,
)
from tests.unit.fakes.encoder import TIMINGS
from tests.unit.metrics.pages import encoder, families, generator, samples

MODELS = {"minilm": "embeddings", "sentiment": "classification", "smollm2": "generation"}
VARIANTS = ("fp32", "bf16", "int8-dynamic", "int4")


def test_request_buckets_are_geometric_from_a_millisecond_to_a_minute() -> None:
    assert 1e-3 <= REQUEST_BUCKETS[0] <= 2e-3
    assert 60 <= REQUEST_BUCKETS[-1] <= 70
    for small, large in pairwise(REQUEST_BUCKETS):
        factor = 1.5 if large < 6 else 2.25
        assert large / small == pytest.approx(factor, rel=1e-2)  # rounded to three digits


def pages_of(requests: list[tuple[str, str, int]]) -> Iterator[str]:
    """One page per replica, in which each (replica, variant, status) is a request."""
    for name in sorted({name for name, _, _ in requests}):
        edge = EdgeMetrics(name)
        replica, metrics = encoder(Labels("minilm", name, "embeddings"), name)
        other, _ = generator(Labels("smollm2", name, "generation"), name + "g")
        for where, variant, status in requests:
            if where == name:
                edge.observe(Labels("minilm", variant, "embeddings"), status, 0.1)
                metrics.observe_request(TIMINGS, 3)
        yield exposition([replica.registry, edge.registry])
        yield exposition([other.registry])


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["r1", "r2", "r3"]),
        st.sampled_from(["fp32", "int4"]),
        st.sampled_from([200, 429, 504]),
    ),
    max_size=6,
)


@settings(max_examples=15)
@given(REQUESTS)
def test_a_merged_page_has_each_family_once_and_every_sample(
    requests: list[tuple[str, str, int]],
) -> None:
    pages = list(pages_of(requests))
    merged = merge_expositions(pages)
    families(merged)
    assert samples(merged) == sorted(sample for page in pages for sample in samples(page))
    assert merged.count("# HELP quantserve_requests_total ") == (1 if pages else 0)
    assert merged.count("# HELP quantserve_queue_duration_seconds ") == (1 if pages else 0)


def test_a_merged_page_keeps_help_and_type() -> None:
    page, _ = pages_of([("r1", "fp32", 200)])
    before, after = families(page), families(merge_expositions([page, ""]))
    assert {name: (f.type, f.documentation) for name, f in after.items()} == {
        name: (f.type, f.documentation) for name, f in before.items()
    }


def test_the_page_of_three_models_asked_on_both_paths_is_below_200_kb() -> None:
    gateway, scrape = EdgeMetrics("4hq2y7wd"), ScrapeMetrics("4hq2y7wd")
    pages = []
    for model, task in MODELS.items():
        for variant in VARIANTS:
            labels, name = Labels(model, variant, task), "x1zp83ka"
            edge = EdgeMetrics(name)
            scrape.observe(model, variant, 1, 1)
            for one in (edge, gateway):
                one.start(labels)
            for _ in range(1_234):
                for one in (edge, gateway):
                    one.observe(labels, 200, 0.0123)
            for one in (edge, gateway):
                one.observe(labels, 422, 0.001)
            drops = QualityDrops([model], name, SENDER_REASONS)
            counted = [edge.registry, *([drops.registry] if variant != "fp32" else [])]
            pages.append(_busy_page(labels, name) + exposition(counted))
    filling = GatewayMetrics("4hq2y7wd", 1_024)
    filling.observe(123)
    scrape.observe_gateways(1, 1)
    scrape.observe_controller(0.123)
    own = exposition([gateway.registry, filling.registry, scrape.registry])
    page = merge_expositions([own, *pages, _quality_page("q8f3kd0s")])
    assert len(page.encode()) < 200_000


def _quality_page(name: str) -> str:
    """What the quality process adds once probes and live requests were compared."""
    quality = QualityMetrics(name)
    lossy = [(model, variant) for model in MODELS for variant in VARIANTS if variant != "fp32"]
    drops = QualityDrops(MODELS, name, DROP_REASONS)
    estimate = Estimate(0.98765432109876, 0.98765432109876, 0.98765432109876, 1_234)
    origins: tuple[Origin, ...] = ("probes", "live")
    reports = tuple(OriginReport(o, 1_234, {"agreement": estimate}, 0.1) for o in origins)
    labels = LabelReport("reviews_test", estimate, None, None, None)
    for model, variant in lossy:
        measure = "cosine" if MODELS[model] == "embeddings" else "divergence"
        comparison = Comparison(1.0, {measure: 0.98765432109876})
        for origin in origins:
            for _ in range(1_234):
                quality.observe(model, variant, origin, comparison)
    quality.set_report(
        ModelQuality(
            model,
            task,
            "fp32",
            0.7,
            0.05,
            None,
            tuple(
                VariantQuality(v, v == "fp32", "degraded", "", True, 0.9, reports, labels, (), 0.1)
                for v in VARIANTS
            ),
        )
        for model, task in MODELS.items()
    )
    return exposition([quality.registry, drops.registry])


def _busy_page(labels: Labels, name: str) -> str:
    """A replica's page with as many digits as a busy one's."""
    if labels.operation == "generation":
        replica, generates = generator(labels, name)
        for _ in range(1_234):
            generates.observe_tokenize(0.00123)
            generates.observe_first_token(0.123)
            generates.observe_end(Progress(0.123, 0.123, 0.123, 12), 48, 1.23)
        generates.output_tokens.inc(123_456)
        generates.observe_prompt(123_456, 123_456)
    else:
        replica, encodes = encoder(labels, name)
        for _ in range(1_234):
            encodes.observe_request(TIMINGS, 123)
            encodes.observe_batch(12, 1_234)
    return exposition([replica.registry])
