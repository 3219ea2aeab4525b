"""The work of a generator's replica."""

from __future__ import annotations

from collections.abc import Callable

from serving.metrics import series
from serving.metrics.replica import ReplicaMetrics
from serving.seams import GeneratorLoad, Progress


class GeneratorMetrics:
    """Measures sequences; those that end early count as far as they came."""

    def __init__(self, replica: ReplicaMetrics, load: Callable[[], GeneratorLoad]) -> None:
        self.in_flight, self.busy = replica.in_flight, replica.busy
        self.output_tokens = replica.counter(series.OUTPUT_TOKENS)
        self._replica = replica
        self._cached_tokens = replica.counter(series.CACHED_INPUT_TOKENS)
        self._first_token = replica.histogram(series.TIME_TO_FIRST_TOKEN)
        self._per_token = replica.histogram(series.TIME_PER_OUTPUT_TOKEN)
        self._prefill = replica.histogram(series.PREFILL_DURATION)
        self._decode = replica.histogram(series.DECODE_DURATION)
        self._batch_size = replica.histogram(series.BATCH_SIZE)
        replica.queued.set_function(lambda: load().waiting)
        replica.gauge(series.RUNNING_REQUESTS).set_function(lambda: load().running)
        replica.gauge(series.KV_CACHE_BYTES).set_function(lambda: load().kv_cache_bytes)
        replica.gauge(series.KV_CACHE_USED_RATIO).set_function(lambda: load().kv_cache_used)

    def observe_tokenize(self, duration_s: float) -> None:
        """Record that the prompts of one request were tokenized."""
        self._replica.tokenize.observe(duration_s)

    def observe_prompt(self, tokens: int, cached_tokens: int) -> None:
        """Record that a prompt was read and has its first token."""
        self._replica.input_tokens.inc(tokens)
        self._cached_tokens.inc(cached_tokens)

    def observe_step(self, size: int) -> None:
        """Record one step that worked on ``size`` sequences."""
        self._batch_size.observe(size)

    def observe_first_token(self, since_arrival_s: float) -> None:
        """Record the first token of a sequence."""
        self._first_token.observe(since_arrival_s)

    def observe_end(self, progress: Progress, tokens: int, since_first_token_s: float) -> None:
        """Record that a sequence came to its end after ``tokens`` tokens."""
        self._replica.queue.observe(progress.queue)
        self._replica.core_wait.observe(progress.prefill_core_wait + progress.decode_core_wait)
        self._prefill.observe(progress.prefill)
        self._decode.observe(progress.decode)
        if tokens > 1:
            self._per_token.observe(since_first_token_s / (tokens - 1))
