"""The page says how many replicas it should have and how many it has."""

from serving.metrics import ScrapeMetrics
from tests.unit.metrics.pages import EMBEDDINGS, GENERATION, value


def test_each_variant_has_the_replicas_of_the_latest_scrape() -> None:
    metrics = ScrapeMetrics("r1")
    metrics.observe(EMBEDDINGS.model, EMBEDDINGS.variant, 3, 3)
    metrics.observe(EMBEDDINGS.model, EMBEDDINGS.variant, 3, 2)
    metrics.observe(GENERATION.model, GENERATION.variant, 0, 0)
    for labels, expected, answered in ((EMBEDDINGS, 3, 2), (GENERATION, 0, 0)):
        assert value(metrics.registry, "scrape_replicas_expected", labels) == expected
        assert value(metrics.registry, "scrape_replicas_answered", labels) == answered


def test_the_gateways_are_those_of_the_latest_scrape() -> None:
    metrics = ScrapeMetrics("r1")
    metrics.observe_gateways(2, 2)
    metrics.observe_gateways(3, 2)
    for name, number in (("expected", 3), ("answered", 2)):
        series = f"quantserve_scrape_gateways_{name}"
        assert metrics.registry.get_sample_value(series, {"replica": "r1"}) == number


def test_the_age_is_that_of_the_latest_scrape() -> None:
    metrics = ScrapeMetrics("r1")
    metrics.observe_controller(40.0)
    metrics.observe_controller(0.5)
    series = "quantserve_controller_age_seconds"
    assert metrics.registry.get_sample_value(series, {"replica": "r1"}) == 0.5
