"""The work of an encoder's replica."""

from __future__ import annotations

from serving.metrics import series
from serving.metrics.replica import ReplicaMetrics
from serving.seams import Timings


class EncoderMetrics:
    """Measures requests and the forward passes that answer them."""

    def __init__(self, replica: ReplicaMetrics) -> None:
        self.in_flight, self.queued = replica.in_flight, replica.queued
        self.busy = replica.busy
        self._replica = replica
        self._forward = replica.histogram(series.FORWARD_DURATION)
        self._batch_size = replica.histogram(series.BATCH_SIZE)
        self._batch_tokens = replica.histogram(series.BATCH_TOKENS)

    def observe_request(self, timings: Timings, tokens: int) -> None:
        """Record one request that was answered with success."""
        self._replica.queue.observe(timings.queue)
        self._replica.tokenize.observe(timings.tokenize)
        self._replica.core_wait.observe(timings.core_wait)
        self._forward.observe(timings.forward)
        self._replica.input_tokens.inc(tokens)

    def observe_batch(self, size: int, tokens: int) -> None:
        """Record one forward pass over ``size`` texts with ``tokens`` real tokens."""
        self._batch_size.observe(size)
        self._batch_tokens.observe(tokens)
