"""A local generator over fakes, requests to it, and what it said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.metrics import GeneratorMetrics, Labels, ReplicaMetrics
from serving.replica.generator.local_generator import LocalGenerator
from serving.seams import (
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    Sampling,
    ScoreRequest,
)
from tests.unit.fakes.backends import describe_generator
from tests.unit.fakes.generator import FakeGenerationTask, FakeGenerator

SAMPLING = Sampling(0.0, 1.0, 0, 7, 0.0, 0.0, None)
WITH_LOGPROBS = Sampling(0.0, 1.0, 0, 7, 0.0, 0.0, 1)
MAX_SEQUENCES = 6


@dataclass
class Replica:
    """A local generator over fakes."""

    task: FakeGenerationTask
    engine: FakeGenerator
    metrics: ReplicaMetrics
    backend: LocalGenerator

    def value(self, name: str) -> float | None:
        labels = {"model": "smollm2", "variant": "int4", "replica": "r1"}
        return self.metrics.registry.get_sample_value(f"quantserve_{name}", labels)


def replica(
    *answers: str | bytes | Exception,
    max_tokens: int = 1_000,
    task: FakeGenerationTask | None = None,
) -> Replica:
    task, engine = task or FakeGenerationTask(), FakeGenerator(*answers, max_tokens=max_tokens)
    metrics = ReplicaMetrics(Labels("smollm2", "int4", "generation"), "r1")
    backend = LocalGenerator(
        "smollm2",
        task,
        engine,
        MAX_SEQUENCES,
        GeneratorMetrics(metrics, engine.load),
        describe_generator,
    )
    return Replica(task, engine, metrics, backend)


def request(*prompts: str | tuple[int, ...], **changes: Any) -> GenerationRequest:
    given: dict[str, Any] = {
        "prompts": prompts,
        "messages": (),
        "n": 1,
        "max_tokens": 100,
        "sampling": SAMPLING,
        "stop": (),
        "echo": False,
        "stream": True,
        "first_token_timeout_s": 30,
        "timeout_s": 60,
        **changes,
    }
    return GenerationRequest(**given)


async def run(
    backend: LocalGenerator, asked: GenerationRequest
) -> tuple[list[GenerationChunk], GenerationSummary]:
    """Everything that is sent; the summary is the last."""
    sent = [item async for item in backend.stream(asked)]
    summary = sent.pop()
    assert isinstance(summary, GenerationSummary)
    return [as_chunk(item) for item in sent], summary


def as_chunk(item: GenerationChunk | GenerationSummary) -> GenerationChunk:
    assert isinstance(item, GenerationChunk)
    return item


async def texts(backend: LocalGenerator, asked: GenerationRequest) -> list[str]:
    """The whole text of each choice."""
    chunks, _ = await run(backend, asked)
    said = dict.fromkeys(sorted({chunk.choice for chunk in chunks}), "")
    for chunk in chunks:
        said[chunk.choice] += chunk.text
    assert list(said) == list(range(len(said)))
    return list(said.values())


def score(
    prompt: tuple[int, ...] | str, continuation: tuple[int, ...] | str, **changes: Any
) -> ScoreRequest:
    given: dict[str, Any] = {"timeout_s": 30, **changes}
    return ScoreRequest(prompt, continuation, **given)
