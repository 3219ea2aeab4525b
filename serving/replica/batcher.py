"""Natural batching: what arrived during one forward pass makes the next; no timer, no waiting."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.errors import QueueFull
from serving.replica.batching import pad, split_by_length
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
class _Request:
    token_ids: list[list[int]]
    future: asyncio.Future[BatchResult]
    enqueued: float
    background: bool
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    missing: int = 0
    started: float | None = None


class Batcher:
    """Queues requests and runs one forward pass at a time in a worker thread.

    A request whose caller was cancelled (deadline, disconnect) is dropped before its next pass.

    Args:
        engine: Executes the batches.
        worker: The one thread in which every forward pass runs.
        max_batch_tokens: Most tokens of one pass, padding included.
        max_queued_requests: Requests that may wait for their first pass.
        on_batch: Called after each pass with the number of texts and of real tokens, those of
            background requests left out.
        stuck_after_s: Seconds after which a pass counts as stuck.
    """

    def __init__(
        self,
        engine: EncoderEngine,
        worker: ThreadPoolExecutor,
        max_batch_tokens: int,
        max_queued_requests: int,
        on_batch: Callable[[int, int], None],
        stuck_after_s: float = float("inf"),
    ) -> None:
        self._engine = engine
        self._max_batch_tokens = max_batch_tokens
        self._max_queued_requests = max_queued_requests
        self._on_batch = on_batch
        self._stuck_after_s = stuck_after_s
        self._pass_started: float | None = None
        self._failures_in_a_row = 0
        self._texts: deque[tuple[_Request, int]] = deque()
        self._waiting: set[_Request] = set()
        self._worker = worker
        self._runner: asyncio.Task[None] | None = None

    @property
    def num_queued(self) -> int:
        """Requests that wait for their first forward pass."""
        return len(self._waiting)

    def check_health(self) -> None:
        """Raise ``RuntimeError`` if the engine is stuck, or has only failed of late."""
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise RuntimeError(f"the last {self._failures_in_a_row} forward passes failed")
        started = self._pass_started
        if started is not None and time.perf_counter() - started > self._stuck_after_s:
            raise RuntimeError(f"a forward pass runs for more than {self._stuck_after_s:g} s")

    async def run(self, token_ids: list[list[int]], background: bool = False) -> BatchResult:
        """Answer one request; see ``InferenceRequest`` for ``background``.

        Raises:
            QueueFull: ``max_queued_requests`` requests wait already.
        """
        if len(self._waiting) >= self._max_queued_requests:
            raise QueueFull(
                f"{len(self._waiting)} requests wait already, as many as may; retry later",
                retry_after_s=1,
            )
        request = _Request(
            token_ids, asyncio.get_running_loop().create_future(), time.perf_counter(), background
        )
        request.rows = [np.empty(0, np.float32)] * len(token_ids)
        request.missing = len(token_ids)
        self._waiting.add(request)
        self._texts.extend((request, index) for index in range(len(token_ids)))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_until_empty())
        try:
            return await request.future
        finally:
            self._waiting.discard(request)

    async def _run_until_empty(self) -> None:
        try:
            while window := self._take_window():
                lengths = [len(request.token_ids[index]) for request, index in window]
                for batch in split_by_length(lengths, self._max_batch_tokens):
                    await self._run_batch([window[i] for i in batch])
        finally:
            self._runner = None

    def _take_window(self) -> list[tuple[_Request, int]]:
        """Take the oldest texts up to ``max_batch_tokens``, and at least one."""
        window: list[tuple[_Request, int]] = []
        tokens = 0
        while self._texts:
            request, index = self._texts[0]
            length = len(request.token_ids[index])
            if window and tokens + length > self._max_batch_tokens:
                break
            self._texts.popleft()
            if not request.future.done():
                window.append((request, index))
                tokens += length
        return window

    async def _run_batch(self, batch: list[tuple[_Request, int]]) -> None:
        batch = [(request, index) for request, index in batch if not request.future.done()]
        if not batch:
            return
        started = time.perf_counter()
        for request, _ in batch:
            if request.started is None:
                request.started = started
                self._waiting.discard(request)
        token_ids = [request.token_ids[index] for request, index in batch]
        self._pass_started = started
        try:
            rows = await asyncio.get_running_loop().run_in_executor(
                self._worker, lambda: self._engine.forward(pad(token_ids))
            )
            self._count(batch)
            _deliver(batch, rows)
            self._failures_in_a_row = 0
        except Exception as error:  # whatever went wrong belongs to these requests alone
            self._failures_in_a_row += 1
            for request, _ in batch:
                if not request.future.done():
                    request.future.set_exception(error)
        finally:
            self._pass_started = None

    def _count(self, batch: list[tuple[_Request, int]]) -> None:
        lengths = [
            len(request.token_ids[index]) for request, index in batch if not request.background
        ]
        if lengths:
            self._on_batch(len(lengths), sum(lengths))


def _deliver(batch: list[tuple[_Request, int]], rows: NDArray[np.float32]) -> None:
    finished = time.perf_counter()
    for (request, index), row in zip(batch, rows, strict=True):
        request.rows[index] = row
        request.missing -= 1
        if request.missing == 0 and not request.future.done():
            assert request.started is not None
            request.future.set_result(
                BatchResult(
                    np.stack(request.rows),
                    request.started - request.enqueued,
                    finished - request.started,
                )
            )
