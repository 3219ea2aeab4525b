"""Tools in requests and answers: what is asked, what is refused, and OpenAI's form of calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.config import ServerConfig
from serving.routes.generation.bodies import ChatBody
from serving.routes.generation.tools import MAX_TOOLS
from serving.routes.generation.writers import ChatWriter
from serving.routes.json_nesting import MAX_NESTING
from serving.seams import GenerationChunk, Message, ToolCall, ToolCallDelta
from tests.unit.generation_fakes import START
from tests.unit.routes.generation.conftest import CHAT

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
USER = {"role": "user", "content": "x"}


def function(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def called(arguments: Any = "{}", **fields: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "type": "function",
        "function": {"name": "f", "arguments": arguments},
        **fields,
    }


def asked(*messages: Any, **fields: Any) -> Any:
    body = {"messages": list(messages) or [USER], **fields}
    return ChatBody.model_validate(body).to_request(ServerConfig())


class TestAsked:
    def test_a_tool(self) -> None:
        tools = [function(description="d", parameters=PARAMETERS, strict=True), function("g")]
        use = asked(tools=tools).tool_use
        first, second = use.tools
        assert (first.name, first.parameters, first.is_strict) == ("f", PARAMETERS, True)
        assert first.definition == function(description="d", parameters=PARAMETERS)
        assert second.definition == function("g", parameters={"type": "object"})
        assert (use.must_call, use.only, use.is_parallel) == (False, None, True)

    @pytest.mark.parametrize(
        ("choice", "must_call", "only"),
        [("auto", False, None), ("required", True, None), (function("g"), True, "g")],
    )
    def test_choices(self, choice: Any, must_call: bool, only: str | None) -> None:
        use = asked(tools=[function(), function("g")], tool_choice=choice).tool_use
        assert (use.must_call, use.only) == (must_call, only)
        assert [tool.name for tool in use.callable] == (["g"] if only else ["f", "g"])

    def test_one_call_at_once(self) -> None:
        assert not asked(tools=[function()], parallel_tool_calls=False).tool_use.is_parallel
        assert not asked(tools=[function()], tool_choice=function()).tool_use.is_parallel

    @pytest.mark.parametrize(
        "fields", [{"tools": []}, {"tools": [function()], "tool_choice": "none"}, {"tools": None}]
    )
    def test_none(self, fields: Any) -> None:
        assert asked(**fields).tool_use is None

    def test_calls_and_results_in_the_history(self) -> None:
        answer = {"role": "assistant", "content": None, "tool_calls": [called('{"a": 1}', index=0)]}
        result = {"role": "tool", "content": "21", "tool_call_id": "1"}
        assert asked(USER, answer, result, {**result, "name": "given"}).messages[1:] == (
            Message("assistant", "", (ToolCall("1", "f", {"a": 1}),)),
            Message("tool", "21", tool_call_id="1", tool_name="f"),
            Message("tool", "21", tool_call_id="1", tool_name="given"),
        )

    def test_what_openai_s_client_has_read_out_of_a_call_may_come_back(self) -> None:
        call = called('{"a": 1}')
        call["function"]["parsed_arguments"] = {"a": 1}
        answer = {"role": "assistant", "content": "", "tool_calls": [call]}
        assert asked(USER, answer).messages[1].tool_calls == (ToolCall("1", "f", {"a": 1}),)

    def test_a_call_without_arguments(self) -> None:
        answer = {"role": "assistant", "content": "", "tool_calls": [called("")]}
        assert asked(USER, answer).messages[1].tool_calls == (ToolCall("1", "f", {}),)


FIELD = "tools[0].function.parameters"
BAD_PARAMETERS = {"properties": {"a": {"nullable": True}}}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools", "tools[0].type: "),
        ({"tools": [{"type": "function"}]}, "tools", "tools[0].function: "),
        ({"tools": [function("a b")]}, "tools", "tools[0].function.name: "),
        ({"tools": [function("")]}, "tools", "tools[0].function.name: "),
        ({"tools": [function(parameter={})]}, "tools", "tools[0].function.parameter: unknown"),
        ({"tools": [function(parameters={"type": "string"})]}, "tools", f"{FIELD}: "),
        (
            {"tools": [function(), function()]},
            "tools",
            "tools[1].function.name: 'f' is given twice",
        ),
        ({"tools": [function(str(i)) for i in range(MAX_TOOLS + 1)]}, "tools", "tools: "),
        (
            {"tools": [function(parameters=BAD_PARAMETERS, strict=True)]},
            "tools",
            f"{FIELD}.properties.a: keyword",
        ),
        (
            {"tools": [function(parameters=BAD_PARAMETERS)], "tool_choice": "required"},
            "tools",
            f"{FIELD}.properties.a: keyword",
        ),
        ({"tool_choice": "required"}, "tool_choice", "tool_choice: a call is required; the tools"),
        (
            {"tools": [function()], "tool_choice": function("g")},
            "tool_choice",
            "tool_choice: 'g' is to be called; the tools are: f",
        ),
        ({"tools": [function()], "tool_choice": "any"}, "tool_choice", "tool_choice"),
        ({"tools": [function()], "parallel_tool_calls": "no"}, "parallel_tool_calls", "parallel"),
        ({"tools": [function()], "ignore_eos": True}, "ignore_eos", "ignore_eos: "),
    ],
)
async def test_what_is_refused(
    replica_generator: Any, fields: Any, param: str, message: str
) -> None:
    response = await replica_generator.post(CHAT, **fields)
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(message), error["message"]
    assert replica_generator.fake.requests == []


async def test_schemas_that_no_call_has_to_follow_are_the_model_s_business(
    replica_generator: Any,
) -> None:
    fields = {"tools": [function(parameters=BAD_PARAMETERS)]}
    assert (await replica_generator.post(CHAT, **fields)).status_code == 200


@pytest.mark.parametrize(
    ("turn", "place"),
    [
        ({"role": "user", "content": "x", "tool_calls": [called()]}, "messages[1]: tool_calls"),
        ({"role": "user", "content": "x", "tool_call_id": "1"}, "messages[1]: tool_call_id"),
        ({"role": "tool", "content": "x"}, "messages[1]: tool_call_id"),
        ({"role": "assistant", "tool_calls": [called(None)]}, "messages[1].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [called("1")]}, "messages[1].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [called("{a")]}, "messages[1].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[1].tool_calls[0].function"),
    ],
)
async def test_turns_that_are_refused(replica_generator: Any, turn: Any, place: str) -> None:
    response = await replica_generator.post(CHAT, messages=[USER, turn])
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert error["param"] == "messages"
    assert error["message"].startswith(place), error["message"]


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 700, 100_000])
async def test_arguments_that_are_too_deep(replica_generator: Any, levels: int) -> None:
    def turn(levels: int) -> Any:
        inner = "[" * (levels - 1) + "]" * (levels - 1)
        return {"role": "assistant", "tool_calls": [called(f'{{"a": {inner}}}')]}

    response = await replica_generator.post(CHAT, messages=[USER, turn(MAX_NESTING)])
    assert response.status_code == 200
    response = await replica_generator.post(CHAT, messages=[USER, turn(levels)])
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == "messages"
    assert error["message"] == (
        "messages[1].tool_calls[0].function.arguments: nested more than 200 deep"
    )


def chunk(text: str = "", *calls: ToolCallDelta, finish: Any = None) -> GenerationChunk:
    return GenerationChunk(0, text, (), finish, START, tool_calls=calls)


class TestWritten:
    def test_whole(self) -> None:
        pieces = [
            ToolCallDelta(0, "c1", "f", ""),
            ToolCallDelta(0, None, None, '{"a": '),
            ToolCallDelta(0, None, None, "1}"),
            ToolCallDelta(1, "c2", "g", "{}"),
        ]
        choice = ChatWriter(False).choice(chunk("", *pieces, finish="tool_calls"))
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"] == {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a": 1}'},
                },
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        }

    def test_text_beside_a_call(self) -> None:
        message = ChatWriter(False).choice(chunk("So:", ToolCallDelta(0, "c", "f", "{}")))[
            "message"
        ]
        assert (message["content"], len(message["tool_calls"])) == ("So:", 1)

    def test_no_call_at_all(self) -> None:
        message = ChatWriter(False).choice(chunk("", finish="stop"))["message"]
        assert message == {"role": "assistant", "content": "", "refusal": None}

    def test_streamed(self) -> None:
        writer = ChatWriter(False)
        deltas = [
            writer.delta(piece)["delta"]
            for piece in (
                chunk("", ToolCallDelta(0, "c", "f", "")),
                chunk("", ToolCallDelta(0, None, None, "{}")),
                chunk("", finish="tool_calls"),
            )
        ]
        assert json.loads(json.dumps(deltas)) == [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c",
                        "type": "function",
                        "function": {"name": "f", "arguments": ""},
                    }
                ],
            },
            {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
            {},
        ]
