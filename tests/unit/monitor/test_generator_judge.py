"""Generators: the reference scores what a variant wrote."""

from collections.abc import AsyncGenerator

import pytest

from serving.monitor.background import Background
from serving.monitor.evidence import ProbeStep
from serving.monitor.generator_judge import PROBE_TOKENS, REFERENCE_PROBES, GeneratorJudge
from serving.monitor.judge import NotComparable
from serving.quality.dataset import Passage
from serving.seams import (
    GeneratedSample,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTimings,
    ScoreRequest,
    TokenLogprob,
    Trace,
)
from tests.unit.fakes.backends import FakeBackends, FakeGeneratorBackend, served_model

PROBES = tuple(f"prompt {number}" for number in range(20))
TIMINGS = GenerationTimings(queue=1.0, tokenize=0.5, prefill=0.25, decode=0.25, total=2.0)


def token(first: int) -> TokenLogprob:
    """Token 1, with another or the same one as the most probable."""
    return TokenLogprob(1, -0.5, ((first, -0.5), (first + 1, -2.0)))


class FakeWriter(FakeGeneratorBackend):
    """Writes token 1 each time; scores of the reference put token 1 or ``first`` first."""

    def __init__(self, first: int = 1) -> None:
        super().__init__()
        self.first = first
        self.asked: list[GenerationRequest] = []

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        self.asked.append(request)
        assert request.max_tokens is not None
        trace = Trace((7, 8), (token(1),) * request.max_tokens)
        yield GenerationSummary(2, 0, request.max_tokens, TIMINGS, (trace,))

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        self.scored.append(request)
        return tuple(token(self.first) for _ in request.continuation)


class Writers(FakeBackends):
    def __init__(self, first: int = 1) -> None:
        super().__init__([served_model("model", "generation", ["fp32", "int4"], "fp32", "fp32")])
        self.all = {"fp32": FakeWriter(first), "int4": FakeWriter()}

    def generator(self, model: str, variant: str) -> FakeWriter:
        return self.all[variant]


def judge(writers: Writers) -> GeneratorJudge:
    return GeneratorJudge(Background(writers), "model", "fp32", PROBES)


async def probe(subject: GeneratorJudge, variant: str) -> list[ProbeStep]:
    """Have a variant answer all of its turns."""
    return [await subject.probe(variant, n) for n in range(subject.num_steps(variant))]


@pytest.mark.parametrize(("first", "agreement"), [(1, 1.0), (5, 0.0)])
async def test_probes_are_continued_and_scored_by_the_reference(
    first: int, agreement: float
) -> None:
    writers = Writers(first)
    steps = await probe(judge(writers), "int4")
    assert [one.agreement for step in steps for one in step.comparisons] == [agreement] * 20
    # total without the queue
    assert [(step.answered, step.seconds) for step in steps] == [(1, 1.0)] * len(PROBES)
    asked = writers.all["int4"].asked
    assert [request.prompts for request in asked] == [(probe,) for probe in PROBES]
    assert all(r.background and r.trace == 0 and r.sampling.temperature == 0 for r in asked)
    scored = writers.all["fp32"].scored
    assert [(r.prompt, r.continuation) for r in scored] == [((7, 8), (1,) * PROBE_TOKENS)] * 20
    assert all(request.background for request in scored)


async def test_the_reference_is_asked_for_its_time_only() -> None:
    writers = Writers()
    steps = await probe(judge(writers), "fp32")
    assert [(step.comparisons, step.seconds) for step in steps] == [((), 1.0)] * REFERENCE_PROBES
    assert writers.all["fp32"].scored == []


async def test_a_sample_is_scored_as_it_was_written() -> None:
    writers = Writers(first=5)
    sample = GeneratedSample("model", "int4", Trace((1, 2, 3), (token(1), token(5))), "a prompt")
    comparison = await judge(writers).compare(sample)
    assert comparison.agreement == 0.5
    assert writers.all["fp32"].scored[0].prompt == (1, 2, 3)


async def test_an_empty_answer_is_not_comparable() -> None:
    sample = GeneratedSample("model", "int4", Trace((1,), ()), "a prompt")
    with pytest.raises(NotComparable):
        await judge(Writers()).compare(sample)


async def test_passages_are_summed() -> None:
    writers = Writers()
    (score,) = await judge(writers).score("int4", [Passage(prompt="so", continuation="abc")])
    assert (score.value, score.count) == (pytest.approx(-1.5), 3)
    assert writers.all["int4"].scored[0].prompt == "so"
