"""Text generation on the real model: every variant and path, streams, stops, failures."""

from __future__ import annotations

import concurrent.futures
import json
import math
import time
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import httpx
import jsonschema
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.checkpoint import find_checkpoint
from serving.demo import DEMO_CONFIG
from serving.settings import load_config
from tests.integration.demo_service import KEY
from tests.integration.running_service import RunningService

VARIANTS = ["fp32", "bf16", "int8-dynamic", "int4"]
PROMPTS = [
    "Once upon a time, in a village by the sea,",
    "The three most important rules of good writing are",
    "In 1969 the first people walked on the",
    "def fibonacci(n):",
    "Dear Sir or Madam, I am writing to",
    "The recipe needs two eggs, a cup of flour and",
    "It was a dark and stormy night;",
    "My favourite film of all time is",
]
NEW_TOKENS = 24
DEADLINE_S = 60

PERPLEXITY_RATIOS = {"bf16": 1.02, "int8-dynamic": 1.1, "int4": 1.2, "q4_1": 1.03}
"""Most that a variant's perplexity on review text may be of fp32's. Over 2,047 predictions it was
1.001, 1.033 and 1.094 (``benchmarks.perplexity``), and q4_1 is the file that fp32 was expanded
from; the rest is for fewer predictions and other instruction sets."""


@pytest.fixture(scope="module")
def api(demo: RunningService) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def perplexity_of_fp32(client: httpx.Client) -> float:
    return perplexity(client, "fp32")


def perplexity(client: httpx.Client, variant: str) -> float:
    """Of some four hundred tokens of film reviews, each predicted from all before."""
    lines = files("serving.demo").joinpath("reviews_test.jsonl").read_text().splitlines()
    text = " ".join(json.loads(line)["input"] for line in lines[:20])
    answer = complete(client, variant, text, max_tokens=1, logprobs=1, echo=True)
    scores = answer["choices"][0]["logprobs"]["token_logprobs"][1:-1]
    assert len(scores) > 300
    return math.exp(-sum(scores) / len(scores))


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """What transformers' own ``generate`` continues each prompt with, greedily, in fp32."""
    checkpoint = find_checkpoint("smollm2", smollm2_source())
    form: dict[str, Any] = {"gguf_file": checkpoint.gguf_file} if checkpoint.gguf_file else {}
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **form)
    model: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=torch.float32, **form
    )
    answers = {}
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(**ids, max_new_tokens=NEW_TOKENS, do_sample=False)
        continuation = out[0, ids["input_ids"].shape[1] :]
        answers[prompt] = str(tokenizer.decode(continuation, skip_special_tokens=True))
    return answers


ANSWER = {
    "type": "object",
    "properties": {
        "capital": {"type": "string", "maxLength": 20},
        "size": {"enum": ["small", "large"]},
    },
    "required": ["capital", "size"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_follow_a_schema(api: openai.OpenAI, variant: str) -> None:
    """In every variant, on the selecting path, whole and streamed."""
    asked: dict[str, Any] = {
        "model": f"smollm2:{variant}",
        "messages": [{"role": "user", "content": "What is the capital of France? As JSON."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": ANSWER}},
        "temperature": 0,
        "max_tokens": 100,
    }
    [choice] = api.chat.completions.create(**asked).choices
    assert choice.finish_reason == "stop"
    assert choice.message.content is not None
    jsonschema.validate(json.loads(choice.message.content), ANSWER)
    chunks = api.chat.completions.create(**asked, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == choice.message.content


def test_a_schema_that_cannot_be_kept_and_tools_without_a_template(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "smollm2:int4",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    schema = {"type": "array", "uniqueItems": True}
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with pytest.raises(openai.UnprocessableEntityError, match="uniqueItems"):
        api.chat.completions.create(**asked, response_format=form)
    tools: Any = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(openai.UnprocessableEntityError, match="no place for tools"):
        api.chat.completions.create(**asked, tools=tools)


@cache
def smollm2_source() -> str:
    config = load_config(DEMO_CONFIG)
    return next(model.source for model in config.models if model.name == "smollm2")


def complete(client: httpx.Client, variant: str, prompt: str, **fields: Any) -> dict[str, Any]:
    """Greedy continuation on the direct path."""
    body = {"prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, **fields}
    answer = client.post(f"/smollm2/{variant}/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def events(response: httpx.Response) -> Iterator[dict[str, Any] | str]:
    for line in response.iter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)


def test_fp32_continues_as_transformers_does(
    client: httpx.Client, expected: dict[str, str]
) -> None:
    for prompt, text in expected.items():
        assert complete(client, "fp32", prompt)["choices"][0]["text"] == text


@pytest.mark.parametrize("path", ["direct", "selecting"])
def test_concurrent_streams_are_each_their_own(
    client: httpx.Client, expected: dict[str, str], path: str
) -> None:
    def ask(prompt: str) -> str:
        body = {"prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "stream": True}
        url = "/smollm2/fp32/v1/completions"
        if path == "selecting":
            url, body["model"] = "/v1/completions", "smollm2:fp32"
        with client.stream("POST", url, json=body, timeout=DEADLINE_S) as response:
            assert response.headers["x-variant"] == "fp32"
            pieces = list(events(response))
        assert pieces[-1] == "[DONE]"
        choices = [piece["choices"][0] for piece in pieces[:-1] if isinstance(piece, dict)]
        assert len(choices) > NEW_TOKENS / 2, "the answer did not come in pieces"
        return "".join(choice["text"] for choice in choices)

    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        assert dict(zip(PROMPTS, pool.map(ask, PROMPTS), strict=True)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_answers_a_chat(api: openai.OpenAI, variant: str) -> None:
    # Of the ways to ask, one where fp32's two best tokens are never closer than a factor of e: with
    # "What is the capital of France?" they are within 8 % of each other, and int8 may take either.
    question: Any = [{"role": "user", "content": "Name the capital of France."}]
    whole = api.chat.completions.create(
        model=f"smollm2:{variant}", messages=question, temperature=0, max_completion_tokens=40
    )
    assert "Paris" in (whole.choices[0].message.content or "")
    assert whole.choices[0].finish_reason == "stop"
    assert whole.model == f"smollm2:{variant}"
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(
        api.chat.completions.create(
            model=f"smollm2:{variant}",
            messages=question,
            temperature=0,
            max_completion_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_seed_gives_the_same_text_alone_and_in_company(client: httpx.Client) -> None:
    sampled = {"temperature": 1, "top_p": 0.9, "seed": 5}
    alone = complete(client, "fp32", PROMPTS[0], **sampled)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda p: complete(client, "fp32", p, **sampled), [*PROMPTS[1:], PROMPTS[0]])
        )
    assert together[-1]["choices"] == alone["choices"]
    other = complete(client, "fp32", PROMPTS[0], **{**sampled, "seed": 6})
    assert other["choices"][0]["text"] != alone["choices"][0]["text"]


def test_stop_strings_end_the_text_before_them(
    client: httpx.Client, expected: dict[str, str]
) -> None:
    text = expected[PROMPTS[0]]
    # Straddles tokens: it begins and ends in the middle of a word.
    stop = text[len(text) // 2 - 3 : len(text) // 2 + 4]
    choice = complete(client, "fp32", PROMPTS[0], stop=[stop])["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_the_length_ends_the_text(client: httpx.Client, expected: dict[str, str]) -> None:
    answer = complete(client, "fp32", PROMPTS[1], max_tokens=5)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert expected[PROMPTS[1]].startswith(answer["choices"][0]["text"])
    assert answer["usage"]["completion_tokens"] == 5


def test_logprobs_and_echo(client: httpx.Client) -> None:
    answer = complete(client, "fp32", PROMPTS[2], max_tokens=4, logprobs=2, echo=True)
    choice = answer["choices"][0]
    assert choice["text"].startswith(PROMPTS[2])
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    assert found["token_logprobs"][0] is None
    assert all(value <= 0 for value in found["token_logprobs"][1:])
    # Greedy: each new token is the most probable one.
    for value, top in list(zip(found["token_logprobs"], found["top_logprobs"], strict=True))[-4:]:
        assert value == max(top.values())


@pytest.mark.parametrize(("variant", "ratio"), PERPLEXITY_RATIOS.items())
def test_perplexity_of_every_quantized_variant_is_bounded(
    client: httpx.Client, perplexity_of_fp32: float, variant: str, ratio: float
) -> None:
    assert perplexity(client, variant) < ratio * perplexity_of_fp32


def test_a_client_that_leaves_frees_its_place(client: httpx.Client) -> None:
    for url, model in [
        ("/smollm2/bf16/v1/completions", None),
        ("/v1/completions", "smollm2:bf16"),
    ]:
        body = {"prompt": PROMPTS[3], "max_tokens": 1_900, "stream": True, "temperature": 1}
        if model:
            body["model"] = model
        with client.stream("POST", url, json=body, timeout=DEADLINE_S) as response:
            # Kept, since its end would close the connection.
            received = events(response)
            next(received)
            assert running(client, "bf16") >= 1  # a probe's sequence has a place, too
        wait_until_idle(client, "bf16")


def running(client: httpx.Client, variant: str) -> float:
    """Sequences that the variant works on, by ``/metrics``."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("quantserve_running_requests{") and f'variant="{variant}"' in line:
            return float(line.rpartition(" ")[2])
    raise AssertionError("no such series")


def wait_until_idle(client: httpx.Client, variant: str) -> None:
    """Between two probes no sequence is left, long before 1,900 tokens would have been written."""
    deadline = time.monotonic() + DEADLINE_S / 2
    while time.monotonic() < deadline:
        if running(client, variant) == 0:
            return
    raise AssertionError("the sequence of a client that left goes on")


def test_requests_that_cannot_fit_are_refused(client: httpx.Client) -> None:
    path = "/smollm2/int4/v1/completions"
    too_long = client.post(path, json={"prompt": "word " * 3_000, "max_tokens": 1})
    assert too_long.status_code == 400
    assert "2048" in too_long.json()["error"]["message"].replace(",", "")
    too_much = client.post(path, json={"prompt": "word", "max_tokens": 5_000})
    assert too_much.status_code == 400
    assert too_much.json()["error"]["param"] in ("max_tokens", "prompt")
    wrong_task = client.post("/minilm/int4/v1/completions", json={"prompt": "word"})
    assert wrong_task.status_code == 422
    unknown = client.post(path, json={"prompt": "word", "best_off": 1})
    assert unknown.status_code == 422
    assert "best_off" in unknown.json()["error"]["message"]


def test_usage_metrics_and_memory(client: httpx.Client) -> None:
    def total(name: str) -> float:
        return sum(
            float(line.rpartition(" ")[2])
            for line in client.get("/metrics").text.splitlines()
            if line.startswith(f"quantserve_{name}{{")
            and 'model="smollm2"' in line
            and 'variant="int4"' in line
        )

    names = ["output_tokens_total", "input_tokens_total", "time_to_first_token_seconds_count"]
    before = {name: total(name) for name in names}
    usage = complete(client, "int4", PROMPTS[4], max_tokens=7)["usage"]
    assert total("output_tokens_total") - before["output_tokens_total"] == 7
    sent = total("input_tokens_total") - before["input_tokens_total"]
    assert sent == usage["prompt_tokens"]
    name = "time_to_first_token_seconds_count"
    assert total(name) - before[name] == 1
    assert total("kv_cache_bytes") > 0
    listed = {entry["id"]: entry["quantserve"] for entry in client.get("/v1/models").json()["data"]}
    weights = {v: listed[f"smollm2:{v}"]["weights_bytes"] for v in VARIANTS}
    assert weights["int4"] < 0.25 * weights["fp32"]
    assert weights["int8-dynamic"] < 0.30 * weights["fp32"]
    assert listed["smollm2:bf16"]["kv_cache_bytes"] * 2 == listed["smollm2:fp32"]["kv_cache_bytes"]


def test_a_replica_killed_in_the_middle_is_said_and_replaced(
    demo: RunningService, client: httpx.Client
) -> None:
    (victim,) = demo.replica_processes("smollm2", "int8-dynamic")
    body = {
        "model": "smollm2:int8-dynamic",
        "prompt": PROMPTS[5],
        "max_tokens": 1_900,
        "stream": True,
    }
    received = []
    with client.stream("POST", "/v1/completions", json=body, timeout=180) as response:
        for event in events(response):
            received.append(event)
            if len(received) == 3:
                victim.kill()
    last = received[-1]
    assert isinstance(last, dict)
    assert last["error"]["code"] == "internal_error"
    assert "[DONE]" not in received
    again = client.post(
        "/v1/completions",
        json={"model": "smollm2:int8-dynamic", "prompt": PROMPTS[5], "max_tokens": 3},
        timeout=180,
    )
    assert again.status_code == 200, again.text
