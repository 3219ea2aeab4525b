"""Requests, counted and timed where their answer is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter

from serving.metrics import series
from serving.metrics.labels import Labels
from serving.metrics.registered import counter, histogram

FIRST_ERROR = 400
"""The lowest HTTP status of an error."""

STARTED = (429,)
"""Statuses that come in bursts, as those of a full queue do: a series that is born within one has
no ``rate`` of it. Each costs 3 kB of the page, so there are no others."""


class EdgeMetrics:
    """Counts and times requests where their answer is written."""

    def __init__(self, replica: str) -> None:
        self.registry = CollectorRegistry()
        self._replica = replica
        self._requests = counter(series.REQUESTS, self.registry)
        self._duration = histogram(series.REQUEST_DURATION, self.registry)
        self._auto = counter(series.AUTO_REQUESTS, self.registry)

    def start(self, labels: Labels, statuses: Iterable[int] = STARTED) -> None:
        """Have the counts of some statuses on the page before the first such answer, at 0."""
        for status in statuses:
            self._count(labels, status)

    def observe(self, labels: Labels, status: int, duration_s: float) -> None:
        """Record one answered request; the duration only of an answer below 400.

        A variant that refuses requests does so at once: timed too, it would look fast.
        """
        self._count(labels, status).inc()
        if status < FIRST_ERROR:
            self._duration.labels(labels.model, labels.variant, self._replica).observe(duration_s)

    def observe_choice(self, labels: Labels, missed: Sequence[str]) -> None:
        """Record that ``auto`` chose a variant.

        Args:
            labels: Of the variant.
            missed: Limits that it does not meet, by their names in a request.
        """
        which = "several" if len(missed) > 1 else next(iter(missed), "none")
        self._auto.labels(labels.model, labels.variant, which, self._replica).inc()

    def _count(self, labels: Labels, status: int) -> Counter:
        return self._requests.labels(
            labels.model, labels.variant, labels.operation, str(status), self._replica
        )
