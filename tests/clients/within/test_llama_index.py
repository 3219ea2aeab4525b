"""LlamaIndex' classes for servers that are like OpenAI's."""

from typing import Any, Literal

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from openai import NotFoundError
from pydantic import BaseModel

CHAT = [ChatMessage(role="user", content="Name a colour.")]

AS_JSON = [ChatMessage(role="user", content='Repeat: {"verdict":"good","stars":5}')]
"""A small model copies what it is shown, and so leaves out the blanks that JSON may have."""

ENOUGH = 512
"""Tokens for an answer of a form here, however many blanks the model writes between its signs."""


class Review(BaseModel):
    """What an answer is parsed into."""

    verdict: Literal["good", "bad"]
    stars: Literal[1, 2, 3, 4, 5]


def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def model_of(url: str, model: str = "smollm2:q4_1", **options: Any) -> OpenAILike:
    given = {"max_tokens": 8, "temperature": 0, "max_retries": 0, **options}
    return OpenAILike(
        model=model, api_base=f"{url}/v1", api_key="none", is_chat_model=True, **given
    )


def test_chat(url: str) -> None:
    model = model_of(url)
    said = model.chat(CHAT).message.content
    pieces = [chunk.delta or "" for chunk in model.stream_chat(CHAT)]
    assert "".join(pieces) == said != ""
    assert len(pieces) > 1


async def test_async_chat(url: str) -> None:
    model = model_of(url)
    said = (await model.achat(CHAT)).message.content
    stream = await model.astream_chat(CHAT)
    assert "".join([chunk.delta or "" async for chunk in stream]) == said != ""


def test_completions(url: str) -> None:
    model = model_of(url)
    model.is_chat_model = False
    said = model.complete("Once upon a").text
    assert "".join(chunk.delta or "" for chunk in model.stream_complete("Once upon a")) == said
    assert said


def test_tools(url: str) -> None:
    """A required call is run, and its result goes back."""
    model = model_of(url, "caller", is_function_calling_model=True, max_tokens=ENOUGH)
    tool = FunctionTool.from_defaults(weather)
    said = model.chat_with_tools([tool], chat_history=CHAT, tool_required=True)
    [call] = model.get_tool_calls_from_response(said)
    result = tool(**call.tool_kwargs).content
    assert result in ("sunny in Paris", "sunny in Rome")
    answered = {"tool_call_id": call.tool_id}
    result_message = ChatMessage(role="tool", content=result, additional_kwargs=answered)
    assert model_of(url, "caller").chat([*CHAT, said.message, result_message]).message.content


def test_structured_output(url: str) -> None:
    model = model_of(
        url, "caller", is_function_calling_model=True, max_tokens=ENOUGH
    ).as_structured_llm(Review)
    assert isinstance(model.chat(AS_JSON).raw, Review)


def test_embeddings(url: str) -> None:
    model = OpenAILikeEmbedding(
        model_name="minilm:fp32", api_base=f"{url}/v1", api_key="none", embed_batch_size=2
    )
    texts = ["a good film", "the worst plot of the year", "a good film"]
    vectors = np.array(model.get_text_embedding_batch(texts))
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[2], vectors[0], atol=1e-5)
    np.testing.assert_allclose(model.get_query_embedding(texts[1]), vectors[1], atol=1e-5)


def test_errors_are_the_client_s(url: str) -> None:
    with pytest.raises(NotFoundError, match="nosuch"):
        model_of(url, "nosuch").chat(CHAT)
