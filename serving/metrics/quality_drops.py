"""Sampled requests that were not compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry

from serving.metrics import series
from serving.metrics.registered import counter
from serving.seams import DropReason


class QualityDrops:
    """Counts dropped samples; every series is there from the start, at 0, for ``rate``.

    Args:
        models: Whose requests are sampled.
        replica: Value of the ``replica`` label.
        reasons: Those that this process can have.
    """

    def __init__(self, models: Iterable[str], replica: str, reasons: Sequence[DropReason]) -> None:
        self.registry = CollectorRegistry()
        dropped = counter(series.QUALITY_DROPPED, self.registry)
        self._by_reason = {
            (model, reason): dropped.labels(model, reason, replica)
            for model in models
            for reason in reasons
        }

    def count(self, model: str, reason: DropReason) -> None:
        """Record one dropped sample."""
        self._by_reason[model, reason].inc()
