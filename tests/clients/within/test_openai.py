"""OpenAI's own client: sync, async, streams, raw answers, parsing, tools, token ids, errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import httpx
import numpy as np
import openai
import pytest
from pydantic import BaseModel

CHAT = "smollm2:q4_1"
QUESTION: list[Any] = [{"role": "user", "content": "Name a colour."}]
A_GOOD_FILM = [101, 1037, 2204, 2143, 102]
"""Token ids of bert-base-uncased for "a good film", its special tokens included."""

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}

AS_JSON: list[Any] = [{"role": "user", "content": 'Repeat: {"verdict":"good","stars":5}'}]
"""A small model copies what it is shown, and so leaves out the blanks that JSON may have."""

ENOUGH = 512
"""Tokens for an answer of a form here, however many blanks the model writes between its signs."""


class Review(BaseModel):
    """What an answer is parsed into; every way to write it is short."""

    verdict: Literal["good", "bad"]
    stars: Literal[1, 2, 3, 4, 5]


class Weather(BaseModel):
    """Arguments of a tool."""

    city: Literal["Paris", "Rome"]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def answer(client: openai.OpenAI) -> str:
    """What the model answers to the question; the other ways to ask must get the same."""
    asked = client.chat.completions.create(model=CHAT, messages=QUESTION, **GREEDY)
    [choice] = asked.choices
    assert asked.model == CHAT
    assert asked.usage is not None
    assert asked.usage.completion_tokens <= GREEDY["max_tokens"]
    assert choice.message.content
    return choice.message.content


def vector(client: openai.OpenAI, **fields: Any) -> np.ndarray:
    [entry] = client.embeddings.create(**{"model": "minilm:fp32", **fields}).data
    return np.array(entry.embedding)


def test_models(client: openai.OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert {"minilm:fp32", CHAT} <= set(ids)
    for name in ids:
        assert client.models.retrieve(name).id == name


def test_chat_as_a_stream(client: openai.OpenAI, answer: str) -> None:
    chunks = list(
        client.chat.completions.create(
            model=CHAT,
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == answer
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 1


def test_the_stream_helper(client: openai.OpenAI, answer: str) -> None:
    with client.chat.completions.stream(model=CHAT, messages=QUESTION, temperature=0) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(pieces) == final.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert "".join(pieces).startswith(answer)


async def test_async(async_client: openai.AsyncOpenAI, answer: str) -> None:
    whole = await async_client.chat.completions.create(model=CHAT, messages=QUESTION, **GREEDY)
    assert whole.choices[0].message.content == answer
    stream = await async_client.chat.completions.create(
        model=CHAT, messages=QUESTION, stream=True, **GREEDY
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == answer


def test_raw_and_streamed_answers(client: openai.OpenAI, answer: str) -> None:
    asked: dict[str, Any] = {"model": CHAT, "messages": QUESTION, **GREEDY}
    raw = client.chat.completions.with_raw_response.create(**asked)
    assert raw.headers["x-variant"] == "q4_1"
    assert raw.parse().choices[0].message.content == answer
    with client.chat.completions.with_streaming_response.create(**asked) as streamed:
        assert streamed.headers["x-model"] == "smollm2"
        assert json.loads(streamed.read())["choices"][0]["message"]["content"] == answer


def test_an_answer_is_parsed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": CHAT,
        "messages": AS_JSON,
        "response_format": Review,
        "temperature": 0,
        "max_tokens": ENOUGH,
    }
    review = client.chat.completions.parse(**asked).choices[0].message.parsed
    assert isinstance(review, Review)
    with client.chat.completions.stream(**asked) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, Review)


def test_tools(client: openai.OpenAI) -> None:
    """A call is asked for, answered, and the model goes on."""
    tool = openai.pydantic_function_tool(Weather, name="weather")
    asked: dict[str, Any] = {"model": "caller", "messages": QUESTION, "tools": [tool]}
    [choice] = client.chat.completions.parse(
        **asked, tool_choice="required", parallel_tool_calls=False, max_tokens=ENOUGH
    ).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    [call] = choice.message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    history = [*QUESTION, choice.message.model_dump(), result]
    # By another name of the same model, as hubs write it.
    alias = "quantserve/Caller-135M:int8-dynamic"
    said = client.chat.completions.create(model=alias, messages=history, **GREEDY)
    assert said.model == "caller:int8-dynamic"
    assert said.choices[0].message.content


def test_tools_as_a_stream(client: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(Weather, name="weather")
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    with client.chat.completions.stream(
        model="caller", messages=QUESTION, tools=[tool], tool_choice=choice, max_tokens=ENOUGH
    ) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.message.tool_calls is not None
    [call] = final.message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)


def test_completions_of_token_ids(client: openai.OpenAI, url: str) -> None:
    """The ids that /tokenize gives of a text are continued as the text is."""
    asked = {"model": CHAT, "prompt": "Once upon a time"}
    ids = httpx.post(f"{url}/tokenize", json=asked, timeout=60).json()["tokens"]
    texts = [
        choice.text
        for prompt in (asked["prompt"], ids, [ids, ids])
        for choice in client.completions.create(model=CHAT, prompt=prompt, **GREEDY).choices
    ]
    assert len(texts) == 4
    assert set(texts) == {texts[0]}
    assert texts[0]


def test_logprobs(client: openai.OpenAI) -> None:
    asked = client.chat.completions.create(
        model=CHAT, messages=QUESTION, logprobs=True, top_logprobs=2, **GREEDY
    )
    [choice] = asked.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    tokens = choice.logprobs.content
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode() == choice.message.content
    # The most probable token was taken each time.
    assert all(token.logprob == token.top_logprobs[0].logprob for token in tokens)


def test_embeddings(client: openai.OpenAI) -> None:
    """base64, which the client asks for of itself, and floats hold the same numbers."""
    plain = vector(client, input="a good film")
    assert plain.shape == (384,)
    np.testing.assert_allclose(np.linalg.norm(plain), 1, atol=1e-5)
    floats = vector(client, input="a good film", encoding_format="float")
    np.testing.assert_allclose(floats, plain, atol=1e-7)


def test_shorter_embeddings(client: openai.OpenAI) -> None:
    """As OpenAI defines it: the first numbers, and of length 1 again."""
    whole = vector(client, input="a good film")[:64]
    short = vector(client, input="a good film", dimensions=64)
    np.testing.assert_allclose(short, whole / np.linalg.norm(whole), atol=1e-6)


def test_embeddings_of_token_ids(client: openai.OpenAI) -> None:
    """Padding to another length may change the last bits, so they are not compared."""
    of_text = vector(client, input="a good film")
    np.testing.assert_allclose(vector(client, input=A_GOOD_FILM), of_text, atol=1e-6)
    two = client.embeddings.create(model="minilm:fp32", input=[A_GOOD_FILM, A_GOOD_FILM]).data
    np.testing.assert_allclose([entry.embedding for entry in two], [of_text] * 2, atol=1e-6)


def test_errors_are_the_client_s(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="minilm"):
        client.embeddings.create(model="nosuch", input="x")
    with pytest.raises(openai.UnprocessableEntityError, match="unknown field") as caught:
        client.embeddings.create(model="minilm", input="x", extra_body={"nosuch": 1})
    assert caught.value.param == "nosuch"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(model=CHAT, prompt="a " * 4_000)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="no route"):
        client.responses.create(model=CHAT, input="Hi")


def test_the_path_chooses_the_variant(url: str) -> None:
    base = f"{url}/minilm/int8-dynamic/v1/"
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0) as direct:
        raw = direct.embeddings.with_raw_response.create(model="minilm", input="a good film")
    assert raw.headers["x-variant"] == "int8-dynamic"
