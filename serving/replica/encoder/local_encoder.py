"""The local backend of an encoder: task, batcher and engine of one variant, in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable

import numpy as np
from numpy.typing import NDArray

from serving.errors import InternalError, InvalidField
from serving.metrics import EncoderMetrics
from serving.replica.admission import Admission
from serving.replica.deadline import deadline
from serving.replica.encoder.batcher import Batcher
from serving.replica.tokenizing import Tokenizing
from serving.seams import (
    Description,
    EncoderTask,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    InferenceRequest,
    Outcome,
    ScoreRequest,
    Timings,
    TokenLogprob,
)

logger = logging.getLogger("ray.serve.quantserve")


class LocalBackend:
    """Answers requests with the engine behind its batcher.

    Args:
        model: Its public name, for messages.
        task: Tokenizes and decodes.
        batcher: Queues and executes.
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
        self._admission = Admission()
        metrics.in_flight.set_function(lambda: self._admission.in_flight)

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Answer every text of ``request``; see ``Backend.infer``."""
        with self._admission.admit(request.background):
            async with deadline(request.timeout_s, "no answer"):
                outcome = await self._answer(request)
        if not request.background:
            self._metrics.observe_request(outcome.timings, outcome.tokens)
        return outcome

    def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Refuse: an encoder has no text to answer with."""
        raise InvalidField(f"model {self._model!r} does not generate", param="model")

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Refuse: an encoder gives no token a probability."""
        raise InvalidField(f"model {self._model!r} does not generate", param="model")

    async def describe(self) -> Description:
        """Say what is loaded."""
        return self._describe()

    async def _answer(self, request: InferenceRequest) -> Outcome:
        arrived = time.perf_counter()
        self._task.check_dimensions(request.dimensions)
        with self._batcher.place(request.background) as place:
            token_ids = await self._encode(request)
            tokenized = time.perf_counter()
            result = await self._batcher.run(place, token_ids)
        self._check_finite(result.rows)
        rows = self._task.decode(result.rows, request.dimensions)
        return Outcome(
            rows=rows,
            labels=self._task.labels,
            tokens=sum(len(ids) for ids in token_ids),
            timings=Timings(
                queue=result.queue,
                tokenize=tokenized - arrived,
                forward=result.forward,
                total=time.perf_counter() - arrived,
            ),
        )

    async def _encode(self, request: InferenceRequest) -> list[list[int]]:
        characters = sum(map(len, request.texts))
        return await self._tokenizing.run(
            characters, self._task.encode, request.texts, request.truncate
        )

    def _check_finite(self, rows: NDArray[np.float32]) -> None:
        if not np.isfinite(rows).all():
            logger.error("the model gave rows that are NaN or infinite")
            raise InternalError(
                f"{self._model!r} gave numbers that are NaN or infinite, so there is no answer; "
                "another variant may give one"
            )
