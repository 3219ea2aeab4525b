"""Calls of tools in what an engine generates: whole, streamed, cut, and with stop strings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.errors import InvalidField
from serving.seams import GenerationChunk, GenerationRequest, Message, Tool, ToolCallDelta, ToolUse
from tests.unit.replica.generator.generating import WITH_LOGPROBS, replica, request, run

PARAMETERS = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
TOOL = Tool("f", {"type": "function", "function": {"name": "f"}}, PARAMETERS)
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def chat(**changes: Any) -> GenerationRequest:
    given = {"messages": (Message("user", "x"),), "tool_use": ToolUse((TOOL,)), **changes}
    return request(**given)


def joined(chunks: list[GenerationChunk]) -> tuple[str, str, str | None]:
    """Text, arguments of the calls one after the other, and the end."""
    text = "".join(chunk.text for chunk in chunks)
    arguments = "".join(call.arguments for chunk in chunks for call in chunk.tool_calls)
    return text, arguments, chunks[-1].finish


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call(stream: bool) -> None:
    site = replica("So:\n" + CALL)
    chunks, summary = await run(site.backend, chat(stream=stream))
    assert joined(chunks) == ("So:", '{"a": 1}', "tool_calls")
    assert summary.output_tokens == len("So:\n" + CALL) + 1
    [first, *others] = [call for chunk in chunks for call in chunk.tool_calls]
    assert (first.index, first.name) == (0, "f")
    assert all(isinstance(call, ToolCallDelta) and call.id is None for call in others)
    assert len(others) > 3 or not stream
    assert bytes(site.engine.requests[0].prompt).startswith(b"[f]")


async def test_text_alone() -> None:
    chunks, _ = await run(replica("Hello").backend, chat())
    assert joined(chunks) == ("Hello", "", "stop")


async def test_an_answer_that_is_cut() -> None:
    chunks, _ = await run(replica(CALL).backend, chat(max_tokens=CALL.index("1}")))
    assert joined(chunks) == ("", '{"a": ', "length")


async def test_nothing_is_looked_for_without_tools() -> None:
    chunks, _ = await run(replica(CALL).backend, chat(tool_use=None))
    assert joined(chunks) == (CALL, "", "stop")


async def test_one_call_ends_the_answer() -> None:
    site = replica(CALL + CALL)
    chunks, summary = await run(site.backend, chat(tool_use=ToolUse((TOOL,), is_parallel=False)))
    assert joined(chunks) == ("", '{"a": 1}', "tool_calls")
    assert summary.output_tokens < len(CALL)
    await site.engine.idle.wait()


async def test_a_stop_string() -> None:
    chunks, _ = await run(replica(CALL).backend, chat(stop=("</tool",)))
    assert joined(chunks) == ("", '{"a": 1}', "tool_calls")
    chunks, _ = await run(replica("abc" + CALL).backend, chat(stop=("bc",)))
    assert joined(chunks) == ("a", "", "stop")


async def test_log_probabilities_are_of_all_tokens() -> None:
    chunks, _ = await run(replica("So: " + CALL).backend, chat(sampling=WITH_LOGPROBS))
    said = "".join(one.text for chunk in chunks for one in chunk.logprobs)
    assert said == "So: " + CALL


async def test_a_call_that_is_required_has_a_grammar() -> None:
    site = replica(CALL)
    await run(site.backend, chat(tool_use=ToolUse((TOOL,), must_call=True)))
    grammar = site.engine.requests[0].sampling.grammar
    assert grammar is not None
    assert np.flatnonzero(grammar.begin().allowed(256)).tolist() == [ord("<")]


async def test_a_tool_whose_arguments_cannot_be_held_to_their_schema() -> None:
    site = replica()
    tool = Tool("f", {}, {"type": "object", "properties": {"a": {"not": {}}}})
    with pytest.raises(InvalidField, match=r"tools: .*not") as caught:
        await run(site.backend, chat(tool_use=ToolUse((tool,), must_call=True)))
    assert caught.value.param == "tools"
    assert site.engine.requests == []
