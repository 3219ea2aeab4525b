"""LiteLLM's library, through its providers for servers that others run."""

from __future__ import annotations

import json
from typing import Any, Literal

import litellm
import numpy as np
import pytest
from pydantic import BaseModel

CHAT: list[Any] = [{"role": "user", "content": "Name a colour."}]

AS_JSON: list[Any] = [{"role": "user", "content": 'Repeat: {"verdict":"good","stars":5}'}]
"""A small model copies what it is shown, and so leaves out the blanks that JSON may have."""

QUERY, DOCUMENTS = "Is it any good?", ["the worst plot of the year", "a wonderful film"]

ENOUGH = 512
"""Tokens for an answer of a form here, however many blanks the model writes between its signs."""


class Review(BaseModel):
    """The form of an answer."""

    verdict: Literal["good", "bad"]
    stars: Literal[1, 2, 3, 4, 5]


@pytest.fixture(params=["openai", "hosted_vllm"])
def to(request: pytest.FixtureRequest, url: str) -> Any:
    """What each call is given beside its own; both providers are pointed at servers like ours."""

    def given(model: str, **fields: Any) -> dict[str, Any]:
        place = {"api_base": f"{url}/v1", "api_key": "none", "num_retries": 0}
        return {"model": f"{request.param}/{model}", **place, **fields}

    return given


def test_chat(to: Any) -> None:
    asked = to("smollm2:q4_1", messages=CHAT, temperature=0, max_tokens=8)
    said = litellm.completion(**asked)
    assert said.choices[0].message.content
    assert said.usage.completion_tokens <= 8
    chunks = list(litellm.completion(**asked, stream=True))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == said.choices[0].message.content
    rebuilt = litellm.stream_chunk_builder(chunks, messages=CHAT)
    assert rebuilt is not None
    assert rebuilt.choices[0].message.content == text


async def test_async_chat(to: Any) -> None:
    asked = to("smollm2:q4_1", messages=CHAT, temperature=0, max_tokens=8)
    said = await litellm.acompletion(**asked)
    stream = await litellm.acompletion(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == said.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == said.usage.completion_tokens


def test_structured_output(to: Any) -> None:
    asked = to("smollm2:q4_1", messages=AS_JSON, response_format=Review, temperature=0)
    said = litellm.completion(**asked, max_tokens=ENOUGH)
    Review.model_validate_json(said.choices[0].message.content)


def test_tools(to: Any) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    said = litellm.completion(
        **to("caller", messages=CHAT, tools=tools, max_tokens=ENOUGH),
        tool_choice="required",
        parallel_tool_calls=False,
    )
    message = said.choices[0].message
    [call] = message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    result = {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": "sunny"}
    history = [*CHAT, message.model_dump(), result]
    assert litellm.completion(**to("caller", messages=history, max_tokens=8)).choices


def test_text_completion(to: Any) -> None:
    said = litellm.text_completion(
        **to("smollm2:q4_1", prompt="Once upon a", temperature=0, max_tokens=8)
    )
    assert said.choices[0].text


def test_embeddings(to: Any) -> None:
    asked = to("minilm:fp32", input=["a good film", "the worst plot of the year"])
    vectors = np.array([entry["embedding"] for entry in litellm.embedding(**asked).data])
    assert vectors.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # Which it takes, the provider for OpenAI itself only believes of OpenAI's own names.
    short_asked = {**asked, "input": ["a good film"], "allowed_openai_params": ["dimensions"]}
    [short] = litellm.embedding(**short_asked, dimensions=64).data
    expected = vectors[0, :64] / np.linalg.norm(vectors[0, :64])
    np.testing.assert_allclose(short["embedding"], expected, atol=1e-5)


def test_embeddings_by_providers_for_rankers(url: str) -> None:
    """Of servers that embed and rank; they ask the same route in forms of their own."""
    place = {"api_base": f"{url}/v1", "api_key": "none", "input": ["a good film"]}
    [expected] = litellm.embedding(model="openai/minilm:fp32", **place).data
    for provider in ("infinity", "jina_ai"):
        [found] = litellm.embedding(model=f"{provider}/minilm:fp32", **place).data
        np.testing.assert_allclose(found["embedding"], expected["embedding"], atol=1e-6)


RANKERS = {"cohere": "", "hosted_vllm": "", "jina_ai": "", "infinity": "/v1"}
"""Where each provider is pointed, to ask /v1/rerank, /rerank, /v1/rerank and /v1/rerank."""


@pytest.mark.parametrize(("provider", "path"), RANKERS.items())
async def test_rerank(url: str, provider: str, path: str) -> None:
    # Infinity's documents come back as plain texts, ours as objects.
    shown = provider != "infinity"
    asked: dict[str, Any] = {
        **{"model": f"{provider}/ranker", "api_base": f"{url}{path}", "api_key": "none"},
        **{"query": QUERY, "documents": DOCUMENTS, "return_documents": shown},
    }
    ranked = litellm.rerank(**asked).results
    assert [result["index"] for result in ranked] == [1, 0]
    best, worst = (result["relevance_score"] for result in ranked)
    assert 0 <= worst < 0.5 < best <= 1
    if shown:
        assert [result["document"]["text"] for result in ranked] == DOCUMENTS[::-1]
    [first] = (await litellm.arerank(**asked, top_n=1)).results
    assert (first["index"], first["relevance_score"]) == (1, pytest.approx(best, abs=1e-3))


def test_errors_are_the_client_s(to: Any) -> None:
    with pytest.raises(litellm.NotFoundError, match="nosuch"):
        litellm.completion(**to("nosuch", messages=CHAT))
    long = [{"role": "user", "content": "word " * 4_000}]
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**to("smollm2:q4_1", messages=long))
