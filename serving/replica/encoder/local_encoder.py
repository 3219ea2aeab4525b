"""The local backend of an encoder: task, batcher and engine of one variant, in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.metrics import EncoderMetrics
from serving.replica.admission import Admission
from serving.replica.deadline import deadline
from serving.replica.encoder.batcher import Batcher
from serving.replica.tokenizing import Tokenizing
from serving.seams import (
    AnswerOptions,
    Description,
    EncoderTask,
    InferenceRequest,
    Input,
    Item,
    Outcome,
    TakesTokenIds,
    Timings,
)

INLINE_NUMBERS = 16_384
"""Answers of more numbers are finished in a thread, so that the event loop stays free: some
checkpoints have layers after the engine's."""


class LocalEncoder:
    """Answers requests with an encoder in this process.

    Args:
        model: Its public name, for messages.
        task: Prepares inputs and decodes rows.
        batcher: Queues, collates and executes.
        metrics: Measures.
        describe: Says what is loaded.
    """

    def __init__(
        self,
        model: str,
        task: EncoderTask,
        batcher: Batcher,
        metrics: EncoderMetrics,
        describe: Callable[[], Description],
    ) -> None:
        self._model = model
        self._task = task
        self._batcher = batcher
        self._metrics = metrics
        self._describe = describe
        self._tokenizing = Tokenizing()
        self._admission = Admission(metrics.busy.inc)
        metrics.in_flight.set_function(lambda: self._admission.in_flight)

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Answer every input of ``request``; see ``EncoderBackend.infer``."""
        with self._admission.admit(request.background):
            async with deadline(request.timeout_s, "no answer"):
                outcome = await self._answer(request)
        if not request.background:
            self._metrics.observe_request(outcome.timings, outcome.tokens)
        return outcome

    async def describe(self) -> Description:
        """Say what is loaded."""
        return self._describe()

    async def _answer(self, request: InferenceRequest) -> Outcome:
        arrived = time.perf_counter()
        self._check_options(request)
        with self._batcher.place(request.background) as place:
            items = await self._prepare(request)
            prepared = time.perf_counter()
            result = await self._batcher.run(place, items)
        rows = await self._finish(result.rows, request.options)
        return Outcome(
            rows=rows,
            labels=self._task.labels,
            tokens=sum(item.cost for item in items),
            timings=Timings(
                queue=result.queue,
                tokenize=prepared - arrived,
                core_wait=result.core_wait,
                forward=result.forward,
                total=time.perf_counter() - arrived,
            ),
        )

    def _check_options(self, request: InferenceRequest) -> None:
        self._task.check_options(request.options)
        if request.token_ids and request.options.prompt_name is not None:
            raise InvalidField(
                "prompt_name: nothing is added to token ids; leave it out, or send text",
                param="prompt_name",
            )

    async def _prepare(self, request: InferenceRequest) -> list[Item]:
        if request.token_ids:
            return await self._take_ids(request.token_ids, request.truncate)
        characters = sum(len(text) for given in request.inputs for text in _texts(given))
        return await self._tokenizing.run(
            characters, self._task.prepare, request.inputs, request.truncate, request.options
        )

    async def _finish(
        self, rows: NDArray[np.float32], options: AnswerOptions
    ) -> NDArray[np.float32]:
        if rows.size <= INLINE_NUMBERS:
            return self._task.decode(rows, options)
        return await asyncio.to_thread(self._task.decode, rows, options)

    async def _take_ids(self, ids: tuple[tuple[int, ...], ...], truncate: bool) -> list[Item]:
        if not isinstance(self._task, TakesTokenIds):
            raise InvalidField(f"{self._model!r} takes no token ids; send text", param="input")
        return await self._tokenizing.run(sum(map(len, ids)), self._task.prepare_ids, ids, truncate)


def _texts(given: Input) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given
