"""Scores of a real, tiny model, against transformers' own softmax over the same tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.metrics import GeneratorMetrics, Labels, ReplicaMetrics
from serving.replica.generator.local_generator import LocalGenerator
from serving.runtimes import RUNTIMES
from serving.seams import (
    NUM_TRACED,
    GenerationRequest,
    GenerationSummary,
    Sampling,
    ScoreRequest,
    TokenLogprob,
    Trace,
)
from tests.unit.fakes.backends import describe_generator
from tests.unit.fakes.generator import FakeGenerationTask, FakeTextStream
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    logits_of,
    open_request,
    prepare_request,
    random_model,
    random_tokens,
    save_generator,
)

MAX_TOKENS = 128

TOLERANCE = 1e-4
"""In nats, of logits with a deviation of 1.8 whose float32 sums have another order; see
``test_causal_lm.py``. The log-softmax itself adds nothing: it is computed in float64."""


class Task(FakeGenerationTask):
    """Whose texts say nothing: the model has more tokens than there are bytes."""

    stop_tokens = frozenset()

    def open_text(self, prompt: object, with_calls: bool = False) -> FakeTextStream:
        return Silence()


class Silence(FakeTextStream):
    def push(self, token: int) -> str:
        return ""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = save_generator(tmp_path_factory.mktemp("llama"), **MODELS["llama"])
    folder = tmp_path_factory.mktemp("prepared")
    RUNTIMES["torch"].prepare(prepare_request("fp32", checkpoint, folder))
    return folder


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(**MODELS["llama"])


@pytest.fixture
def backend(prepared: Path) -> Iterator[LocalGenerator]:
    open_generator = RUNTIMES["torch"].open_generator
    assert open_generator is not None
    engine = open_generator(open_request("fp32", prepared, num_slots=3, slot_tokens=MAX_TOKENS))
    metrics = GeneratorMetrics(
        ReplicaMetrics(Labels("tiny", "fp32", "generation"), "r1"), engine.load
    )
    yield LocalGenerator("tiny", Task(), engine, 8, metrics, describe_generator)
    engine.close()


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    scores = logits.astype(np.float64)
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def assert_scores_of_transformers(
    model: Any, found: tuple[TokenLogprob, ...], text: list[int], first: int
) -> None:
    """``found`` are the scores of ``text`` from position ``first`` on."""
    expected = log_softmax(logits_of(model, text))[first - 1 : -1]
    assert [scored.token for scored in found] == text[first:]
    for scored, row in zip(found, expected, strict=True):
        assert scored.logprob == pytest.approx(row[scored.token], abs=TOLERANCE)
        assert len({token for token, _ in scored.top}) == NUM_TRACED
        np.testing.assert_allclose(
            [logprob for _, logprob in scored.top],
            np.sort(row)[: -NUM_TRACED - 1 : -1],
            atol=TOLERANCE,
        )
        for token, logprob in scored.top:
            assert logprob == pytest.approx(row[token], abs=TOLERANCE)


async def test_scores_are_those_of_transformers(backend: LocalGenerator, model: Any) -> None:
    for num_prompt, num_scored in ((0, 9), (1, 1), (5, 40), (60, 30), (1, 127), (127, 1)):
        text = random_tokens(num_prompt + num_scored, seed=num_scored)
        asked = ScoreRequest(tuple(text[:num_prompt]), tuple(text[num_prompt:]), 60)
        # A second time, what stands before the scored tokens comes out of the cache.
        for _ in range(2):
            found = await backend.score(asked)
            assert_scores_of_transformers(model, found, text, max(num_prompt, 1))


async def test_scores_in_company_are_those_alone(backend: LocalGenerator, model: Any) -> None:
    texts = [random_tokens(length, seed=length) for length in (20, 50, 90, 100, 128)]
    found = await asyncio.gather(
        *(backend.score(ScoreRequest(tuple(text[:10]), tuple(text[10:]), 60)) for text in texts)
    )
    for scored, text in zip(found, texts, strict=True):
        assert_scores_of_transformers(model, scored, text, 10)


async def trace_of(backend: LocalGenerator, seed: int) -> Trace:
    sampling = Sampling(1.5, 1, 0, seed, 0, 0, None)
    asked = GenerationRequest(("a prompt",), (), 1, 60, sampling, (), False, False, 60, 60, trace=0)
    *_, summary = [item async for item in backend.stream(asked)]
    assert isinstance(summary, GenerationSummary)
    [trace] = summary.traces
    return trace


async def test_the_score_of_a_trace_is_the_trace(backend: LocalGenerator) -> None:
    trace = await trace_of(backend, seed=1)
    assert trace.prompt == tuple(b"a prompt")
    tokens = tuple(token.token for token in trace.tokens)
    assert len(tokens) == 60
    assert len(set(tokens)) > 30
    scored = await backend.score(ScoreRequest(trace.prompt, tokens, 60))
    for one, other in zip(trace.tokens, scored, strict=True):
        assert one.token == other.token
        assert one.logprob == pytest.approx(other.logprob, abs=TOLERANCE)
        np.testing.assert_allclose(
            [logprob for _, logprob in one.top],
            [logprob for _, logprob in other.top],
            atol=TOLERANCE,
        )
