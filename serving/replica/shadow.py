"""Backends whose live answers are sampled, for the quality process to compare.

One answer, or one choice, is offered of a request that is sampled: those of one request resemble
each other, and the intervals of quality count every sample as independent. Neither background
requests are sampled, nor answers that failed or were cut off by their client.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from serving.replica.generator.choices import num_choices
from serving.seams import (
    Description,
    EncodedSample,
    EncoderBackend,
    GeneratedSample,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GeneratorBackend,
    InferenceRequest,
    Outcome,
    SampleSink,
    ScoreRequest,
    TokenizedText,
    TokenLogprob,
    TokensRequest,
    Trace,
)


class ShadowedEncoder:
    """Answers as ``backend`` does, and offers some of the answers to a sink.

    Args:
        backend: Answers.
        sink: Says what to sample, and takes it.
        model: Public name of the model; likewise ``variant``.
    """

    def __init__(self, backend: EncoderBackend, sink: SampleSink, model: str, variant: str) -> None:
        self._backend = backend
        self._sink = sink
        self._model = model
        self._variant = variant
        self._random = np.random.default_rng()

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Answer every input of ``request``; see ``EncoderBackend.infer``."""
        is_sampled = not request.background and self._sink.wants()
        outcome = await self._backend.infer(request)
        if is_sampled and request.inputs:
            index = self._random.integers(len(request.inputs))
            self._sink.offer(
                EncodedSample(
                    model=self._model,
                    variant=self._variant,
                    input=request.inputs[index],
                    truncate=request.truncate,
                    options=request.options,
                    row=outcome.rows[index].copy(),  # or it would keep all the others alive
                )
            )
        return outcome

    async def describe(self) -> Description:
        """Say what is loaded."""
        return await self._backend.describe()


class ShadowedGenerator:
    """Answers as ``backend`` does, and offers some of the choices to a sink.

    Args:
        backend: See ``ShadowedEncoder``; likewise the others.
    """

    def __init__(
        self, backend: GeneratorBackend, sink: SampleSink, model: str, variant: str
    ) -> None:
        self._backend = backend
        self._sink = sink
        self._model = model
        self._variant = variant
        self._random = np.random.default_rng()

    def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Generate; see ``GeneratorBackend.stream``. What is not sampled takes no detour.

        What comes after a model's own end says nothing of its quality.
        """
        is_no_sample = request.background or request.ignores_end or request.trace is not None
        if is_no_sample or not self._sink.wants():
            return self._backend.stream(request)
        choice = int(self._random.integers(num_choices(request)))
        prompts = request.prompts or (request.messages[-1].content,)
        prompt = prompts[choice // request.n]
        if not isinstance(prompt, str):  # a sample is kept and shown as text
            return self._backend.stream(request)
        return self._stream_and_sample(replace(request, trace=choice), prompt)

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Score each token of the continuation; see ``GeneratorBackend.score``."""
        return await self._backend.score(request)

    async def tokens(self, request: TokensRequest) -> TokenizedText:
        """Have the backend tokenize; see ``GeneratorBackend.tokens``."""
        return await self._backend.tokens(request)

    async def describe(self) -> Description:
        """Say what is loaded."""
        return await self._backend.describe()

    async def _stream_and_sample(
        self, request: GenerationRequest, prompt: str
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        async with aclosing(self._backend.stream(request)) as items:
            async for item in items:
                if isinstance(item, GenerationSummary):
                    self._offer(prompt, item.traces)
                    item = replace(item, traces=())
                yield item

    def _offer(self, prompt: str, traces: Sequence[Trace]) -> None:
        for trace in traces:
            if trace.tokens:
                self._sink.offer(
                    GeneratedSample(
                        model=self._model,
                        variant=self._variant,
                        trace=trace,
                        prompt=prompt,
                    )
                )
