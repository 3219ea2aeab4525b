"""langchain-openai: chat, streams, tools, structured output, embeddings."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import openai
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr


class Review(BaseModel):
    """What an answer is parsed into."""

    verdict: Literal["good", "bad"]
    stars: Literal[1, 2, 3, 4, 5]


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def chat_model(url: str, model: str = "smollm2:q4_1", **options: Any) -> ChatOpenAI:
    # Enough for an answer of a form, however many blanks the model writes between its signs.
    given = {"max_tokens": 512, "temperature": 0, "max_retries": 0, **options}
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=SecretStr("none"), **given)


def test_chat(url: str) -> None:
    model = chat_model(url, max_tokens=8)
    said = model.invoke("Name a colour.")
    assert said.content
    assert said.usage_metadata is not None
    assert 0 < said.usage_metadata["output_tokens"] <= 8
    chunks = list(model.stream("Name a colour."))
    assert len(chunks) > 1
    assert "".join(str(chunk.content) for chunk in chunks) == said.content
    assert [answer.content for answer in model.batch(["Name a colour."] * 2)] == [said.content] * 2


async def test_async_chat(url: str) -> None:
    model = chat_model(url, max_tokens=8)
    said = await model.ainvoke([("system", "Be brief."), ("human", "Name a colour.")])
    pieces = [
        str(chunk.content)
        async for chunk in model.astream([("system", "Be brief."), ("human", "Name a colour.")])
    ]
    assert "".join(pieces) == said.content != ""


def test_completions(url: str) -> None:
    model = OpenAI(
        model="smollm2:q4_1",
        base_url=f"{url}/v1",
        api_key=SecretStr("none"),
        max_tokens=8,
        temperature=0,
    )
    assert "".join(model.stream("Once upon a")) == model.invoke("Once upon a") != ""


def test_tools(url: str) -> None:
    """A required call is run, and its result goes back."""
    model = chat_model(url, "caller")
    question = HumanMessage("What is the weather?")
    bound = model.bind_tools([weather], tool_choice="required", parallel_tool_calls=False)
    call = bound.invoke([question])
    assert isinstance(call, AIMessage)
    [asked] = call.tool_calls
    result = weather.invoke(asked)
    assert isinstance(result, ToolMessage)
    said = chat_model(url, "caller", max_tokens=8).invoke([question, call, result])
    assert said.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_structured_output(url: str, method: Any, is_streamed: bool) -> None:
    model = chat_model(url, "caller").with_structured_output(Review, method=method)
    # A small model copies what it is shown, and so leaves out the blanks that JSON may have.
    asked = 'Repeat: {"verdict":"good","stars":5}'
    review = list(model.stream(asked))[-1] if is_streamed else model.invoke(asked)
    assert isinstance(review, Review)


def test_embeddings(url: str) -> None:
    """Texts have to be sent as texts: of itself the client makes ids of another tokenizer."""
    model = OpenAIEmbeddings(
        model="minilm:fp32",
        base_url=f"{url}/v1",
        api_key=SecretStr("none"),
        check_embedding_ctx_length=False,
    )
    texts = ["a good film", "the worst plot of the year"]
    vectors = np.array(model.embed_documents(texts))
    assert vectors.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(model.embed_query(texts[1]), vectors[1], atol=1e-5)


def test_errors_are_the_client_s(url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="nosuch"):
        chat_model(url, "nosuch").invoke("Hi")
    with pytest.raises(ContextOverflowError):
        chat_model(url).invoke("word " * 4_000)
