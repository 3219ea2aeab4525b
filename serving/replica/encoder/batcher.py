"""Natural batching: what arrived during one forward pass makes the next; no timer, no waiting."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.errors import InputFails, InternalError, QueueFull
from serving.replica.encoder.batching import split_by_cost
from serving.replica.encoder.fair_queue import FairQueue
from serving.seams import Arrays, Cores, EncoderEngine, Item

logger = logging.getLogger("ray.serve.quantserve")

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Rows (inputs, width) of one request, and where its time went, in seconds; see ``Timings``."""

    rows: NDArray[np.float32]
    queue: float
    core_wait: float
    forward: float


@dataclass(slots=True, eq=False)
class QueuePlace:
    """A request's place in the queue, from before its inputs are prepared.

    Attributes:
        background: See ``InferenceRequest``.
        future: Of its answer.
        items: Its inputs, at least one, once they are prepared.
        rows: Their answers so far.
        num_taken: Leading items that were taken for a pass.
        credit: See ``serving.replica.encoder.fair_queue``.
        num_missing: Items that have no answer yet.
        enqueued: When it was prepared, by ``time.perf_counter``.
        started: When its first pass was to begin; None before.
        core_wait: Seconds that its passes waited for a core.
    """

    background: bool
    future: asyncio.Future[BatchResult]
    items: Sequence[Item] = ()
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    num_taken: int = 0
    credit: int = 0
    num_missing: int = 0
    enqueued: float = 0
    started: float | None = None
    core_wait: float = 0


class Batcher:
    """Queues requests and runs one forward pass at a time in a worker thread.

    A request whose caller was cancelled (deadline, disconnect) is dropped at once.

    When a pass fails, or gives rows that are NaN or infinite, the engine is asked again for an
    input that it has answered before. If it fails there, too, it is broken. If it does not, the
    pass is taken again in halves, so that only the input whose fault it is gets no answer.

    Args:
        engine: Executes the batches.
        collate: Makes one batch of items; called in the worker's thread.
        worker: The one thread in which every forward pass runs.
        cores: Where each pass gets cores from.
        max_batch_cost: Most that the items of one pass may cost, padding included.
        max_queued_requests: Requests that may wait for their first pass, those included whose
            inputs are being prepared.
        on_batch: Called after each pass with the number of items and their cost without padding,
            those of background requests left out.
        proven: An item that the engine has answered.
        stuck_after_s: Seconds after which a pass counts as stuck.
    """

    def __init__(
        self,
        engine: EncoderEngine,
        collate: Callable[[Sequence[Item]], Arrays],
        worker: ThreadPoolExecutor,
        cores: Cores,
        max_batch_cost: int,
        max_queued_requests: int,
        on_batch: Callable[[int, int], None],
        proven: Item,
        stuck_after_s: float = float("inf"),
    ) -> None:
        self._engine = engine
        self._collate = collate
        self._max_batch_cost = max_batch_cost
        self._max_queued_requests = max_queued_requests
        self._on_batch = on_batch
        self._stuck_after_s = stuck_after_s
        self._pass_started: float | None = None
        self._proven = proven
        self._broken: str | None = None
        """What is wrong with the engine, since the last pass that succeeded."""
        self._waiting: set[QueuePlace] = set()
        """Requests whose first pass has not begun."""
        self._queue: FairQueue[QueuePlace] = FairQueue()
        self._worker, self._cores = worker, cores
        self._runner: asyncio.Task[None] | None = None

    @property
    def num_queued(self) -> int:
        """Requests that are prepared, or wait for their first forward pass."""
        return len(self._waiting)

    def check_health(self) -> None:
        """Raise ``RuntimeError`` if the engine is stuck, or failed its latest self-test."""
        if self._broken is not None:
            raise RuntimeError(f"the engine fails on an input that it had answered: {self._broken}")
        started = self._pass_started
        if started is not None and time.perf_counter() - started > self._stuck_after_s:
            raise RuntimeError(f"a forward pass runs for more than {self._stuck_after_s:g} s")

    @contextmanager
    def place(self, background: bool = False) -> Iterator[QueuePlace]:
        """Give one request a place in the queue while the block runs, so that it may prepare.

        Args:
            background: See ``InferenceRequest``.

        Raises:
            QueueFull: ``max_queued_requests`` requests wait already; background requests take no
                place away from the others.
        """
        num_alike = sum(place.background == background for place in self._waiting)
        if num_alike >= self._max_queued_requests:
            raise QueueFull(
                f"{num_alike} requests wait already, as many as may; retry later",
                retry_after_s=1,
            )
        place = QueuePlace(background, asyncio.get_running_loop().create_future())
        self._waiting.add(place)
        try:
            yield place
        finally:
            self._waiting.discard(place)
            self._queue.discard(place)

    async def run(self, place: QueuePlace, items: Sequence[Item]) -> BatchResult:
        """Answer the items, at least one, of the request that has ``place``."""
        assert items
        place.items = items
        place.rows = [np.empty(0, np.float32)] * len(items)
        place.num_missing = len(items)
        place.enqueued = time.perf_counter()
        self._queue.add(place)
        if not place.background:
            self._cores.hurry()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_until_empty())
        return await place.future

    async def _run_until_empty(self) -> None:
        try:
            while window := self._queue.take(self._max_batch_cost):
                costs = [place.items[index].cost for place, index in window]
                # The shortest first: whoever has asked for little shall not wait for the long.
                for batch in reversed(split_by_cost(costs, self._max_batch_cost)):
                    await self._run_batch([window[i] for i in batch])
        finally:
            self._runner = None
            self._cores.give_back()

    async def _run_batch(self, batch: list[tuple[QueuePlace, int]]) -> None:
        batch = [(place, index) for place, index in batch if not place.future.done()]
        if not batch:
            return
        started = time.perf_counter()
        for place, _ in batch:
            if place.started is None:
                place.started = started
                self._waiting.discard(place)
        items = [place.items[index] for place, index in batch]
        is_background = all(place.background for place, _ in batch)
        try:
            rows, core_wait = await self._in_worker(self._forward, items, is_background)
        except Exception as error:  # whatever a kernel raises
            logger.error("a forward pass of %d inputs failed", len(batch), exc_info=error)
            await self._find_fault(batch, "the model fails on")
            return
        finally:
            self._pass_started = None
        is_finite = np.asarray(np.isfinite(rows).all(axis=1))
        if is_finite.all():
            self._broken = None
        else:
            suspects = [each for each, fine in zip(batch, is_finite, strict=True) if not fine]
            await self._find_fault(suspects, "the model gives numbers that are NaN or infinite on")
            batch = [each for each, fine in zip(batch, is_finite, strict=True) if fine]
            rows = rows[is_finite]
        self._count(batch)
        _deliver(batch, rows, core_wait)

    async def _find_fault(self, suspects: list[tuple[QueuePlace, int]], what: str) -> None:
        """Fail an input that has no answer; of several, take the pass again in halves.

        One may have spoiled it for all: some kernels have one scale for the whole batch.
        """
        if await self._is_broken(suspects):
            return
        if len(suspects) == 1:
            [(place, index)] = suspects
            logger.error("%s one input of a request", what)
            message = f"{what} input[{index}], and not on others; another variant may answer it"
            _fail(place, InputFails(message, param="input"))
            return
        half = len(suspects) // 2
        await self._run_batch(suspects[:half])
        await self._run_batch(suspects[half:])

    async def _is_broken(self, batch: list[tuple[QueuePlace, int]]) -> bool:
        """Have the engine answer the proven input; if it does not, the batch has failed."""
        try:
            await self._in_worker(self._test)
        except Exception as error:  # whatever a kernel raises
            self._broken = f"{type(error).__name__}: {error}"
        else:
            self._broken = None
        if self._broken is None:
            return False
        logger.error("the engine fails on an input that it had answered: %s", self._broken)
        for place, _ in batch:
            _fail(
                place, InternalError("the model fails on every input; see the log of the replica")
            )
        return True

    def _test(self) -> None:
        self._pass_started = time.perf_counter()
        try:
            (row,) = self._engine.forward(self._collate([self._proven]))
        finally:
            self._pass_started = None
        if not np.isfinite(row).all():
            raise ArithmeticError("its numbers are NaN or infinite")

    async def _in_worker(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    def _forward(self, items: list[Item], is_background: bool) -> tuple[NDArray[np.float32], float]:
        """Run a pass in the worker; returns its rows, and the seconds that it waited for cores."""
        batch = self._collate(items)
        asked = time.perf_counter()
        cores = self._cores.take(is_background)
        self._pass_started = time.perf_counter()
        self._engine.use_cores(cores)
        rows = self._engine.forward(batch)
        if len(rows) != len(items):
            raise RuntimeError(f"the engine gave {len(rows)} rows for {len(items)} inputs")
        return rows, self._pass_started - asked

    def _count(self, batch: list[tuple[QueuePlace, int]]) -> None:
        costs = [place.items[index].cost for place, index in batch if not place.background]
        if costs:
            self._on_batch(len(costs), sum(costs))


def _deliver(
    batch: list[tuple[QueuePlace, int]], rows: NDArray[np.float32], core_wait: float
) -> None:
    finished = time.perf_counter()
    for place in {place for place, _ in batch}:
        place.core_wait += core_wait
    for (place, index), row in zip(batch, rows, strict=True):
        place.rows[index] = row
        place.num_missing -= 1
        if place.num_missing == 0 and not place.future.done():
            assert place.started is not None
            place.future.set_result(
                BatchResult(
                    rows=np.stack(place.rows),
                    queue=place.started - place.enqueued,
                    core_wait=place.core_wait,
                    forward=finished - place.started - place.core_wait,
                )
            )


def _fail(place: QueuePlace, error: Exception) -> None:
    if not place.future.done():
        place.future.set_exception(error)
