"""Calls that pass through a timed backend."""

from dataclasses import replace

import numpy as np
import pytest

from serving.errors import InternalError, InvalidField
from serving.gateway.latencies import Latencies
from serving.gateway.timed_backend import TimedEncoder, TimedGenerator
from serving.seams import GREEDY, NO_OPTIONS, GenerationRequest, InferenceRequest, TokensRequest
from tests.unit.fakes.backends import GENERATION_TIMINGS, FakeEncoderBackend, FakeGeneratorBackend

REQUEST = InferenceRequest(("a cat",), truncate=False, options=NO_OPTIONS, timeout_s=5)
GENERATION = GenerationRequest(
    prompts=("a cat",),
    messages=(),
    n=1,
    max_tokens=4,
    sampling=GREEDY,
    stop=(),
    echo=False,
    stream=True,
    first_token_timeout_s=5,
    timeout_s=5,
)


def timed_encoder(backend: FakeEncoderBackend) -> tuple[TimedEncoder, Latencies]:
    latencies = Latencies()
    return TimedEncoder(backend, latencies, "minilm", "int4"), latencies


def timed_generator(backend: FakeGeneratorBackend) -> tuple[TimedGenerator, Latencies]:
    latencies = Latencies()
    return TimedGenerator(backend, latencies, "minilm", "int4"), latencies


async def test_an_answer_is_passed_on_and_timed() -> None:
    fake = FakeEncoderBackend("minilm:int4", ())
    backend, latencies = timed_encoder(fake)
    outcome = await backend.infer(REQUEST)
    assert np.array_equal(outcome.rows, (await fake.infer(REQUEST)).rows)
    assert latencies.figures("minilm", "int4") is not None
    assert await backend.describe() == await fake.describe()


async def test_tokens_are_passed_on_and_not_timed() -> None:
    fake = FakeGeneratorBackend()
    backend, latencies = timed_generator(fake)
    asked = TokensRequest("ab", (), (), 5)
    assert await backend.tokens(asked) == await fake.tokens(asked)
    assert latencies.figures("minilm", "int4") is None
    assert latencies.begin("minilm", "int4").ahead == 0


async def test_an_error_is_passed_on_and_not_timed() -> None:
    fake = FakeEncoderBackend("minilm:int4", ())
    fake.failure = InvalidField("too long")
    backend, latencies = timed_encoder(fake)
    with pytest.raises(InvalidField, match="too long"):
        await backend.infer(REQUEST)
    assert latencies.figures("minilm", "int4") is None
    assert latencies.begin("minilm", "int4").ahead == 0


async def test_an_internal_error_counts_as_the_request_s_timeout() -> None:
    fake, generator = FakeEncoderBackend("minilm:int4", ()), FakeGeneratorBackend()
    fake.failure = InternalError("internal error")
    generator.script = [fake.failure]
    backend, latencies = timed_encoder(fake)
    with pytest.raises(InternalError):
        await backend.infer(REQUEST)
    generating, of_generator = timed_generator(generator)
    with pytest.raises(InternalError):
        await anext(generating.stream(replace(GENERATION, timeout_s=7)))
    for record, timeout_s in ((latencies, 5), (of_generator, 7)):
        figures = record.figures("minilm", "int4")
        assert figures is not None
        assert figures.p95_s == timeout_s


async def test_a_generation_takes_the_time_that_its_replica_says() -> None:
    fake = FakeGeneratorBackend()
    backend, latencies = timed_generator(fake)
    assert [piece async for piece in backend.stream(GENERATION)] == fake.script
    figures = latencies.figures("minilm", "int4")
    assert figures is not None
    # Nothing was ahead, so its wait counts, too.
    assert figures.p95_s == pytest.approx(GENERATION_TIMINGS.total)


async def test_a_generation_that_is_given_up_is_closed_and_not_timed() -> None:
    fake = FakeGeneratorBackend()
    backend, latencies = timed_generator(fake)
    stream = backend.stream(GENERATION)
    await anext(stream)
    await stream.aclose()
    assert fake.streams == 0
    assert latencies.figures("minilm", "int4") is None
    assert latencies.begin("minilm", "int4").ahead == 0


async def test_background_work_is_not_timed() -> None:
    backend, latencies = timed_encoder(FakeEncoderBackend("minilm:int4", ()))
    await backend.infer(replace(REQUEST, background=True))
    generator, of_generator = timed_generator(FakeGeneratorBackend())
    assert [piece async for piece in generator.stream(replace(GENERATION, background=True))]
    assert latencies.figures("minilm", "int4") is None
    assert of_generator.figures("minilm", "int4") is None
