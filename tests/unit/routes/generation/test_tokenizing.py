"""``/tokenize`` and ``/detokenize``: as vLLM has them, on both mounts."""

from typing import Any

import pytest

from serving.errors import NotReady
from serving.metrics import Labels
from tests.unit.routes.generation.conftest import GeneratorSite

MODEL = {"model": "smollm2:int4"}


async def ask(generator: GeneratorSite, route: str, **body: Any) -> Any:
    response = await generator.site.client.post(route, json={**MODEL, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_text_becomes_tokens(generator) -> None:
    assert await ask(generator, "/tokenize", prompt="a cat") == {
        "count": 5,
        "max_model_len": 128,
        "tokens": list(b"a cat"),
        "token_strs": None,
    }


async def test_what_each_token_says_if_asked_for(generator) -> None:
    answer = await ask(generator, "/tokenize", prompt="cat", return_token_strs=True)
    assert answer["token_strs"] == ["c", "a", "t"]


async def test_a_chat_becomes_tokens(generator) -> None:
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": None}]
    assert (await ask(generator, "/tokenize", messages=messages))["tokens"] == list(b"ab|")


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


async def test_what_the_model_is_told_of_tools_counts(generator) -> None:
    messages = [{"role": "user", "content": "ab"}]
    answer = await ask(generator, "/tokenize", messages=messages, tools=[tool("add")])
    assert answer["tokens"] == list(b"add|ab")


async def test_tokens_become_their_text(generator) -> None:
    assert await ask(generator, "/detokenize", tokens=list(b"a cat")) == {"prompt": "a cat"}


CHAT = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x", "add_special_tokens": True},
        {"messages": CHAT, "add_special_tokens": False, "add_generation_prompt": True},
        {"messages": CHAT, "continue_final_message": False},
        {"prompt": "x", "messages": None},
    ],
)
async def test_values_that_do_nothing_are_accepted(replica_generator, body: Any) -> None:
    await ask(replica_generator, "/tokenize", **body)


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": CHAT}, "prompt"),
        ("/tokenize", {"prompt": ""}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": "x", "add_special_tokens": False}, "add_special_tokens"),
        ("/tokenize", {"messages": CHAT, "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"messages": CHAT, "add_generation_prompt": False}, "add_generation_prompt"),
        ("/tokenize", {"messages": CHAT, "continue_final_message": True}, "continue_final_message"),
        ("/tokenize", {"prompt": "x", "return_token_strs": 1}, "return_token_strs"),
        ("/tokenize", {"prompt": "x", "tools": [tool("add")]}, "tools"),
        ("/tokenize", {"messages": CHAT, "tools": [tool("add")] * 2}, "tools"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": []}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens"),
        ("/detokenize", {"tokens": [True]}, "tokens"),
    ],
)
async def test_the_rest_is_refused_by_name(replica_generator, route, body, param: str) -> None:
    response = await replica_generator.site.client.post(route, json={**MODEL, **body})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


async def test_a_model_that_does_not_generate_is_refused(gateway_generator) -> None:
    body = {"model": "minilm", "prompt": "x"}
    response = await gateway_generator.site.client.post("/tokenize", json=body)
    assert response.status_code == 422
    assert "model 'minilm' serves embeddings" in response.json()["error"]["message"]


async def test_tokens_are_counted_as_a_request_and_not_timed(generator) -> None:
    response = await generator.site.client.post("/tokenize", json={**MODEL, "prompt": "x"})
    assert response.headers["X-Variant"] == "int4"
    assert generator.site.counted() == {(Labels("smollm2", "int4", "generation"), "200"): 1}
    assert generator.site.timed() == 0


async def test_a_variant_that_is_not_ready_says_so(generator) -> None:
    generator.fake.failure = NotReady("loading")
    response = await generator.site.client.post("/detokenize", json={**MODEL, "tokens": [1]})
    assert response.status_code == 503
