"""Schemas and tools on a real engine: a random model with a real tokenizer and a template."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from serving.metrics import GeneratorMetrics, Labels, ReplicaMetrics
from serving.replica.generator.local_generator import LocalGenerator
from serving.runtimes import RUNTIMES
from serving.seams import (
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    Message,
    Sampling,
    ToolCallDelta,
    ToolUse,
)
from serving.tasks.generation import Generation
from tests.unit.fakes.backends import describe_generator
from tests.unit.replica.generator.generating import request, run
from tests.unit.runtimes.tiny_generators import open_request, prepare_request, save_generator
from tests.unit.tasks.test_tools import SCHEMAS, TOOLS, task_of
from tests.unit.tasks.tool_templates import WITH_TOOLS

MAX_TOKENS = 500
DRAWN = Sampling(1.0, 0.95, 0, 7, 0.2, 0.1, 2, repetition_penalty=1.1)
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def task() -> Generation:
    return replace(task_of(WITH_TOOLS["hermes"]), max_tokens=MAX_TOKENS)


@pytest.fixture(scope="module")
def prepared(task: Generation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("prepared")
    checkpoint = save_generator(
        tmp_path_factory.mktemp("llama"),
        vocab_size=task.tokenizer.get_vocab_size() + 8,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
    )
    RUNTIMES["torch"].prepare(prepare_request("fp32", checkpoint, folder))
    return folder


@pytest.fixture
def backend(task: Any, prepared: Path) -> Iterator[LocalGenerator]:
    open_generator = RUNTIMES["torch"].open_generator
    assert open_generator is not None
    engine = open_generator(open_request("fp32", prepared, slot_tokens=MAX_TOKENS))
    labels = Labels("tiny", "fp32", "generation")
    metrics = GeneratorMetrics(ReplicaMetrics(labels, "r1"), engine.load)
    yield LocalGenerator("tiny", task, engine, 8, metrics, describe_generator)
    engine.close()


def chat(**changes: Any) -> GenerationRequest:
    messages = (Message("user", "Is it warm?"),)
    return request(**{"messages": messages, "sampling": DRAWN, "max_tokens": 180, **changes})


Answer = tuple[str, list[tuple[str, str]], str | None]


def answers(chunks: list[GenerationChunk], num_choices: int) -> list[Answer]:
    """Text, calls and end of each choice."""
    found: list[Answer] = []
    for choice in range(num_choices):
        own = [chunk for chunk in chunks if chunk.choice == choice]
        calls: list[tuple[str, str]] = []
        for piece in (piece for chunk in own for piece in chunk.tool_calls):
            assert isinstance(piece, ToolCallDelta)
            if piece.name is not None:
                calls.append((piece.name, ""))
            calls[-1] = (calls[-1][0], calls[-1][1] + piece.arguments)
        found.append(("".join(chunk.text for chunk in own), calls, own[-1].finish))
    return found


async def test_a_schema_with_everything_else(backend: LocalGenerator) -> None:
    """Several choices, drawn with penalties and log-probabilities, streamed and not."""
    asked = chat(answer_schema=SCHEMA, n=3)
    chunks, summary = await run(backend, asked)
    whole, _ = await run(backend, replace(asked, stream=False))
    assert isinstance(summary, GenerationSummary)
    found = answers(chunks, 3)
    assert found == answers(whole, 3)
    assert len(set(map(str, found))) > 1
    for text, calls, finish in found:
        assert (calls, finish) == ([], "stop")
        jsonschema.validate(json.loads(text), SCHEMA)
    for choice in range(3):
        written = [one for c in chunks if c.choice == choice for one in c.logprobs]
        assert "".join(one.text for one in written) == found[choice][0]
        # The model's own: of 49,000 tokens, none is probable to a random model.
        assert all(one.logprob is not None and one.logprob < -1 for one in written)


async def test_calls_in_company_of_free_answers(backend: LocalGenerator) -> None:
    held = chat(tool_use=ToolUse(TOOLS, must_call=True), n=2, max_tokens=250)
    free = chat(max_tokens=40)
    (chunks, _), (others, _) = await asyncio.gather(run(backend, held), run(backend, free))
    assert others[-1].finish in ("length", "stop")
    for text, calls, finish in answers(chunks, 2):
        assert text == ""
        if finish == "length":  # the last call may be half there
            calls.pop()
        else:
            assert finish == "tool_calls"
            assert calls
        for name, arguments in calls:
            jsonschema.validate(json.loads(arguments), SCHEMAS[name])


async def test_the_call_of_a_named_function(backend: LocalGenerator) -> None:
    use = ToolUse(TOOLS, must_call=True, only="clock", is_parallel=False)
    chunks, _ = await run(backend, chat(tool_use=use))
    assert answers(chunks, 1) == [("", [("clock", answers(chunks, 1)[0][1][0][1])], "tool_calls")]
    assert json.loads(answers(chunks, 1)[0][1][0][1]) == {}


async def test_a_seed_gives_the_same_form_again(backend: LocalGenerator) -> None:
    asked = chat(answer_schema=SCHEMA)
    first, second = [answers((await run(backend, asked))[0], 1) for _ in range(2)]
    assert first == second
