"""What replicas and gateways had counted at the moments of the last while."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import replace

from serving.metrics.reading import MetricsReading


class Readings:
    """Readings between whose first and last one sees what happened, and nothing older.

    A process that does not answer stands still in them until it does. One that is first heard of
    after a reading for which not all had answered may be the one that did not: it stands still
    before. Otherwise what it has counted since its start would count as of the last moments.

    Args:
        span_s: How far they go back.
    """

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._readings: deque[MetricsReading] = deque()
        self._is_last_whole = True

    def add(
        self, reading: MetricsReading, living: Collection[str], is_whole: bool
    ) -> tuple[MetricsReading, MetricsReading, MetricsReading] | None:
        """Take the next reading.

        Args:
            reading: Of those that have answered.
            living: Names of all processes that live, as ``replica`` has them; one that starts does.
            is_whole: Whether all that run have answered.

        Returns:
            The first reading, the one before this, and this; None if there is none before.
        """
        while self._readings and reading.at - self._readings[0].at > self._span_s:
            self._readings.popleft()
        if self._readings:
            reading = self._with_silent(reading, living)
            if not self._is_last_whole:
                self._let_new_stand_still(reading)
        self._readings.append(reading)
        self._is_last_whole = is_whole
        if len(self._readings) == 1:
            return None
        return self._readings[0], self._readings[-2], reading

    def _with_silent(self, reading: MetricsReading, living: Collection[str]) -> MetricsReading:
        heard = {key.replica for key in reading.counts}
        silent = {
            key: value
            for key, value in self._readings[-1].counts.items()
            if key.replica in living and key.replica not in heard
        }
        return replace(reading, counts={**reading.counts, **silent})

    def _let_new_stand_still(self, reading: MetricsReading) -> None:
        known = {key.replica for key in self._readings[-1].counts}
        new = {key: value for key, value in reading.counts.items() if key.replica not in known}
        self._readings = deque(
            replace(earlier, counts={**new, **earlier.counts}) for earlier in self._readings
        )
