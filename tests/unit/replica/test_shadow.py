"""What is sampled of live answers, and that nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from serving.errors import QueueFull
from serving.replica.shadow import ShadowedEncoder, ShadowedGenerator
from serving.seams import (
    AnswerOptions,
    EncodedSample,
    GeneratedSample,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    InferenceRequest,
    Message,
    Sample,
    Sampling,
    ScoreRequest,
    TokensRequest,
    Trace,
)
from tests.unit.fakes.backends import GENERATION_TIMINGS, FakeEncoderBackend, FakeGeneratorBackend
from tests.unit.fakes.generator import logprob_of

INPUTS = ("a cat", ("two", "dogs"), "three cows")
ASKED = InferenceRequest(INPUTS, truncate=True, options=AnswerOptions(3), timeout_s=5)
GENERATE = GenerationRequest(
    ("ab",), (), 3, 1, Sampling(0, 1, 0, 0, 0, 0, None), (), False, True, 1, 1
)


def trace_of(number: int) -> Trace:
    return Trace((number,), (logprob_of(number, 2),))


TRACES = tuple(trace_of(number) for number in range(3))


class Sink:
    """Keeps what it is offered."""

    def __init__(self, *wants: bool) -> None:
        self.plan = list(wants)
        self.asked = 0
        self.samples: list[Sample] = []

    def wants(self) -> bool:
        self.asked += 1
        return self.plan.pop(0) if self.plan else True

    def offer(self, sample: Sample) -> None:
        self.samples.append(sample)


def shadowed_encoder(
    *wants: bool, failure: BaseException | None = None
) -> tuple[ShadowedEncoder, Sink]:
    backend, sink = FakeEncoderBackend("int4", ()), Sink(*wants)
    backend.failure = failure
    return ShadowedEncoder(backend, sink, "tiny", "int4"), sink


def shadowed(backend: FakeGeneratorBackend, *wants: bool) -> tuple[ShadowedGenerator, Sink]:
    sink = Sink(*wants)
    return ShadowedGenerator(backend, sink, "tiny", "int4"), sink


class TracingBackend(FakeGeneratorBackend):
    """Traces the choice that it is asked to trace; ``traces`` are those of all choices."""

    def __init__(self, *traces: Trace) -> None:
        super().__init__()
        self.traces = traces

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        async with aclosing(super().stream(request)) as items:
            async for item in items:
                if isinstance(item, GenerationSummary) and request.trace is not None:
                    item = replace(item, traces=(self.traces[request.trace],))
                yield item


def generator(*traces: Trace) -> FakeGeneratorBackend:
    return TracingBackend(*traces)


async def read(backend: ShadowedGenerator, asked: GenerationRequest = GENERATE) -> list[Any]:
    return [item async for item in backend.stream(asked)]


async def test_one_input_of_a_request_is_offered_with_its_row() -> None:
    backend, sink = shadowed_encoder()
    chosen = set()
    for number in range(60):
        outcome = await backend.infer(ASKED)
        assert len(sink.samples) == number + 1
        sample = sink.samples[-1]
        assert isinstance(sample, EncodedSample)
        assert (sample.model, sample.variant) == ("tiny", "int4")
        assert (sample.truncate, sample.options) == (True, AnswerOptions(3))
        assert sample.row.tolist() == outcome.rows[INPUTS.index(sample.input)].tolist()
        assert sample.row.base is None
        chosen.add(sample.input)
    assert chosen == set(INPUTS)


async def test_only_what_the_sink_wants_is_offered() -> None:
    backend, sink = shadowed_encoder(False, True, False)
    for _ in range(3):
        await backend.infer(ASKED)
    assert (sink.asked, len(sink.samples)) == (3, 1)


@pytest.mark.parametrize("failure", [QueueFull("full"), asyncio.CancelledError()])
async def test_an_answer_that_failed_is_not_offered(failure: BaseException) -> None:
    backend, sink = shadowed_encoder(failure=failure)
    with pytest.raises(type(failure)):
        await backend.infer(ASKED)
    assert sink.samples == []


async def test_background_requests_are_not_sampled() -> None:
    backend, sink = shadowed_encoder()
    await backend.infer(replace(ASKED, background=True))
    fake = generator(*TRACES)
    over, other = shadowed(fake)
    background = replace(GENERATE, background=True)
    await read(over, background)
    assert fake.requests == [background]
    assert sink.asked == other.asked == 0


async def test_a_sampled_stream_is_traced_and_the_caller_gets_no_trace() -> None:
    fake = generator(*TRACES)
    backend, sink = shadowed(fake)
    sent = await read(backend)
    [asked] = fake.requests
    assert asked.trace is not None
    assert asked == replace(GENERATE, trace=asked.trace)
    assert sent == [*fake.script[:-1], GenerationSummary(3, 1, 4, GENERATION_TIMINGS)]
    assert sink.samples == [GeneratedSample("tiny", "int4", TRACES[asked.trace], "ab")]


async def test_a_prompt_of_token_ids_has_no_text_to_offer() -> None:
    backend, sink = shadowed(fake := generator(*TRACES))
    asked = replace(GENERATE, prompts=((1, 2),))
    await read(backend, asked)
    assert fake.requests == [asked]
    assert sink.samples == []


async def test_tokens_are_passed_on_and_not_sampled() -> None:
    fake = generator(*TRACES)
    backend, sink = shadowed(fake)
    asked = TokensRequest("ab", (), (), 5)
    assert await backend.tokens(asked) == await fake.tokens(asked)
    assert sink.asked == 0


async def test_what_comes_after_the_model_s_end_is_not_sampled() -> None:
    backend, sink = shadowed(fake := generator(*TRACES))
    asked = replace(GENERATE, ignores_end=True)
    await read(backend, asked)
    assert fake.requests == [asked]
    assert sink.asked == 0


async def test_every_choice_may_be_the_one_that_is_offered() -> None:
    backend, sink = shadowed(generator(*TRACES))
    for _ in range(60):
        await read(backend)
    assert {s.trace.prompt for s in sink.samples if isinstance(s, GeneratedSample)} == {
        trace.prompt for trace in TRACES
    }


@pytest.mark.parametrize(
    "asked",
    [
        replace(GENERATE, prompts=("a", "b", "c"), n=1),
        replace(GENERATE, prompts=("a", "b"), n=2),
        replace(GENERATE, prompts=(), messages=(Message("system", "x"), Message("user", "a"))),
    ],
)
async def test_a_choice_goes_with_its_own_prompt(asked: GenerationRequest) -> None:
    prompts = [text for text in asked.prompts or ("a",) for _ in range(asked.n)]
    traces = tuple(trace_of(number) for number in range(len(prompts)))
    backend, sink = shadowed(generator(*traces))
    for _ in range(60):
        await read(backend, asked)
    pairs = set(zip(prompts, traces, strict=True))
    assert {(s.prompt, s.trace) for s in sink.samples if isinstance(s, GeneratedSample)} == pairs


async def test_a_choice_without_tokens_is_not_offered() -> None:
    backend, sink = shadowed(generator(*[Trace((1,), ())] * 3))
    await read(backend)
    assert sink.samples == []


async def test_a_stream_that_is_not_wanted_passes_untouched() -> None:
    fake = generator(*TRACES)
    backend, sink = shadowed(fake, False)
    assert await read(backend) == fake.script
    assert fake.requests == [GENERATE]
    assert sink.samples == []


async def test_a_trace_that_the_caller_asked_for_is_its_own() -> None:
    fake = generator(*TRACES)
    backend, sink = shadowed(fake)
    *_, summary = await read(backend, replace(GENERATE, trace=0))
    assert summary.traces == TRACES[:1]
    assert sink.asked == 0


async def test_a_stream_that_fails_is_not_offered() -> None:
    fake = generator(*TRACES)
    fake.script.insert(1, QueueFull("full"))
    backend, sink = shadowed(fake)
    with pytest.raises(QueueFull):
        await read(backend)
    assert sink.samples == []


async def test_a_stream_that_its_client_leaves_ends_and_is_not_offered() -> None:
    fake = generator(*TRACES)
    backend, sink = shadowed(fake)
    stream = backend.stream(GENERATE)
    await anext(stream)
    assert fake.streams == 1
    await stream.aclose()
    assert fake.streams == 0
    assert sink.samples == []


async def test_the_rest_is_passed_on() -> None:
    fake = generator()
    backend, sink = shadowed(fake)
    asked = ScoreRequest((1,), (2, 3), 5)
    assert await backend.score(asked) == await fake.score(asked)
    assert await backend.describe() == await fake.describe()
    assert sink.asked == 0
