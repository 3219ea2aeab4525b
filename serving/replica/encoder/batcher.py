"""Natural batching: what arrived during one forward pass makes the next; no timer, no waiting."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.errors import QueueFull
from serving.replica.encoder.batching import pad, split_by_length
from serving.seams import EncoderEngine

MAX_FAILURES_IN_A_ROW = 5
"""One failed pass may be its texts' fault; so many are the engine's."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Rows (texts, width) of one request, and seconds in the queue and in forward passes."""

    rows: NDArray[np.float32]
    queue: float
    forward: float


@dataclass(slots=True, eq=False)
class Place:
    """A request's place in the queue, from before its texts are tokenized.

    Attributes:
        background: See ``InferenceRequest``.
        future: Of its answer.
        token_ids: Its texts, at least one, once they are tokenized.
        rows: Their answers so far.
        num_taken: Leading texts that were taken for a pass.
        num_missing: Texts that have no answer yet.
        enqueued: When it was tokenized, by ``time.perf_counter``.
        started: When its first pass began; None before.
    """

    background: bool
    future: asyncio.Future[BatchResult]
    token_ids: list[list[int]] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    num_taken: int = 0
    num_missing: int = 0
    enqueued: float = 0
    started: float | None = None


class Batcher:
    """Queues requests and runs one forward pass at a time in a worker thread.

    A request whose caller was cancelled (deadline, disconnect) is dropped at once.

    Args:
        engine: Executes the batches.
        worker: The one thread in which every forward pass runs.
        max_tokens: Most tokens of one text.
        max_batch_tokens: Most tokens of one pass, padding included.
        max_queued_requests: Requests that may wait for their first pass, those included whose
            texts are being tokenized.
        on_batch: Called after each pass with the number of texts and of real tokens, those of
            background requests left out.
        stuck_after_s: Seconds after which a pass counts as stuck.
    """

    def __init__(
        self,
        engine: EncoderEngine,
        worker: ThreadPoolExecutor,
        max_tokens: int,
        max_batch_tokens: int,
        max_queued_requests: int,
        on_batch: Callable[[int, int], None],
        stuck_after_s: float = float("inf"),
    ) -> None:
        self._engine = engine
        self._max_tokens = max_tokens
        self._max_batch_tokens = max_batch_tokens
        self._max_queued_requests = max_queued_requests
        self._on_batch = on_batch
        self._stuck_after_s = stuck_after_s
        self._pass_started: float | None = None
        self._failures_in_a_row = 0
        self._waiting: set[Place] = set()
        """Requests whose first pass has not begun."""
        self._queue: OrderedDict[Place, None] = OrderedDict()
        """Requests with texts that no pass has taken yet, the oldest first."""
        self._worker = worker
        self._runner: asyncio.Task[None] | None = None

    @property
    def num_queued(self) -> int:
        """Requests that are tokenized, or wait for their first forward pass."""
        return len(self._waiting)

    def check_health(self) -> None:
        """Raise ``RuntimeError`` if the engine is stuck, or has only failed of late."""
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise RuntimeError(f"the last {self._failures_in_a_row} forward passes failed")
        started = self._pass_started
        if started is not None and time.perf_counter() - started > self._stuck_after_s:
            raise RuntimeError(f"a forward pass runs for more than {self._stuck_after_s:g} s")

    @contextmanager
    def place(self, background: bool = False) -> Iterator[Place]:
        """Give one request a place in the queue while the block runs, so that it may tokenize.

        Args:
            background: See ``InferenceRequest``.

        Raises:
            QueueFull: ``max_queued_requests`` requests wait already.
        """
        if len(self._waiting) >= self._max_queued_requests:
            raise QueueFull(
                f"{len(self._waiting)} requests wait already, as many as may; retry later",
                retry_after_s=1,
            )
        place = Place(background, asyncio.get_running_loop().create_future())
        self._waiting.add(place)
        try:
            yield place
        finally:
            self._waiting.discard(place)
            self._queue.pop(place, None)

    async def run(self, place: Place, token_ids: list[list[int]]) -> BatchResult:
        """Answer the texts, at least one, of the request that has ``place``."""
        assert token_ids
        place.token_ids = token_ids
        place.rows = [np.empty(0, np.float32)] * len(token_ids)
        place.num_missing = len(token_ids)
        place.enqueued = time.perf_counter()
        self._queue[place] = None
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_until_empty())
        return await place.future

    async def _run_until_empty(self) -> None:
        try:
            while window := self._take_window():
                lengths = [len(place.token_ids[index]) for place, index in window]
                for batch in split_by_length(lengths, self._max_batch_tokens):
                    await self._run_batch([window[i] for i in batch])
        finally:
            self._runner = None

    def _take_window(self) -> list[tuple[Place, int]]:
        """Take the oldest texts up to ``max_batch_tokens``, and at least one."""
        window: list[tuple[Place, int]] = []
        tokens = 0
        while self._queue:
            place = next(iter(self._queue))
            if place.future.done():  # one of its passes failed
                del self._queue[place]
                continue
            index = place.num_taken
            tokens += len(place.token_ids[index])
            if window and tokens > self._max_batch_tokens:
                break
            window.append((place, index))
            place.num_taken += 1
            if place.num_taken == len(place.token_ids):
                del self._queue[place]
        return window

    async def _run_batch(self, batch: list[tuple[Place, int]]) -> None:
        batch = [(place, index) for place, index in batch if not place.future.done()]
        if not batch:
            return
        started = time.perf_counter()
        for place, _ in batch:
            if place.started is None:
                place.started = started
                self._waiting.discard(place)
        token_ids = [place.token_ids[index] for place, index in batch]
        self._pass_started = started
        try:
            rows = await asyncio.get_running_loop().run_in_executor(
                self._worker, lambda: self._engine.forward(pad(token_ids, self._max_tokens))
            )
            self._count(batch)
            _deliver(batch, rows)
            self._failures_in_a_row = 0
        except Exception as error:  # whatever went wrong belongs to these requests alone
            self._failures_in_a_row += 1
            for place, _ in batch:
                if not place.future.done():
                    place.future.set_exception(error)
        finally:
            self._pass_started = None

    def _count(self, batch: list[tuple[Place, int]]) -> None:
        lengths = [len(place.token_ids[index]) for place, index in batch if not place.background]
        if lengths:
            self._on_batch(len(lengths), sum(lengths))


def _deliver(batch: list[tuple[Place, int]], rows: NDArray[np.float32]) -> None:
    finished = time.perf_counter()
    for (place, index), row in zip(batch, rows, strict=True):
        place.rows[index] = row
        place.num_missing -= 1
        if place.num_missing == 0 and not place.future.done():
            assert place.started is not None
            place.future.set_result(
                BatchResult(
                    np.stack(place.rows),
                    place.started - place.enqueued,
                    finished - place.started,
                )
            )
