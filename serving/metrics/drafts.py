"""What becomes of tokens that are proposed to a generator."""

from __future__ import annotations

from serving.metrics import series
from serving.metrics.replica import ReplicaMetrics
from serving.seams import DraftCounts


class DraftMetrics:
    """Counts proposed tokens by their outcome; exported by replicas that have a draft alone."""

    def __init__(self, replica: ReplicaMetrics) -> None:
        self._accepted, self._rejected, self._unread = replica.counters(
            series.DRAFTED_TOKENS, "accepted", "rejected", "unread"
        )

    def observe(self, counts: DraftCounts) -> None:
        """Record what became of the tokens of one step."""
        self._accepted.inc(counts.accepted)
        self._rejected.inc(counts.rejected)
        self._unread.inc(counts.unread)
