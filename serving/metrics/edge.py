"""Requests, counted and timed where their answer is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter

from serving.metrics import series
from serving.metrics.labels import Labels
from serving.metrics.registered import counter, histogram

FIRST_ERROR = 400
"""The lowest HTTP status of an error."""

WAITED = (499, 504)
"""Statuses of errors that took their time: the client left, or the deadline passed."""

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

    def observe(self, labels: Labels, status: int, duration_s: float | None) -> None:
        """Record one request.

        A variant that refuses requests does so at once: timed too, it would look fast. One that
        lets them wait until nobody waits any more would look fast without those.

        Args:
            labels: Of the variant.
            status: Of the answer; 499 if the client left before its end.
            duration_s: Until then; None if no backend was asked.
        """
        self._count(labels, status).inc()
        if duration_s is not None and (status < FIRST_ERROR or status in WAITED):
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
