"""The official client, over a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
import uvicorn

from serving.errors import DeadlineExceeded, InvalidField
from tests.unit.generation_fakes import pieces_of
from tests.unit.routes.generation.conftest import GeneratorSite

NAME = "smollm2:int4"
MAX_WAIT_S = 10
CHAT_ASKED = "user: a cat"
MESSAGES = [{"role": "user", "content": "a cat"}]


@asynccontextmanager
async def served(generator: GeneratorSite) -> AsyncIterator[openai.AsyncOpenAI]:
    """Serve a mount as Ray Serve does, and connect a client that never retries."""

    async def mounted(scope, receive, send) -> None:
        await generator.site.edge({**scope, "root_path": generator.root_path}, receive, send)

    server = uvicorn.Server(uvicorn.Config(mounted, lifespan="off", log_level="error"))
    listening = socket.create_server(("127.0.0.1", 0))
    base_url = f"http://127.0.0.1:{listening.getsockname()[1]}{generator.root_path}/v1"
    serving = asyncio.create_task(server.serve([listening]))
    try:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def client(generator) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of either mount."""
    async with served(generator) as connected:
        yield connected


async def test_completions(client) -> None:
    answer = await client.completions.create(model=NAME, prompt=["a", "b"], n=2, logprobs=1)
    assert [choice.text for choice in answer.choices] == [
        "".join(pieces_of(NAME, asked, number)) for asked in "ab" for number in range(2)
    ]
    assert answer.choices[0].logprobs.text_offset == [0, 12, 18, 22]
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert answer.quantserve["prefill_ms"] == 4


async def test_chat(client) -> None:
    answer = await client.chat.completions.create(
        model=NAME, messages=MESSAGES, logprobs=True, top_logprobs=2
    )
    [choice] = answer.choices
    assert choice.message.content == "".join(pieces_of(NAME, CHAT_ASKED, 0))
    assert [len(token.top_logprobs) for token in choice.logprobs.content] == [2] * 4
    again = [*MESSAGES, choice.message.model_dump(), {"role": "user", "content": "more"}]
    assert (await client.chat.completions.create(model=NAME, messages=again)).choices


async def test_completions_as_a_stream(client) -> None:
    stream = await client.completions.create(
        model=NAME, prompt="a cat", stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]
    assert [chunk.choices[0].text for chunk in chunks] == pieces_of(NAME, "a cat", 0)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert (last.choices, last.usage.completion_tokens) == ([], 4)
    assert last.quantserve["time_to_first_token_ms"] == 7


async def test_chat_as_a_stream(client) -> None:
    stream = await client.chat.completions.create(model=NAME, messages=MESSAGES, stream=True)
    chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.content for chunk in chunks] == pieces_of(NAME, CHAT_ASKED, 0)
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", None, None, None]


async def test_the_accumulating_stream(generator, client) -> None:
    generator.fake.finish = "stop"
    async with client.chat.completions.stream(model=NAME, messages=MESSAGES, n=2) as stream:
        final = await stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [
        "".join(pieces_of(NAME, CHAT_ASKED, number)) for number in range(2)
    ]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_piece(generator, client, stream: bool) -> None:
    generator.fake.failure = InvalidField("too long", param="messages")
    with pytest.raises(openai.UnprocessableEntityError, match="too long") as caught:
        await client.chat.completions.create(model=NAME, messages=MESSAGES, stream=stream)
    assert (caught.value.code, caught.value.param) == ("invalid_field", "messages")


async def test_an_error_after_it(generator, client) -> None:
    generator.fake.failure, generator.fake.fail_at = DeadlineExceeded("not finished"), 2
    stream = await client.completions.create(model=NAME, prompt="x", stream=True)
    got: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            got.append(chunk.choices[0].text)

    with pytest.raises(openai.APIError, match="not finished") as caught:
        await read()
    assert got == pieces_of(NAME, "x", 0)[:2]
    assert caught.value.code == "deadline_exceeded"


@pytest.mark.parametrize("hold_at", [0, 2])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_work(generator, stream: bool, hold_at: int) -> None:
    generator.fake.hold_at = hold_at
    async with served(generator) as client:

        async def ask() -> None:
            answer = await client.completions.create(model=NAME, prompt="x", n=3, stream=stream)
            if isinstance(answer, openai.AsyncStream):
                async for _ in answer:
                    pass

        asking = asyncio.create_task(ask())
        await generator.fake.held.wait()
        asking.cancel()
        async with asyncio.timeout(MAX_WAIT_S):
            await generator.fake.ended.wait()
    assert [status for _, status in generator.site.counted()] == ["499"]
