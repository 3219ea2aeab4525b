"""Backends whose calls are timed, those of requests that somebody waits for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from serving.gateway.latencies import Latencies
from serving.seams import (
    Description,
    EncoderBackend,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GeneratorBackend,
    InferenceRequest,
    Outcome,
    ScoreRequest,
    TokenizedText,
    TokenLogprob,
    TokensRequest,
)


class TimedEncoder:
    """Passes everything on, and notes how long requests take."""

    def __init__(
        self, backend: EncoderBackend, latencies: Latencies, model: str, variant: str
    ) -> None:
        self._backend = backend
        self._latencies = latencies
        self._name = model, variant

    async def infer(self, request: InferenceRequest) -> Outcome:
        """See ``EncoderBackend.infer``."""
        if request.background:
            return await self._backend.infer(request)
        with self._latencies.measuring(*self._name, request.timeout_s) as call:
            outcome = await self._backend.infer(request)
            timings = outcome.timings
            self._latencies.answered(call, timings.queue + timings.core_wait)
            return outcome

    async def describe(self) -> Description:
        """See ``EncoderBackend.describe``."""
        return await self._backend.describe()


class TimedGenerator:
    """Passes everything on, and notes how long generating takes."""

    def __init__(
        self, backend: GeneratorBackend, latencies: Latencies, model: str, variant: str
    ) -> None:
        self._backend = backend
        self._latencies = latencies
        self._name = model, variant

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """See ``GeneratorBackend.stream``."""
        async with aclosing(self._backend.stream(request)) as pieces:
            if request.background:
                async for piece in pieces:
                    yield piece
                return
            with self._latencies.measuring(*self._name, request.timeout_s) as call:
                async for piece in pieces:
                    if isinstance(piece, GenerationSummary):
                        # The replica's own time: a client that reads slowly is not the variant's
                        # fault.
                        timings = piece.timings
                        waited = timings.queue + timings.core_wait
                        self._latencies.answered(call, waited, timings.total)
                    yield piece

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """See ``GeneratorBackend.score``."""
        return await self._backend.score(request)

    async def tokens(self, request: TokensRequest) -> TokenizedText:
        """See ``GeneratorBackend.tokens``."""
        return await self._backend.tokens(request)

    async def describe(self) -> Description:
        """See ``EncoderBackend.describe``."""
        return await self._backend.describe()
