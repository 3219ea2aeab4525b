"""Whether the page of the whole service is whole."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from serving.metrics import series
from serving.metrics.registered import gauge


class ScrapeMetrics:
    """Says, in the gateway that is asked, how many processes should be on the page and are."""

    def __init__(self, replica: str) -> None:
        self.registry = CollectorRegistry()
        self._replica = replica
        self._expected = gauge(series.SCRAPE_EXPECTED, self.registry)
        self._answered = gauge(series.SCRAPE_ANSWERED, self.registry)
        self._gateways_expected = gauge(series.GATEWAYS_EXPECTED, self.registry)
        self._gateways_answered = gauge(series.GATEWAYS_ANSWERED, self.registry)
        self._controller_age = gauge(series.CONTROLLER_AGE, self.registry)

    def observe(self, model: str, variant: str, expected: int, answered: int) -> None:
        """Record what was gathered of one variant for the page that is being made."""
        self._expected.labels(model, variant, self._replica).set(expected)
        self._answered.labels(model, variant, self._replica).set(answered)

    def observe_gateways(self, expected: int, answered: int) -> None:
        """Record what was gathered of the gateways, this one included."""
        self._gateways_expected.labels(self._replica).set(expected)
        self._gateways_answered.labels(self._replica).set(answered)

    def observe_controller(self, age_s: float) -> None:
        """Record how old the states are that the page was made by, in seconds."""
        self._controller_age.labels(self._replica).set(age_s)
