"""What every replica exports: what it holds, and how busy it is."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.config import VariantConfig
from serving.metrics import registered, series
from serving.metrics.labels import Labels
from serving.metrics.series import Series
from serving.seams import Description


class ReplicaMetrics:
    """Describes one replica, and gives its other series their labels."""

    def __init__(self, labels: Labels, replica: str) -> None:
        self.registry = CollectorRegistry()
        self._values = (labels.model, labels.variant, replica)
        self._task = labels.operation
        self.queue = self.histogram(series.QUEUE_DURATION)
        self.core_wait = self.histogram(series.CORE_WAIT)
        self.tokenize = self.histogram(series.TOKENIZE_DURATION)
        self.input_tokens = self.counter(series.INPUT_TOKENS)
        self.in_flight = self.gauge(series.IN_FLIGHT_REQUESTS)
        self.busy = self.counter(series.BUSY)
        self.queued = self.gauge(series.QUEUED_REQUESTS)
        self._queue_limit = self.gauge(series.QUEUE_LIMIT)
        self._weights = self.gauge(series.WEIGHTS_BYTES)
        self._resident = self.gauge(series.RESIDENT_BYTES)
        self._private = self.gauge(series.PRIVATE_BYTES)
        self._peak = self.gauge(series.PEAK_BYTES)
        self._load = self.gauge(series.LOAD_SECONDS)

    def set_info(
        self, variant: VariantConfig, description: Description, *, is_reference: bool
    ) -> None:
        """Publish ``variant_info``, whose value is always 1."""
        model, name, replica = self._values
        registered.gauge(series.VARIANT_INFO, self.registry).labels(
            model=model,
            variant=name,
            replica=replica,
            task=self._task,
            role="reference" if is_reference else "",
            device=description.device,
            runtime=variant.runtime,
            recipe=variant.recipe,
            isa=description.isa,
            artifact=description.artifact,
        ).set(1)

    def set_queue_limit(self, requests: int) -> None:
        """Publish how many requests may wait before one is refused."""
        self._queue_limit.set(requests)

    def set_description(self, description: Description) -> None:
        """Publish what the replica occupies."""
        self._weights.set(description.weights_bytes)
        self._resident.set(description.resident_bytes)
        self._private.set(description.private_bytes)
        self._peak.set(description.peak_bytes)
        self._load.set(description.load_seconds)

    def counter(self, what: Series) -> Counter:
        """Register a counter, labelled with this replica's variant."""
        return registered.counter(what, self.registry).labels(*self._values)

    def counters(self, what: Series, *values: str) -> list[Counter]:
        """Register a counter, labelled likewise, for each value of its last label."""
        counter = registered.counter(what, self.registry)
        return [counter.labels(*self._values, value) for value in values]

    def gauge(self, what: Series) -> Gauge:
        """Register a gauge, labelled likewise."""
        return registered.gauge(what, self.registry).labels(*self._values)

    def histogram(self, what: Series) -> Histogram:
        """Register a histogram, labelled likewise."""
        return registered.histogram(what, self.registry).labels(*self._values)
