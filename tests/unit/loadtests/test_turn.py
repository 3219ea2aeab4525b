"""Turns against a real server: what is sent, when, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from loadtests.bodies import make_body
from loadtests.client import Client, clock
from loadtests.turn import Moment, Turn, TurnRecord
from tests.unit.loadtests.plans import make_plan

NUM = 20
TIMES = np.arange(NUM) / 100


async def run(
    server: Any, *, users: int | None = None, operation: str = "embeddings", **fields: Any
) -> TurnRecord:
    """A turn of 20 requests in 0.2 s, none of them warm-up."""
    moments: list[Moment] = []
    scenario = fields.pop("scenario", {})
    observe = fields.pop("observe", moments.append)
    fields = {"warmup_s": 0.0, "duration_s": 0.2, **fields}
    plan = make_plan(server.url, operation=operation, scenario=scenario, **fields)
    bodies = [make_body(plan.scenarios[0], "m:fp32", f"text {index}") for index in range(NUM)]
    is_generation = operation == "completions"
    client = Client(
        f"{server.url}/v1/{operation}",
        {"Content-Type": "application/json"},
        plan.timeout_s,
        is_streamed=is_generation and scenario.get("body", {}).get("stream", True),
        is_generation=is_generation,
    )
    async with client:
        turn = Turn(client, plan, bodies, plan.duration_s, observe)
        return await (turn.run_open(TIMES) if users is None else turn.run_closed(users))


def outcomes(record: TurnRecord) -> list[str]:
    return [exchange.outcome for exchange in record.exchanges]


async def test_every_request_goes_out_with_its_own_input(server) -> None:
    record = await run(server)
    assert outcomes(record) == ["ok"] * NUM
    assert sorted(body["input"] for body in server.arrived) == sorted(
        f"text {index}" for index in range(NUM)
    )
    assert all(exchange.planned <= exchange.sent < exchange.ended for exchange in record.exchanges)
    assert [exchange.planned - record.started for exchange in record.exchanges] == pytest.approx(
        TIMES.tolist()
    )


async def test_a_server_that_does_not_answer_slows_no_send(server) -> None:
    """It answers nothing until the last request is there: a loop that waits would wait for ever."""
    server.release.clear()

    taken = server.take

    async def take(request: Any) -> str:
        if len(server.arrived) == NUM - 1:
            server.release.set()
        return str(await taken(request))

    server.take = take
    record = await run(server)
    assert outcomes(record) == ["ok"] * NUM
    assert [exchange.in_flight for exchange in record.exchanges] == list(range(1, NUM + 1))
    last_sent = max(exchange.sent for exchange in record.exchanges)
    assert all(exchange.ended > last_sent for exchange in record.exchanges)


async def test_a_closed_loop_waits_for_answers(server) -> None:
    server.release.clear()
    record = await run(server, users=3, grace_s=0)
    assert outcomes(record) == ["cut_off"] * 3
    server.release.set()
    record = await run(server, users=3, duration_s=0.5)
    assert len(record.exchanges) > 3
    assert set(outcomes(record)) == {"ok"}
    assert max(exchange.in_flight for exchange in record.exchanges) == 3


async def test_what_is_beyond_the_limit_is_not_sent(server) -> None:
    server.release.clear()
    record = await run(server, max_in_flight=5, grace_s=0)
    assert outcomes(record) == ["cut_off"] * 5 + ["not_sent"] * (NUM - 5)
    assert len(server.arrived) == 5
    assert all(math.isnan(exchange.sent) for exchange in record.exchanges[5:])


async def test_errors_have_a_kind(server) -> None:
    server.status = 503
    assert set(outcomes(await run(server))) == {"http_503"}
    server.release.clear()
    assert set(outcomes(await run(server, timeout_s=0.05))) == {"timeout"}
    server.url = "http://127.0.0.1:1"
    assert set(outcomes(await run(server))) == {"connection"}


async def test_a_turn_stops_when_all_fails(server) -> None:
    server.status = 500
    record = await run(server, duration_s=60, grace_s=0)
    assert record.stopped == "100% of the last 20 requests failed (at most 50%)"
    assert record.duration_s < 60


async def test_an_error_of_the_watch_ends_the_turn(server) -> None:
    def fail(moment: Moment) -> None:
        raise ValueError("the display broke")

    with pytest.raises(ValueError, match="the display broke"):
        await run(server, observe=fail, duration_s=3_600, grace_s=0)


async def test_a_stream_is_timed_and_read(server) -> None:
    record = await run(server, operation="completions")
    assert outcomes(record) == ["ok"] * NUM
    for exchange in record.exchanges:
        assert exchange.sent < exchange.first <= exchange.last <= exchange.ended
        assert (exchange.answer, exchange.output_tokens) == (b"one two three", 3)


async def test_an_answer_in_one_piece_is_read(server) -> None:
    record = await run(server, operation="completions", scenario={"body": {"stream": False}})
    assert {(e.answer, e.output_tokens) for e in record.exchanges} == {(b"one two three", 3)}


async def test_a_stream_that_breaks_is_an_error(server) -> None:
    server.broken_streams = True
    assert set(outcomes(await run(server, operation="completions"))) == {"stream_error"}


THINKING = [
    {"reasoning_content": "hm"},
    {"reasoning": "hm"},
    {"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    {"function_call": {"arguments": "{}"}},
]


@pytest.mark.parametrize("delta", THINKING)
async def test_reasoning_and_tool_calls_are_tokens(server, delta) -> None:
    deltas = [{"role": "assistant", "content": ""}, delta, delta, {"content": "x"}]
    events = [json.dumps({"choices": [{"delta": one}]}) for one in deltas]
    server.stream = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()
    record = await run(server, operation="completions")
    assert {(e.answer, e.output_tokens) for e in record.exchanges} == {(b"x", 3)}
    assert not any(math.isnan(exchange.first) for exchange in record.exchanges)


async def test_time_to_first_token_ends_with_the_reasoning(server) -> None:
    """The text comes a while after it."""
    said_text: list[float] = []

    async def completions(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event_of({"reasoning_content": "hm"}))
        await asyncio.sleep(0.3)
        said_text.append(clock())
        await response.write(event_of({"content": "x"}))
        await response.write(b"data: [DONE]\n\n")
        return response

    server.completions_with = completions
    record = await run(server, operation="completions")
    assert outcomes(record) == ["ok"] * NUM
    first = sorted(exchange.first for exchange in record.exchanges)
    assert all(one < text for one, text in zip(first, sorted(said_text), strict=True))


def event_of(delta: dict[str, str]) -> bytes:
    """A piece of a chat as a server sends it."""
    return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()


async def test_a_stream_without_its_last_event_has_a_kind_of_its_own(server) -> None:
    server.stream = b'data: {"choices": [{"text": "a", "finish_reason": "stop"}]}\n\n'
    record = await run(server, operation="completions")
    assert outcomes(record) == ["no_done"] * NUM


async def test_a_request_that_was_cut_off_knows_how_long_it_waited(server) -> None:
    server.release.clear()
    record = await run(server, users=1, grace_s=0.2, duration_s=0.3)
    [exchange] = record.exchanges
    assert exchange.outcome == "cut_off"
    assert exchange.ended - exchange.planned >= 0.45


@pytest.mark.parametrize(
    ("answer", "text", "tokens"),
    [
        ({"choices": [{"text": "x"}]}, b"x", math.nan),
        ({"choices": [{"message": {"content": "x"}}], "usage": None}, b"x", math.nan),
        ({"choices": [{"text": "x"}], "usage": {"completion_tokens": None}}, b"x", math.nan),
        ({"choices": [{"message": {"content": None}}], "usage": {"completion_tokens": 2}}, None, 2),
        ({"choices": []}, None, math.nan),
    ],
)
async def test_other_servers_answers_say_what_they_say(server, answer, text, tokens) -> None:
    server.answer = answer
    record = await run(server, operation="completions", scenario={"body": {"stream": False}})
    assert outcomes(record) == ["ok"] * NUM
    for exchange in record.exchanges:
        assert exchange.answer == text
        assert exchange.output_tokens == pytest.approx(tokens, nan_ok=True)


@pytest.mark.parametrize("operation", ["embeddings", "completions"])
async def test_an_error_with_status_200_is_an_error(server, operation) -> None:
    server.answer = {"error": {"message": "gone"}}
    record = await run(server, operation=operation, scenario={"body": {"stream": False}})
    assert set(outcomes(record)) == {"error_answer"}
    assert {exchange.answer for exchange in record.exchanges} == {None}


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices": ["x"]}',
        b'{"choices": 5}',
        b'{"choices": [{"delta": "x"}]}',
        b'{"choices": [{"text": 5}]}',
        b'["x"]',
        b"nonsense",
        b'{"error": {"message": "gone"}}',
    ],
)
async def test_an_event_of_another_form_is_an_error(server, event) -> None:
    server.stream = b"data: " + event + b"\n\ndata: [DONE]\n\n"
    record = await run(server, operation="completions")
    assert outcomes(record) == ["stream_error"] * NUM
    assert not any(math.isnan(exchange.ended) for exchange in record.exchanges)


@pytest.mark.parametrize(
    ("stream", "text", "tokens"),
    [
        (b'data: {"choices": [{"text": "a"}], "usage": null}', b"a", 1),
        (b'data: {"choices": [{"text": "a"}], "usage": {"completion_tokens": null}}', b"a", 1),
        (b'data: {"choices": [{"text": ""}], "usage": {"completion_tokens": 1}}', b"", 1),
        (b'data: {"choices": [], "error": null}', None, 0),
    ],
)
async def test_a_stream_may_end_without_a_line_feed(server, stream, text, tokens) -> None:
    server.stream = stream + b"\n\ndata: [DONE]"
    record = await run(server, operation="completions")
    assert outcomes(record) == ["ok"] * NUM
    assert {(e.answer, e.output_tokens) for e in record.exchanges} == {(text, tokens)}
