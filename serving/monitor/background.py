"""Asks replicas for what nobody waits for: one thing at a time, and only of idle replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.errors import InternalError, QueueFull
from serving.seams import (
    NO_OPTIONS,
    AnswerOptions,
    Backends,
    GenerationRequest,
    GenerationSummary,
    GenerationTimings,
    InferenceRequest,
    Input,
    Outcome,
    ScoreRequest,
    Timings,
    TokenLogprob,
    Trace,
    background_request,
)

ANSWER_S = 60.0
"""How long one answer may take, or a few that are asked at once."""

A_FEW = 8
"""More than that at once may take longer, in proportion."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Between two tries while the replica has other work; each pause is twice the last."""

Answer = TypeVar("Answer")


class Background:
    """The one place from which the quality process asks replicas.

    Every method raises ``QueueFull`` if the replica has had other work for ``patience_s``
    seconds, and what the backend raises otherwise.
    """

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._turn = asyncio.Lock()

    async def infer(
        self,
        name: tuple[str, str],
        inputs: Sequence[Input],
        patience_s: float,
        truncate: bool = True,
        options: AnswerOptions = NO_OPTIONS,
    ) -> Outcome:
        """Have the variant ``name`` answer inputs."""
        timeout_s = ANSWER_S * max(len(inputs) / A_FEW, 1)
        request = InferenceRequest(tuple(inputs), truncate, options, timeout_s, background=True)
        return await self._when_idle(
            lambda: self._backends.encoder(*name).infer(request), patience_s
        )

    async def row(
        self, name: tuple[str, str], given: Input, patience_s: float
    ) -> tuple[NDArray[np.float32], float]:
        """Have it answer one input; returns the row, and the seconds without waiting."""
        outcome = await self.infer(name, [given], patience_s)
        return outcome.rows[0], _own_seconds(outcome.timings)

    async def generate(
        self, name: tuple[str, str], prompt: str, max_tokens: int, patience_s: float
    ) -> tuple[Trace, float]:
        """Have it continue a prompt greedily; returns what it wrote, and likewise the seconds."""
        request = replace(background_request(prompt, max_tokens, ANSWER_S), trace=0)
        summary = await self._when_idle(lambda: self._last_piece(name, request), patience_s)
        return summary.traces[0], _own_seconds(summary.timings)

    async def score(
        self,
        name: tuple[str, str],
        prompt: tuple[int, ...] | str,
        continuation: tuple[int, ...] | str,
        patience_s: float,
    ) -> tuple[TokenLogprob, ...]:
        """Have it score a continuation."""
        request = ScoreRequest(prompt, continuation, ANSWER_S, background=True)
        return await self._when_idle(
            lambda: self._backends.generator(*name).score(request), patience_s
        )

    async def _last_piece(
        self, name: tuple[str, str], request: GenerationRequest
    ) -> GenerationSummary:
        async with aclosing(self._backends.generator(*name).stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, GenerationSummary):
                    return piece
        raise InternalError(f"{name[0]}:{name[1]} broke off its answer")

    async def _when_idle(self, ask: Callable[[], Awaitable[Answer]], patience_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with self._turn:
                    return await ask()
            except QueueFull:
                if loop.time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _own_seconds(timings: Timings | GenerationTimings) -> float:
    """What an answer took apart from waiting."""
    return timings.total - timings.queue - timings.core_wait
